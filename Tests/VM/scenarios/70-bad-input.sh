# Whatever is wrong with what it is given: one sentence, the documented exit status, and nothing left behind or changed.
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
mkdir images
cd images

# Everything that may be left or changed: devices, and the images, when they were written, and who holds them.
state() {
    traces_of_devices
    find . -printf '%p %y %m %s %i %T@ %C@\n'
    echo "$(</proc/locks)"
}
# What it is like now is what it has to be after each refusal from here on.
from_here() {
    before=$(state)
}
# refused STATUS PATTERN COMMAND...: and nothing has changed by it.
refused() {
    local after
    expect_refusal "$@"
    after=$(state)
    if [[ $after != "$before" ]]; then
        diff <(cat <<<"$before") <(cat <<<"$after") >&2 || true
        fail "left behind or changed: ${*:3}"
    fi
}

step "what is no image"
qed-ublk create good.qed 4M
echo 'something else' >text
mkdir folder
mkfifo fifo
: >empty
head -c 32 good.qed >header-cut
head -c 70000 good.qed >table-cut
cp good.qed features
printf '\10' | dd of=features bs=1 seek=16 conv=notrunc status=none
qed-ublk create nothing.qed 0
qemu-img create -q -f qcow2 other.qcow2 4M
modprobe loop
loop=$(losetup -f --show good.qed)
from_here
add_refused() { refused "$1" "^qed-ublk: (/.*/)?$2" qed-ublk add "${@:3}"; }
add_refused 4 'missing: no such file' missing
add_refused 2 'text is not a QED image: the file does not start with the QED magic bytes' text
add_refused 2 'text is not a QED image' --read-only text
add_refused 2 'text is not a QED image' --foreground text
add_refused 2 'other.qcow2 is not a QED image' other.qcow2
add_refused 2 'folder: not a regular file' folder
add_refused 2 'folder: not a regular file' --read-only folder
add_refused 2 'fifo: not a regular file' fifo
add_refused 2 'fifo: not a regular file' --read-only fifo
add_refused 2 '/dev/null: not a regular file' /dev/null
add_refused 2 "$loop: not a regular file" "$loop"
add_refused 2 'empty is not a QED image' empty
add_refused 2 'header-cut is not a usable QED image: the file ends after 32 bytes' header-cut
add_refused 2 'table-cut is not a usable QED image: the L1 table of 262144 bytes .* does not fit' table-cut
add_refused 2 'table-cut is not a usable QED image' --read-only table-cut
if [[ $(uname -r) == 6.12.* ]]; then
    add_refused 1 "this kernel's ublk driver has no zero copy, which needs Linux 6.16 or later; leave out '--zero-copy on'" \
        --zero-copy on good.qed
    add_refused 1 "this kernel's ublk driver has no zero copy" --foreground --zero-copy on good.qed
fi
add_refused 2 'features needs features that this version does not support \(bits 0x8 at byte 16\)' features
add_refused 2 'nothing.qed: its size is 0, and a block device cannot be empty' nothing.qed
add_refused 2 'nothing.qed: its size is 0' --read-only nothing.qed
add_refused 64 '.*: a file name is needed' ''
add_refused 64 '.*: it names a directory' folder/
add_refused 64 '.*valid UTF-8' $'bad\xff'
add_refused 4 'a\\u\{1b\}b: no such file' $'a\eb'
losetup -d "$loop"

step "backing files that are missing, no images, or their own"
qed-ublk create base.qed 4M
qed-ublk create over.qed --backing base.qed --backing-format qed
mv base.qed away
from_here
refused 4 'base.qed: no such file \(it is the backing file of over.qed\)' qed-ublk add over.qed
cp text base.qed
from_here
refused 2 'base.qed: the backing file of over.qed is not a QED image' qed-ublk add over.qed
rm base.qed
mkfifo base.qed
from_here
refused 2 'base.qed: not a regular file' qed-ublk add over.qed
rm base.qed
cp over.qed base.qed
from_here
refused 2 'its backing files form a loop' qed-ublk add over.qed
ln -f over.qed base.qed
from_here
refused 2 'its backing files form a loop' qed-ublk add over.qed
rm base.qed
mv away base.qed

step "tables that cannot be right are not written through"
cp good.qed damaged
# The first entry of the L1 table, at the second cluster, points beyond the end of the file.
printf '\0\0\0\1' | dd of=damaged bs=1 seek=65536 conv=notrunc status=none
from_here
refused 2 'damaged: 1 table entries point where no cluster can be' qed-ublk add damaged

step "backing files that the user does not allow"
mkdir allowed
loop=$(losetup -f --show base.qed)
qed-ublk create --backing ../good.qed --backing-format qed allowed/overlay.qed
qed-ublk create --backing "$loop" --backing-format raw allowed/on-device.qed
from_here
refused 2 'needs its backing file ../good.qed, and --no-backing allows none' qed-ublk add --no-backing allowed/overlay.qed
refused 2 'lies outside the directories that --backing-dir allows' qed-ublk add --backing-dir allowed allowed/overlay.qed
refused 2 'lies outside the directories' qed-ublk add --foreground --backing-dir allowed allowed/overlay.qed
refused 2 "$loop: a block device, which an image may name only where" qed-ublk add allowed/on-device.qed
refused 64 'no-backing goes with neither' qed-ublk add --no-backing --backing-devices allowed/on-device.qed
device=$(qed-ublk add --backing-dir /tmp --backing-dir . allowed/overlay.qed)
expect_equal "the size" 4194304 "$(blockdev --getsize64 "$device")"
qed-ublk del "$device"
device=$(qed-ublk add --backing-devices allowed/on-device.qed)
qed-ublk del "$device"
losetup -d "$loop"
rm -r allowed

step "an image that is open elsewhere"
qemu_holds 4 -f qed good.qed
from_here
refused 3 '^qed-ublk: (/.*/)?good.qed: in use' qed-ublk add good.qed
refused 3 '^qed-ublk: (/.*/)?good.qed: in use' qed-ublk add -r good.qed
exec 7>&-
wait
device=$(qed-ublk add good.qed)
from_here
refused 3 '^qed-ublk: (/.*/)?good.qed: in use' qed-ublk add good.qed
refused 3 'good.qed: in use' qed-ublk add -r "$PWD/../images/good.qed"
if qemu-img info good.qed >/dev/null 2>&1; then fail "QEMU opened an image that is served"; fi
refused 3 'id is in use' qed-ublk add --id 0 base.qed
refused 3 'id is in use' qed-ublk add --foreground --id 0 base.qed

step "devices that are not there"
for name in /dev/ublkb7 ublkb7 7 /dev/null base.qed missing /dev/ublkc0; do
    refused 4 "^qed-ublk: $name: qed-ublk serves no such device; see 'qed-ublk list'" qed-ublk del "$name"
done
refused 64 'a file name is needed' qed-ublk del ''

step "a device that is mounted stays, and works"
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
echo before >/mnt/file
expect_refusal 3 '^qed-ublk: /dev/ublkb0 is in use, mounted at /mnt; unmount it first' qed-ublk del "$device"
echo after >>/mnt/file
sync -f /mnt
expect_equal "the file" "before after" "$(paste -sd ' ' /mnt/file)"
umount /mnt
modprobe dm-mod
export DM_DISABLE_UDEV=1
dmsetup create holder --table "0 $(blockdev --getsz "$device") linear $device 0"
expect_refusal 3 '^qed-ublk: /dev/ublkb0 is in use by dm-0; remove that first' qed-ublk del "$device"
dmsetup remove holder
qed-ublk del "$device"
expect_no_devices
expect_sound good.qed

step "numbers out of range"
from_here
for arguments in '-q 0' '-q 4097' '--queues=-1' '-d 0' '-d 4097' '-q x' '-d 1.5' '-n -1' '-n x' '-n 99999999999' '--unknown'; do
    # shellcheck disable=SC2086
    refused 64 '' qed-ublk add $arguments good.qed
done
refused 64 'the device id must be 0 to' qed-ublk add -n 4294967294 good.qed

step "not root"
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups --)
chmod a+rx /data /data/images
chmod 666 good.qed
from_here
refused 5 'run this as root' "${nobody[@]}" qed-ublk add good.qed
refused 5 'run this as root' "${nobody[@]}" qed-ublk add --foreground good.qed
chmod 600 text
from_here
refused 5 '' "${nobody[@]}" qed-ublk add text
device=$(qed-ublk add good.qed)
from_here
refused 5 'run this as root' "${nobody[@]}" qed-ublk del "$device"
qed-ublk del "$device"

step "a kernel without the driver: add has it loaded, where it is to be had"
rmmod ublk_drv
from_here
echo >/proc/sys/kernel/modprobe
refused 6 "this kernel has no ublk; run 'modprobe ublk_drv'" qed-ublk add good.qed
refused 6 "this kernel has no ublk; run 'modprobe ublk_drv'" qed-ublk add --foreground good.qed
expect_equal "list" '[]' "$(qed-ublk list --json)"
refused 4 '' qed-ublk del 0
echo /sbin/modprobe >/proc/sys/kernel/modprobe
device=$(qed-ublk add good.qed)
qed-ublk del "$device"
expect_no_devices
expect_sound good.qed
