# What lies beneath a device, and how large it is, changes while it works: snapshots are merged, and the disk grows. What is on
# the disk never changes by that, whatever is killed or full; and what another image needs stays.
# kernels: 7
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/fio-verify.bash
source lib.sh
source devices.bash
source fio-verify.bash
cd /data
use_images_disk 900M

# snapshots NAME...: takes them, each with a file more on the disk, and what the one before has changed.
snapshots() {
    local name
    for name; do
        seq 20000 >"/mnt/$name"
        echo "$name" >/mnt/newest
        sync -f /mnt
        qed-ublk snapshot "$device" "$name.qed" >/dev/null
    done
}

step "snapshots of a mounted file system become one file, and the disk reads the same"
qed-ublk create disk.qed 256M
device=$(qed-ublk add disk.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
snapshots monday tuesday wednesday thursday
rm /mnt/tuesday
sync -f /mnt
expect_equal "the chain" "disk.qed thursday.qed wednesday.qed tuesday.qed monday.qed" "$(chain)"
expect_output 'monday.qed: has what these had, which are gone: .*/wednesday.qed, .*/tuesday.qed' \
    qed-ublk commit --keep 1 "$device"
expect_equal "the chain" "disk.qed thursday.qed monday.qed" "$(chain)"
expect_equal "the files" $'disk.qed\nmonday.qed\nthursday.qed' "$(find . -name '*.qed' -printf '%P\n' | sort)"
expect_sound thursday.qed monday.qed
expect_equal "what the device says it lies over" 2 "$(qed-ublk status --json "$device" | jq '."backing-files"')"
expect_equal "the newest" thursday "$(</mnt/newest)"
echo 3 >/proc/sys/vm/drop_caches
for name in monday wednesday thursday; do expect_status 0 cmp "/mnt/$name" <(seq 20000); done
snapshots friday
expect_equal "what is merged" "[\"$PWD/monday.qed\",2,\"$PWD/friday.qed\",\"$PWD/thursday.qed\"]" \
    "$(qed-ublk commit --json "$device" | jq -c '[.into, ."removed-count", .removed[]]')"
expect_equal "the chain" "disk.qed monday.qed" "$(chain)"
expect_output 'nothing above it to merge' qed-ublk commit "$device"
echo 3 >/proc/sys/vm/drop_caches
for name in monday wednesday thursday friday; do expect_status 0 cmp "/mnt/$name" <(seq 20000); done
if [[ -e /mnt/tuesday ]]; then fail "what was removed is there again"; fi
umount /mnt
expect_status 0 e2fsck -fn "$device"
qed-ublk del "$device"
expect_no_devices
expect_sound disk.qed monday.qed
device=$(qed-ublk add disk.qed)
mount "$device" /mnt
expect_status 0 cmp /mnt/friday <(seq 20000)

step "what another image needs is not merged, whether somebody has it open or not; nor what is not there"
snapshots one two three
qed-ublk create clone.qed --backing two.qed --backing-format qed
expect_refusal 3 'two.qed: .*clone.qed lies over it' qed-ublk commit "$device"
mkdir elsewhere
mv clone.qed elsewhere/
expect_status 0 qed-ublk rebase -u -b "$PWD/two.qed" -F qed elsewhere/clone.qed
clone=$(qed-ublk add elsewhere/clone.qed)
expect_refusal 3 'two.qed: in use by' qed-ublk commit "$device"
expect_refusal 3 'two.qed: in use by' qed-ublk commit --into one.qed "$device"
expect_equal "the chain" "disk.qed three.qed two.qed one.qed monday.qed" "$(chain)"
expect_refusal 3 'one.qed: in use by' qed-ublk commit --keep 2 "$device"
qed-ublk del "$clone"
# Nothing that the clone lies over changes but in what it lies over itself.
expect_status 0 qed-ublk commit --keep 2 "$device"
expect_equal "the chain" "disk.qed three.qed two.qed monday.qed" "$(chain)"
clone=$(qed-ublk add elsewhere/clone.qed)
mkdir /clone
mount -o ro,noload "$clone" /clone
expect_status 0 cmp /clone/one <(seq 20000)
umount /clone
qed-ublk del "$clone"
rm -r elsewhere
expect_refusal 1 'is not beneath' qed-ublk commit --into /data/disk "$device"
expect_refusal 1 'two.qed: is one of the 4 that are to stay' qed-ublk commit --keep 4 --into two.qed "$device"
# As a timer does, before there are so many.
expect_output 'nothing above it to merge' qed-ublk commit --keep 4 "$device"
expect_equal "the chain" "disk.qed three.qed two.qed monday.qed" "$(chain)"
expect_refusal 64 'about a device' qed-ublk commit --keep 1 disk.qed
expect_refusal 1 'no snapshots are being merged' qed-ublk commit --cancel "$device"
expect_status 0 qed-ublk commit --into two.qed "$device"
expect_equal "the chain" "disk.qed two.qed monday.qed" "$(chain)"

step "a merge waits, goes on, and ends when it is told to; snapshots are taken meanwhile"
dd if=/dev/urandom of=/mnt/large bs=1M count=60 status=none
snapshots four
qed-ublk commit "$device" >commit.log 2>&1 &
merge=$!
until qed-ublk commit --pause "$device" 2>/dev/null; do kill -0 "$merge" 2>/dev/null || break; done
if kill -0 "$merge" 2>/dev/null; then
    expect_equal "it waits" true "$(qed-ublk status --json "$device" | jq .merge.paused)"
    snapshots five
    expect_refusal 3 'are being merged' qed-ublk commit "$device"
    expect_status 0 qed-ublk commit --resume "$device"
fi
wait "$merge" || { cat commit.log >&2; fail "the merge"; }
expect_output 'monday.qed: has what these had' cat commit.log
expect_status 0 qed-ublk commit "$device"
expect_equal "the chain" "disk.qed monday.qed" "$(chain)"
echo 3 >/proc/sys/vm/drop_caches
for name in one two three four; do expect_status 0 cmp "/mnt/$name" <(seq 20000); done

step "no room to merge: the device works on, and later it succeeds"
dd if=/dev/urandom of=/mnt/large bs=1M count=60 conv=notrunc status=none
snapshots six
dd if=/dev/urandom of=/mnt/other bs=1M count=40 status=none
snapshots seven
# Nothing is to be written while there is no room, not even when a file was read: the file system would go on without writing.
mount -o remount,noatime /mnt
sync -f /mnt
leave_no_room
before=$(md5sum /mnt/large)
expect_refusal 1 'No space left' qed-ublk commit "$device"
expect_equal "the chain" "disk.qed seven.qed six.qed monday.qed" "$(chain)"
rm filling
expect_equal "the file" "$before" "$(echo 3 >/proc/sys/vm/drop_caches && md5sum /mnt/large)"
expect_status 0 qed-ublk commit "$device"
expect_equal "the file" "$before" "$(echo 3 >/proc/sys/vm/drop_caches && md5sum /mnt/large)"

step "a merge that is cut short by the death of its server goes on from where it was, with a snapshot that was taken since"
rm /mnt/other
dd if=/dev/urandom of=/mnt/large bs=1M count=170 conv=notrunc status=none
snapshots eight
before=$(md5sum /mnt/large)
qed-ublk commit "$device" >commit.log 2>&1 &
merge=$!
until grep -q '"copied"' /run/qed-ublk/ublk0.json; do kill -0 "$merge" || fail "it has ended, and nothing was noted"; done
kill_server
wait "$merge" && fail "the merge ended all the same: $(<commit.log)"
qed-ublk recover 0
copied=$(jq .unfinished_merge.copied /run/qed-ublk/ublk0.json)
((copied >= 64 << 20)) || fail "the next server does not know how far it was: $copied"
snapshots nine
expect_status 0 qed-ublk commit "$device"
expect_output "cut short; its first $copied bytes are there" cat /run/qed-ublk/ublk0.log
expect_equal "what is unfinished" null "$(jq .unfinished_merge /run/qed-ublk/ublk0.json)"
expect_equal "the chain" "disk.qed monday.qed" "$(chain)"
expect_equal "the file" "$before" "$(echo 3 >/proc/sys/vm/drop_caches && md5sum /mnt/large)"
umount /mnt
expect_status 0 e2fsck -fn "$device"
qed-ublk del "$device"
expect_sound disk.qed monday.qed
rm ./*.qed commit.log

step "a disk grows under a mounted file system"
qed-ublk create disk.qed 64M
device=$(qed-ublk add disk.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
seq 100000 >/mnt/file
expect_refusal 64 'would shrink' qed-ublk resize "$device" 32M
expect_refusal 64 'only grows' qed-ublk resize "$device" --shrink 32M
expect_refusal 64 'can have .* bytes at most' qed-ublk resize "$device" 500T
expect_output 'Disk resized' qed-ublk resize "$device" +64M
expect_equal "the size" $((128 << 20)) "$(blockdev --getsize64 "$device")"
expect_equal "what is behind the old end" 0 \
    "$(dd if="$device" bs=1M skip=64 iflag=direct status=none | tr -d '\0' | wc -c)"
resize2fs "$device" >/dev/null 2>&1
dd if=/dev/urandom of=/mnt/large bs=1M count=80 status=none
sum=$(md5sum /mnt/large)
snapshots small
expect_equal "the new size" "{\"device\":\"$device\",\"size\":$((256 << 20))}" \
    "$(qed-ublk resize --json "$device" 256M | jq -c .)"
resize2fs "$device" >/dev/null 2>&1
dd if=/dev/urandom of=/mnt/larger bs=1M count=100 status=none
kill_server
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
snapshots later
expect_status 0 qed-ublk commit "$device"
expect_equal "the file" "$sum" "$(echo 3 >/proc/sys/vm/drop_caches && md5sum /mnt/large)"
expect_status 0 cmp /mnt/file <(seq 100000)
umount /mnt
expect_status 0 e2fsck -fn "$device"
size=$(blockdev --getsize64 "$device")
qed-ublk del "$device"
expect_equal "the image's size" "$size" "$(qed-ublk info --json disk.qed | jq '."virtual-size"')"
expect_sound ./*.qed
rm ./*.qed

step "an overlay that is smaller than its base grows: zeros, and not what the base has there"
qed-ublk create base.qed 8M
expect_status 0 qed-ublk io base.qed 'write -P 0x55 0 8M'
expect_status 0 qemu-img create -q -f qed -b base.qed -F qed disk.qed 5000192
device=$(qed-ublk add disk.qed)
leave_no_room
expect_refusal 1 'No space left .*the disk has its old size' qed-ublk resize "$device" 16M
expect_equal "the size" 5000192 "$(blockdev --getsize64 "$device")"
rm filling
expect_status 0 dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct conv=fsync status=none
expect_status 0 qed-ublk resize "$device" 16M
expect_equal "what is behind the old end" 0 \
    "$(dd if="$device" bs=512 skip=$((5000192 / 512)) iflag=direct status=none | tr -d '\0' | wc -c)"
expect_equal "what was there" $((5000192 - 4096)) \
    "$(dd if="$device" bs=512 count=$((5000192 / 512)) status=none | tr -d '\0' | wc -c)"
qed-ublk del "$device"
expect_sound disk.qed base.qed
rm ./*.qed

step "merges and growth under fio, with servers that are killed: nothing is lost"
qed-ublk create disk.qed 256M
device=$(qed-ublk add -q 2 disk.qed)
RANDOM=${SEED:-1}
run_fio "$device" 512 &
fio=$!
merged=0
for ((number = 1; number <= ${COUNT:-6} || (number <= 40 && merged == 0); number++)); do
    seq "$number" 150000 | dd of="$device" bs=1M seek=200 iflag=fullblock oflag=direct conv=sync,notrunc status=none
    qed-ublk snapshot "$device" "$number.qed" >/dev/null
    if ((number < 3)); then continue; fi
    kill_server_during "0.$((RANDOM % 10))" qed-ublk commit "$device"
    expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
    expect_status 0 cmp -n 900000 <(seq "$number" 150000) <(dd if="$device" bs=1M skip=200 count=1 iflag=direct status=none)
    if [[ $has_ended ]]; then merged=$((merged + 1)); fi
    if ((number % 3 == 0)); then expect_status 0 qed-ublk commit "$device"; fi
done
printf '          %d of %d merges had ended before the kill\n' "$merged" "$((number - 3))"
wait "$fio" || { cat fio.log >&2; fail "fio"; }
expect_status 0 run_fio "$device" 512 --verify_only=1

step "a snapshot in any moment of a merge, on a device that is never idle"
server=$(server_of 0)
fio --name=load --filename="$device" --offset=192M --size=4M --rw=randwrite --bs=4k --iodepth=32 --ioengine=io_uring --direct=1 \
    --time_based --runtime=600 --output=load.log &
load=$!
for ((attempt = 1; attempt <= ${ATTEMPTS:-4}; attempt++)); do
    qed-ublk snapshot "$device" "before-$attempt.qed" >/dev/null
    qed-ublk commit "$device" >/dev/null &
    merge=$!
    sleep "0.0$((RANDOM % 10))"
    expect_status 0 qed-ublk snapshot "$device" "beside-$attempt.qed"
    wait "$merge"
    expect_equal "the server" "$server" "$(server_of 0)"
done
kill -INT "$load"
wait "$load" || true
expect_status 0 run_fio "$device" 512 --verify_only=1
expect_status 0 qed-ublk commit "$device"
expect_status 0 run_fio "$device" 512 --verify_only=1
qed-ublk del "$device"
expect_no_devices
expect_sound disk.qed
expect_undamaged 1.qed
expect_equal "the chain" "disk.qed 1.qed" "$(chain)"
expect_equal "the files" $'1.qed\ndisk.qed' "$(find . -name '*.qed' -printf '%P\n' | sort)"
