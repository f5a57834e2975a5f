# An image gets what lies beneath it while it is served, and needs no base any more: under a mounted file system and fio, with
# servers that are killed, without room, and with a snapshot meanwhile. The disk reads the same all the time.
# kernels: 7
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/fio-verify.bash
source lib.sh
source devices.bash
source fio-verify.bash
cd /data
use_images_disk 900M

step "a mounted disk over a snapshot over a raw base: afterwards the image alone has everything"
truncate -s 200M base.raw
expect_status 0 mkfs.ext4 -q base.raw
mkdir /base
mount -o loop base.raw /base
dd if=/dev/urandom of=/base/large bs=1M count=60 status=none
seq 200000 >/base/removed
sum=$(md5sum </base/large)
umount /base
qed-ublk create --backing base.raw --backing-format raw disk.qed
device=$(qed-ublk add disk.qed)
mount "$device" /mnt
seq 100000 >/mnt/monday
sync -f /mnt
qed-ublk snapshot "$device" monday.qed >/dev/null
rm /mnt/removed
expect_refusal 64 'leave --no-backing' qed-ublk flatten --backing-dir / "$device"
expect_refusal 1 'nothing is copied' qed-ublk flatten --cancel "$device"
{ while [[ ! -e stop ]]; do dd if=/dev/urandom of=/mnt/load bs=64k count=100 conv=notrunc,fsync status=none; done; } &
load=$!
expect_output 'disk.qed: has what these have, and needs them no more: .*/monday.qed, .*/base.raw' qed-ublk flatten "$device"
touch stop
wait "$load"
expect_equal "the chain" "disk.qed" "$(chain)"
expect_equal "what the device lies over" 0 "$(qed-ublk status --json "$device" | jq '."backing-files"')"
expect_output 'has no backing file' qed-ublk flatten "$device"
expect_status 0 qed-ublk info monday.qed
rm base.raw monday.qed stop
echo 3 >/proc/sys/vm/drop_caches
expect_equal "the file of the base" "$sum" "$(md5sum </mnt/large)"
expect_status 0 cmp /mnt/monday <(seq 100000)
if [[ -e /mnt/removed ]]; then fail "what was removed is there again"; fi
loaded=$(md5sum </mnt/load)
umount /mnt
expect_status 0 e2fsck -fn "$device"
qed-ublk del "$device"
expect_no_devices
expect_sound disk.qed
device=$(qed-ublk add --no-backing disk.qed)
mount -o ro "$device" /mnt
expect_equal "the file of the base" "$sum" "$(md5sum </mnt/large)"
expect_equal "the file of the load" "$loaded" "$(md5sum </mnt/load)"
umount /mnt
qed-ublk del "$device"
rm disk.qed

step "no room: the disk reads as before, and later it goes on; a snapshot meanwhile ends it"
dd if=/dev/urandom of=base.raw bs=1M count=100 status=none
expect_status 0 qed-ublk create --backing base.raw --backing-format raw disk.qed
device=$(qed-ublk add disk.qed)
fallocate -l $(($(df --output=avail -B1 . | tail -n 1) - (30 << 20))) filling
expect_refusal 1 'No space left' qed-ublk flatten "$device"
expect_equal "the chain" "disk.qed base.raw" "$(chain)"
expect_status 0 cmp base.raw "$device"
rm filling
qed-ublk flatten "$device" >flatten.log 2>&1 &
flattening=$!
until qed-ublk flatten --pause "$device" 2>/dev/null; do kill -0 "$flattening" 2>/dev/null || break; done
if kill -0 "$flattening" 2>/dev/null; then
    expect_equal "it waits" true "$(qed-ublk status --json "$device" | jq .merge.paused)"
    expect_refusal 3 'are being merged' qed-ublk flatten "$device"
    qed-ublk snapshot "$device" meanwhile.qed >/dev/null
    expect_status 0 qed-ublk flatten --resume "$device"
    if wait "$flattening"; then fail "it went on beneath a snapshot"; fi
    expect_output 'a snapshot of .* was taken meanwhile' cat flatten.log
else
    wait "$flattening" || { cat flatten.log >&2; fail "flatten"; }
fi
expect_status 0 cmp base.raw "$device"
expect_status 0 qed-ublk flatten "$device"
expect_equal "the chain" "disk.qed" "$(chain)"
expect_status 0 cmp base.raw "$device"
qed-ublk del "$device"
expect_sound disk.qed
if [[ -e meanwhile.qed ]]; then expect_sound meanwhile.qed; fi
rm -f ./*.qed base.raw

step "under fio, with servers that are killed"
RANDOM=${SEED:-1}
truncate -s 256M base.raw
for start in 0 100 200; do dd if=/dev/urandom of=base.raw bs=1M count=12 seek="$start" conv=notrunc status=none; done
qed-ublk create --backing base.raw --backing-format raw disk.qed
device=$(qed-ublk add -q 2 disk.qed)
run_fio "$device" 512 &
fio=$!
ended=0
for ((number = 1; number <= ${COUNT:-4}; number++)); do
    kill_server_during "$((RANDOM % 3)).$((RANDOM % 10))" qed-ublk flatten "$device"
    if [[ $has_ended ]]; then ended=$((ended + 1)); fi
    expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
    expect_status 0 cmp --ignore-initial=$((200 << 20)) base.raw "$device"
done
printf '          %d of %d had ended before the kill\n' "$ended" "$((number - 1))"
expect_status 0 qed-ublk flatten "$device"
wait "$fio" || { cat fio.log >&2; fail "fio"; }
expect_equal "the chain" "disk.qed" "$(chain)"
expect_status 0 cmp --ignore-initial=$((200 << 20)) base.raw "$device"
rm base.raw
expect_status 0 run_fio "$device" 512 --verify_only=1
qed-ublk del "$device"
expect_no_devices
expect_undamaged disk.qed
