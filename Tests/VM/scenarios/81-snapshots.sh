# Snapshots of a device that works: under a mounted file system, under fio, with a server that is killed, and where none can be
# taken. Every snapshot holds what the disk held at its moment, and QEMU opens every one, and the chain.
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/fio-verify.bash
source lib.sh
source devices.bash
source fio-verify.bash
cd /data
modprobe loop
truncate -s 700M disk
expect_status 0 mkfs.ext4 -q disk
mkdir images
mount disk images
cd images

# mark NUMBER: the last 4 KiB of the disk's first 256 MiB get it, past the page cache, and nothing else.
mark() {
    printf '%04096d' "$1" | dd of="$device" bs=4k seek=$((256 * 256 - 1)) count=1 oflag=direct conv=notrunc status=none
}

# expect_mark NUMBER IMAGE
expect_mark() {
    qed-ublk convert -O raw "$2" /tmp/disk.raw
    expect_equal "the mark in $2" "$(printf '%04096d' "$1")" "$(dd if=/tmp/disk.raw bs=4k skip=65535 count=1 status=none)"
    rm /tmp/disk.raw
}

step "a snapshot of a mounted file system: what came before is in it, what comes later is not"
qed-ublk create disk.qed 256M
inode=$(stat -c %i disk.qed)
device=$(qed-ublk add disk.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
cp -a /usr/lib/modules /mnt/before
sync -f /mnt
expect_equal "what snapshot prints" "$PWD/monday.qed" "$(qed-ublk snapshot "$device" monday.qed)"
expect_equal "the file that is the snapshot" "$inode" "$(stat -c %i monday.qed)"
expect_equal "what the image lies over" monday.qed "$(qed-ublk info -U --json disk.qed | jq -r '."backing-filename"')"
expect_sound monday.qed
cp -a /usr/lib/modules /mnt/after
rm -r /mnt/before
sync -f /mnt
expect_equal "the devices" '["live"]' "$(qed-ublk list --json | jq -c 'map(.state)')"
expect_output '"microseconds": [0-9]+' qed-ublk snapshot --json disk.qed tuesday.qed
expect_refusal 64 "no file system on $device is mounted there; one is at /mnt" \
    qed-ublk snapshot --fsfreeze /data "$device" wednesday.qed
expect_refusal 64 'no file system on' qed-ublk fork --fsfreeze "$PWD" "$device" wednesday.qed clone.qed
fsfreeze -f /mnt
expect_refusal 3 '/mnt: is frozen already' qed-ublk snapshot --fsfreeze /mnt "$device" wednesday.qed
expect_output thursday.qed qed-ublk snapshot "$device" thursday.qed
fsfreeze -u /mnt
touch /mnt/thawed
expect_refusal 3 'exists already' qed-ublk snapshot --fsfreeze /mnt "$device" thursday.qed
expect_output wednesday.qed qed-ublk snapshot --fsfreeze /mnt "$device" wednesday.qed
rm /mnt/thawed
mkdir -p /media
frozen=$(qed-ublk add -r wednesday.qed)
expect_status 0 mount -o ro,noload "$frozen" /media
expect_status 0 diff -r /usr/lib/modules /media/after
umount /media
expect_status 0 e2fsck -fn "$frozen"
qed-ublk del "$frozen"
qed-ublk create clone.qed --backing monday.qed --backing-format qed
clone=$(qed-ublk add clone.qed)
mkdir -p /clone
mount "$clone" /clone
expect_status 0 diff -r /usr/lib/modules /clone/before
if [[ -e /clone/after ]]; then fail "the snapshot has what came later"; fi
umount /clone
qed-ublk del "$clone"
expect_status 0 diff -r /usr/lib/modules /mnt/after
umount /mnt
qed-ublk del "$device"
expect_no_devices
expect_sound disk.qed monday.qed tuesday.qed wednesday.qed thursday.qed
expect_equal "logs that are left" 0 "$(find /run/qed-ublk -name 'image-*' | wc -l)"
expect_equal "the chain, says QEMU" 5 "$(qemu-img info --backing-chain --output json disk.qed | jq length)"
device=$(qed-ublk add disk.qed)
mount "$device" /mnt
expect_status 0 diff -r /usr/lib/modules /mnt/after
umount /mnt
qed-ublk del "$device"
rm ./*.qed

step "a fork: a second disk that begins with what the first one holds, and each goes its own way; and the list of snapshots"
qed-ublk create disk.qed 64M
device=$(qed-ublk add disk.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
echo both >/mnt/both
sync -f /mnt
touch taken.qed
expect_refusal 3 'taken.qed: exists already' qed-ublk fork "$device" base.qed taken.qed
expect_refusal 4 'no such file' qed-ublk fork "$device" base.qed nowhere/clone.qed
expect_refusal 3 'taken.qed: exists already' qed-ublk fork "$device" taken.qed clone.qed
expect_refusal 3 'base.qed: exists already' qed-ublk fork "$device" base.qed base.qed
expect_refusal 4 'its directory cannot be written to' qed-ublk fork "$device" base.qed "$PWD/nowhere/clone.qed"
expect_equal "the files" $'disk.qed\ntaken.qed' "$(find . -name '*.qed' -printf '%P\n' | sort)"
rm taken.qed
clone=$(qed-ublk fork --fsfreeze /mnt "$device" base.qed clone.qed)
expect_equal "what fork prints" "$PWD/clone.qed" "$clone"
expect_equal "what the clone lies over" base.qed "$(qed-ublk info --json clone.qed | jq -r '."backing-filename"')"
second=$(qed-ublk add "$clone")
mount "$second" /clone
expect_equal "what both have" both "$(cat /clone/both)"
echo first >/mnt/own
echo second >/clone/own
sync -f /mnt /clone
mkdir elsewhere
expect_equal "the files of a fork" "[\"$PWD/third.qed\",\"$PWD/elsewhere/fourth.qed\",true]" \
    "$(qed-ublk fork --json "$second" third.qed elsewhere/fourth.qed | jq -c '[.snapshot, .clone, .microseconds > 0]')"
expect_equal "what that clone lies over" "$PWD/third.qed" \
    "$(qed-ublk info --json elsewhere/fourth.qed | jq -r '."backing-filename"')"
umount /mnt /clone
expect_equal "the snapshots" '["clone.qed","third.qed","base.qed"]' \
    "$(qed-ublk snapshots --json "$second" | jq -c 'map(.filename | split("/") | last)')"
expect_equal "the disk's size, and what a snapshot has" '[67108864,true]' \
    "$(qed-ublk snapshots --json clone.qed | jq -c '.[2] | [."virtual-size", ."actual-size" > 1000000]')"
expect_output 'HOLDS .*WRITTEN' qed-ublk snapshots "$device"
expect_output "64 MiB .* $(date -u +%Y-%m-%dT).* $PWD/base.qed" qed-ublk snapshots "$device"
expect_refusal 4 'none.qed: qed-ublk serves no such device' qed-ublk del "$device" none.qed "$second"
expect_no_devices
expect_refusal 4 'no such device' qed-ublk snapshots disk.qed
expect_sound disk.qed clone.qed base.qed third.qed elsewhere/fourth.qed
device=$(qed-ublk add elsewhere/fourth.qed)
mount "$device" /mnt
expect_equal "what the second one's fork has" $'both\nsecond' "$(cat /mnt/both /mnt/own)"
umount /mnt
qed-ublk del "$device"
rm -r elsewhere ./*.qed

step "a backup of a device that works, as docs/backup.md has it: the whole disk once, then what has changed"
qed-ublk create disk.qed 64M
device=$(qed-ublk add disk.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
mkdir /mnt/first
seq 100000 | tee /mnt/first/kept >/mnt/first/removed
mkdir backup
qed-ublk snapshot --fsfreeze /mnt "$device" monday.qed >/dev/null
expect_status 0 qed-ublk convert -q -O qed monday.qed backup/monday.qed
rm /mnt/first/removed
echo later >/mnt/second
qed-ublk snapshot --fsfreeze /mnt "$device" tuesday.qed >/dev/null
expect_status 0 cp --sparse=always tuesday.qed backup/tuesday.qed
echo 'after it' >/mnt/third
expect_status 0 qed-ublk compare -q tuesday.qed backup/tuesday.qed
expect_sound backup/tuesday.qed
qed-ublk map --json --since monday.qed tuesday.qed >changes.json
qed-ublk convert -q -O raw monday.qed /tmp/old.raw
qed-ublk convert -q -O raw tuesday.qed /tmp/new.raw
jq -r '.[] | "\(.start) \(.length)"' changes.json | while read -r start length; do
    dd if=/tmp/new.raw of=/tmp/old.raw bs=64k iflag=skip_bytes,count_bytes oflag=seek_bytes skip="$start" seek="$start" \
        count="$length" conv=notrunc status=none
done
expect_status 0 cmp /tmp/old.raw /tmp/new.raw
rm /tmp/old.raw /tmp/new.raw
umount /mnt
qed-ublk del "$device"
expect_status 0 qed-ublk convert -q -O qed backup/tuesday.qed restored.qed
device=$(qed-ublk add restored.qed)
mount "$device" /mnt
expect_equal "the restored files" later "$(cat /mnt/second)"
if [[ -e /mnt/third || -e /mnt/first/removed ]]; then fail "the restored disk is another"; fi
expect_status 0 cmp /mnt/first/kept <(seq 100000)
umount /mnt
qed-ublk del "$device"
rm -r backup ./*.qed

step "an increment has what has changed, and little else"
qed-ublk create disk.qed 256M
device=$(qed-ublk add disk.qed)
dd if=/dev/urandom of="$device" bs=1M count=64 oflag=direct status=none
qed-ublk snapshot "$device" full.qed >/dev/null
head -c 64k /dev/urandom >/tmp/piece
for ((cluster = 0; cluster < 4000; cluster += 20)); do
    dd if=/tmp/piece of="$device" bs=64k seek="$cluster" oflag=direct conv=notrunc status=none
done
qed-ublk snapshot "$device" increment.qed >/dev/null
cp --sparse=always increment.qed copy.qed
sync copy.qed
bytes=$(du -B1 copy.qed | cut -f1)
printf '          %s bytes for 200 clusters of 65536\n' "$bytes"
if ((bytes > 200 * 65536 * 105 / 100)); then fail "an increment of $bytes bytes for $((200 * 65536)) that have changed"; fi
expect_equal "the ranges" 200 \
    "$(qed-ublk map --json --since full.qed increment.qed | jq 'map(select(.data and .length == 65536)) | length')"
qed-ublk del "$device"
rm ./*.qed

step "QEMU's way round: the image stays where it is, and the device goes on in another file, whatever is killed"
mkdir elsewhere
qed-ublk create disk.qed 64M
device=$(qed-ublk add disk.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
echo before >/mnt/before
sync -f /mnt
touch taken.qed
expect_refusal 3 'taken.qed: exists already' qed-ublk snapshot "$device" --overlay taken.qed
expect_refusal 64 'give one name' qed-ublk snapshot "$device" name.qed --overlay next.qed
expect_refusal 64 'give one name' qed-ublk snapshot "$device"
rm taken.qed
expect_equal "what it prints" "$PWD/disk.qed" "$(qed-ublk snapshot "$device" --overlay next.qed)"
expect_equal "the image that is served" "$PWD/next.qed" "$(qed-ublk status --json "$device" | jq -r .image)"
expect_equal "the image that list names" "$PWD/next.qed" "$(qed-ublk list --json | jq -r '.[0].image')"
expect_equal "what it lies over" disk.qed "$(qed-ublk info --json next.qed | jq -r '."backing-filename"')"
expect_sound disk.qed
echo after >/mnt/after
expect_equal "the files" "[\"$PWD/next.qed\",\"$PWD/elsewhere/third.qed\"]" \
    "$(qed-ublk snapshot --json --fsfreeze /mnt "$device" --overlay elsewhere/third.qed | jq -c '[.snapshot, .image]')"
expect_equal "what that lies over" "$PWD/next.qed" "$(qed-ublk info --json elsewhere/third.qed | jq -r '."backing-filename"')"
RANDOM=${SEED:-1}
for number in 1 2 3; do
    echo "$number" >/mnt/newest
    sync -f /mnt
    kill_server_during "0.$((RANDOM % 4))$((RANDOM % 10))" qed-ublk snapshot "$device" --overlay "next-$number.qed"
    expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
    image=$(qed-ublk list --json | jq -r '.[0].image')
    if [[ -e next-$number.qed ]]; then
        expect_equal "the image" "$PWD/next-$number.qed" "$image"
    elif [[ $has_ended || $image == "$PWD/next-$number.qed" ]]; then
        fail "there is no next-$number.qed, and the image is $image"
    fi
    echo 3 >/proc/sys/vm/drop_caches
    expect_equal "the newest" "$number" "$(cat /mnt/newest)"
done
umount /mnt
qed-ublk del "$image"
expect_no_devices
expect_sound disk.qed "$image"
device=$(qed-ublk add "$image")
mount "$device" /mnt
expect_equal "what is on it" $'before\nafter\n3' "$(cat /mnt/before /mnt/after /mnt/newest)"
umount /mnt
qed-ublk del "$device"
rm -r elsewhere ./*.qed

step "no snapshot where none can be taken, and nothing is changed"
qed-ublk create disk.qed 64M
device=$(qed-ublk add disk.qed)
if [[ $(uname -r) == 6.12.* ]]; then expect_refusal 1 'needs Linux 6.16 or later' qed-ublk resize "$device" 128M; fi
expect_equal "the size" $((64 << 20)) "$(blockdev --getsize64 "$device")"
touch taken.qed
expect_refusal 3 'taken.qed: exists already' qed-ublk snapshot "$device" taken.qed
expect_refusal 1 'is on another file system' qed-ublk snapshot "$device" /tmp/elsewhere.qed
expect_refusal 4 'no such device' qed-ublk snapshot 77 name.qed
expect_refusal 4 'no such file' qed-ublk snapshot "$device" nowhere/name.qed
dd if=/dev/zero of=filling bs=1M status=none 2>/dev/null || true
dd if=/dev/zero of=filling bs=4k oflag=append conv=notrunc status=none 2>/dev/null || true
expect_refusal 1 'No space left' qed-ublk snapshot "$device" full.qed
rm filling
expect_equal "the files" $'disk.qed\ntaken.qed' "$(find . -name '*.qed' -printf '%P\n' | sort)"
if [[ -e /tmp/elsewhere.qed ]]; then fail "something is left in /tmp"; fi
expect_equal "what is left of it in the record" null "$(jq .next_snapshot /run/qed-ublk/ublk0.json)"
qed-ublk del "$device"
device=$(qed-ublk add --read-only disk.qed)
expect_refusal 1 'is only read' qed-ublk snapshot "$device" name.qed
qed-ublk del "$device"
device=$(qed-ublk add --no-backing disk.qed)
expect_refusal 1 'was added with --no-backing' qed-ublk snapshot "$device" name.qed
qed-ublk del "$device"
mkdir bases
device=$(qed-ublk add --backing-dir bases disk.qed)
expect_refusal 1 'lies outside the directories' qed-ublk snapshot "$device" name.qed
if [[ -e name.qed ]]; then fail "an overlay is left"; fi
expect_output bases/name.qed qed-ublk snapshot "$device" bases/name.qed
expect_equal "what the image lies over" "$PWD/bases/name.qed" "$(qed-ublk info -U --json disk.qed | jq -r '."backing-filename"')"
qed-ublk del "$device"
rm bases/name.qed
rm ./*.qed

step "snapshots under fio, which finds every block again"
qed-ublk create disk.qed 256M
device=$(qed-ublk add -q 2 disk.qed)
run_fio "$device" 512 &
fio=$!
number=0 pauses=()
while kill -0 "$fio" 2>/dev/null && ((number < ${COUNT:-8})); do
    number=$((number + 1))
    mark "$number"
    pauses+=("$(qed-ublk snapshot --json "$device" "$number.qed" | jq .microseconds)")
    sleep 0.5
done
printf '          requests waited for %s microseconds\n' "${pauses[*]}"
wait "$fio" || { cat fio.log >&2; fail "fio"; }
expect_status 0 run_fio "$device" 512 --verify_only=1
if ((number < 2)); then fail "only $number snapshots beside fio"; fi
for ((which = 1; which <= number; which++)); do expect_mark "$which" "$which.qed"; done
qed-ublk del "$device"
for ((which = 1; which <= number; which++)); do expect_sound "$which.qed"; done
expect_sound disk.qed
rm ./*.qed

step "through a symbolic link, and where a name in the image would lead elsewhere"
qed-ublk create base.qed 64M
qed-ublk create disk.qed --backing base.qed --backing-format qed
mkdir links snapshots
ln -s ../disk.qed links/disk.qed
device=$(qed-ublk add disk.qed)
expect_refusal 1 'names its backing file base.qed from its own directory' qed-ublk snapshot "$device" snapshots/monday.qed
expect_output monday.qed qed-ublk snapshot "$device" monday.qed
expect_refusal 1 'names its backing file monday.qed' qed-ublk snapshot "$device" snapshots/tuesday.qed
qed-ublk del "$device"
qed-ublk create single.qed 64M
ln -s ../single.qed links/single.qed
device=$(qed-ublk add links/single.qed)
expect_output single-1.qed qed-ublk snapshot "$device" single-1.qed
if [[ ! -L links/single.qed ]]; then fail "the link is gone"; fi
kill_server
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
qed-ublk del "$device"
for image in disk.qed single.qed links/single.qed; do
    device=$(qed-ublk add "$image")
    qed-ublk del "$device"
done
rm -r links snapshots ./*.qed

step "a server that is killed at some moment of a snapshot: it is there or not, and the disk has everything"
# Much is dirty, so that there is something to be replayed. Until one snapshot was taken, one not, and one was not sealed yet.
qed-ublk create disk.qed 1G
device=$(qed-ublk add disk.qed)
RANDOM=${SEED:-1}
taken=0 unsealed=0
seq 100000 699999 >piece
truncate -s 4M piece
# One that is let live says within which time the others are killed.
dd if=piece of="$device" bs=1M oflag=direct conv=notrunc status=none
began=${EPOCHREALTIME/./}
qed-ublk snapshot "$device" whole.qed >/dev/null
longest=$(((${EPOCHREALTIME/./} - began) * 3 / 2000))
for ((number = 1; number <= ${KILLS:-8} || (number <= 60 && (taken == 0 || taken == number - 1 || unsealed == 0)); number++)); do
    mark "$number"
    dd if=piece of="$device" bs=1M seek=$((number * 4)) oflag=direct conv=notrunc status=none
    moment=$((RANDOM % longest))
    kill_server_during "$((moment / 1000)).$(printf %03d $((moment % 1000)))" qed-ublk snapshot "$device" "$number.qed"
    if [[ $(jq -r .unsealed_snapshot /run/qed-ublk/ublk0.json) != null ]]; then unsealed=$((unsealed + 1)); fi
    expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
    expect_equal "the mark on the disk" "$number" "$((10#$(dd if="$device" bs=4k skip=65535 count=1 iflag=direct status=none)))"
    expect_status 0 cmp piece <(dd if="$device" bs=1M skip=$((number * 4)) count=4 iflag=direct status=none)
    if [[ -e $number.qed ]]; then
        taken=$((taken + 1))
        expect_mark "$number" "$number.qed"
        expect_sound "$number.qed"
    fi
    mark 9999
done
printf '          %d of %d were taken, %d were not sealed yet; kills within %d ms\n' \
    "$taken" "$((number - 1))" "$unsealed" "$longest"
if ((taken == 0 || taken == number - 1 || unsealed == 0)); then fail "the moments of a snapshot were not met"; fi
qed-ublk del "$device"
expect_no_devices
expect_sound disk.qed
expect_equal "logs that are left" 0 "$(find /run/qed-ublk -name 'image-*' | wc -l)"
