# A disk is put back to one of its snapshots, and nobody sees anything of what it was: not in a page cache, not in a partition
# table, and not after a kill at any moment. Who has it in use keeps it as it is.
# vm: --file Tests/VM/scenarios/devices.bash
# kernels: 7
source lib.sh
source devices.bash
cd /data
use_images_disk 400M

# mark WORD [OPTION]...: it begins the disk, or is where dd is told, and what the page cache has of that is clean.
mark() { echo "$1" | dd of="$device" conv=sync,notrunc,fsync status=none "${@:2}"; }
marked() { dd if="$device" count=1 "$@" status=none | tr -d '\0'; }

step "a file system is put back; who has it mounted or open is not surprised"
qed-ublk create disk.qed 128M
device=$(qed-ublk add disk.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
for name in monday tuesday wednesday; do
    seq 20000 >"/mnt/$name"
    sync -f /mnt
    qed-ublk snapshot "$device" "$name.qed" >/dev/null
done
rm /mnt/monday
dd if=/dev/urandom of=/mnt/later bs=1M count=20 status=none
sync -f /mnt
before=$(stat -c %i disk.qed)
expect_refusal 3 "$device is in use.*mounted.*or use --force" qed-ublk rollback "$device" tuesday.qed
umount /mnt
exec 9<"$device"
expect_refusal 3 "$device is in use.*or use --force" qed-ublk rollback "$device" tuesday.qed
exec 9<&-
expect_refusal 1 'is not beneath' qed-ublk rollback "$device" /data/disk
expect_refusal 1 'is not beneath' qed-ublk rollback "$device" disk.qed
expect_equal "the image" "$before" "$(stat -c %i disk.qed)"
expect_equal "the chain" "disk.qed wednesday.qed tuesday.qed monday.qed" "$(chain)"
expect_status 0 e2fsck -fn "$device" # and all of it is in the page cache
expect_output 'tuesday.qed: the disk is as it was then' qed-ublk rollback "$device" tuesday.qed
expect_equal "the chain" "disk.qed tuesday.qed monday.qed" "$(chain)"
expect_equal "the files" $'disk.qed\nmonday.qed\ntuesday.qed\nwednesday.qed' "$(find . -name '*.qed*' -printf '%P\n' | sort)"
expect_equal "how many lie beneath it" 2 "$(qed-ublk status --json "$device" | jq '."backing-files"')"
mount "$device" /mnt
expect_equal "the files on it" "lost+found monday tuesday" "$(echo /mnt/* | sed 's|/mnt/||g')"
for name in monday tuesday; do expect_status 0 cmp "/mnt/$name" <(seq 20000); done
seq 30000 >/mnt/again
umount /mnt
expect_equal "what it says" "[\"$PWD/monday.qed\",1,[\"$PWD/tuesday.qed\"]]" \
    "$(qed-ublk rollback --json "$device" monday.qed | jq -c '[.snapshot, ."left-count", .left]')"
mount "$device" /mnt
expect_equal "the files on it" "lost+found monday" "$(echo /mnt/* | sed 's|/mnt/||g')"
dd if=/dev/urandom of=/mnt/large bs=1M count=20 status=none
sum=$(md5sum /mnt/large)
umount /mnt
kill_server
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
mount "$device" /mnt
expect_equal "the file" "$sum" "$(md5sum /mnt/large)"
umount /mnt
qed-ublk del "$device"
expect_no_devices
expect_sound ./*.qed
device=$(qed-ublk add wednesday.qed)
mount "$device" /mnt
expect_equal "what wednesday has" "lost+found monday tuesday wednesday" "$(echo /mnt/* | sed 's|/mnt/||g')"
umount /mnt
qed-ublk del "$device"
rm ./*.qed

step "a partition table is put back; in use the disk is, when that is wanted; and to a base that is raw"
truncate -s 64M base.raw
qed-ublk create --backing base.raw --backing-format raw disk.qed
device=$(qed-ublk add disk.qed)
printf ',16M\n,16M\n' | sfdisk -q "$device"
expect_status 0 test -b "${device}p2"
qed-ublk snapshot "$device" two.qed >/dev/null
printf ',32M\n' | sfdisk -q "$device"
if [[ -b ${device}p2 ]]; then fail "the second partition is still there"; fi
wait_until 10 qed-ublk rollback "$device" two.qed
expect_status 0 test -b "${device}p2"
exec 9<"${device}p2"
expect_refusal 3 "is in use" qed-ublk rollback "$device" base.raw
expect_output 'base.raw: the disk is as it was then' qed-ublk rollback --force "$device" base.raw
exec 9<&-
expect_equal "what is on it" 0 "$(dd if="$device" bs=1M status=none | tr -d '\0' | wc -c)"
expect_equal "the chain" "disk.qed base.raw" "$(chain)"
qed-ublk del "$device"
expect_sound disk.qed two.qed
rm ./*.qed base.raw

step "no room for another image: the disk stays as it is"
qed-ublk create disk.qed 64M
device=$(qed-ublk add disk.qed)
mark first
qed-ublk snapshot "$device" first.qed >/dev/null
mark second
# Until then it has space ahead, which it gives back.
wait_until 20 is_marked_clean disk.qed
leave_no_room
expect_refusal 1 'No space left' qed-ublk rollback "$device" first.qed
expect_equal "the disk" second "$(marked)"
rm filling
expect_equal "the files" $'disk.qed\nfirst.qed' "$(find . -name '*.qed*' -printf '%P\n' | sort)"

step "something has the name that it needs: a sentence, and the disk stays"
touch disk.qed.rollback
expect_refusal 3 'disk.qed.rollback: exists already, from a rollback' qed-ublk rollback "$device" first.qed
expect_equal "the disk" second "$(marked)"
rm disk.qed.rollback

step "what a merge has begun to copy is not shown"
mark third
dd if=/dev/urandom of="$device" bs=1M seek=1 count=40 oflag=direct status=none
qed-ublk snapshot "$device" second.qed >/dev/null
qed-ublk commit "$device" >commit.log 2>&1 &
merge=$!
until qed-ublk commit --pause "$device" 2>/dev/null; do kill -0 "$merge" 2>/dev/null || break; done
kill -0 "$merge" || { cat commit.log >&2; fail "the merge has ended too early"; }
expect_refusal 3 'are being merged' qed-ublk rollback "$device" first.qed
kill_server
wait "$merge" 2>/dev/null || true
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
expect_refusal 1 'first.qed: a merge into it was begun and not finished' qed-ublk rollback "$device" first.qed
expect_refusal 1 'first.qed: a merge into it was begun and not finished' qed-ublk rollback "$device" second.qed
expect_equal "the disk" third "$(marked iflag=direct)"
expect_status 0 qed-ublk commit "$device"
expect_equal "the chain" "disk.qed first.qed" "$(chain)"
mark fourth
expect_status 0 qed-ublk rollback "$device" first.qed
expect_equal "the disk" third "$(marked)"

step "servers are killed at random moments of it: the disk is as it was, or as it was then, and all of it"
RANDOM=${SEED:-1}
back=0
for ((number = 1; number <= ${COUNT:-12}; number++)); do
    mark "snapshot $number"
    qed-ublk snapshot "$device" "$number.qed" >/dev/null
    mark "newest $number"
    mark "later $number" seek=100000
    kill_server_during "0.$((RANDOM % 10))" qed-ublk rollback "$device" "$number.qed"
    expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
    direct=$(marked iflag=direct)
    case $direct in
    "snapshot $number")
        back=$((back + 1))
        if [[ $(marked skip=100000 iflag=direct) == "later $number" ]]; then fail "a part of what was written later is there"; fi
        ;;
    "newest $number")
        if [[ $has_ended ]]; then fail "it has ended well, and the disk is as it was before"; fi
        expect_equal "what was written last" "later $number" "$(marked skip=100000 iflag=direct)"
        ;;
    *) fail "the disk begins with: $direct" ;;
    esac
    wait_until 10 sh -c "[ \"\$(dd if=$device count=1 status=none | tr -d '\\0')\" = '$direct' ]"
    expect_equal "what is left of it" "" "$(find . -name '*.rollback')"
    if ((number % 5 == 0)); then expect_status 0 qed-ublk commit "$device"; fi
done
printf '          %d of %d were put back\n' "$back" "$((number - 1))"
expect_status 0 qed-ublk commit "$device"
qed-ublk del "$device"
expect_no_devices
expect_sound disk.qed
expect_equal "the files" $'disk.qed\nfirst.qed' "$(find . -name '*.qed*' -printf '%P\n' | sort)"
