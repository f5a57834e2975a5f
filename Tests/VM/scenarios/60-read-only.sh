# A device that is added read-only changes nothing: not a byte of the image, whatever is tried, and whether the image may be
# written or not.
# kernels: 6.12
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
modprobe loop

step "an image with a file system that was not unmounted properly, and an overlay of it"
mkdir images
truncate -s 160M disk
expect_status 0 mkfs.ext4 -q disk
mount disk images
cd images
qed-ublk create image.qed 64M
device=$(qed-ublk add image.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
cp -a /usr/lib/modules /mnt/
umount /mnt
qed-ublk del "$device"
qed-ublk create overlay.qed --backing image.qed --backing-format qed
# As a crash leaves it: still marked as in use. Whoever only reads must leave the mark alone.
cp image.qed marked.qed
printf '\2' | dd of=marked.qed bs=1 seek=16 conv=notrunc status=none
expect_output '^need check: yes$' qed-ublk info marked.qed
before=$(fingerprint ./*.qed)

# The device with the given image reads, and refuses to be changed in every way.
try() {
    local image=$1 device
    device=$(qed-ublk add --read-only "$image")
    expect_equal "read-only, says the kernel" 1 "$(blockdev --getro "$device")"
    expect_equal "read-only, says list" true "$(qed-ublk list --json | jq '.[]."read-only"')"
    expect_output "^$device +live +64 MiB +2 +64 +1 " qed-ublk list
    # Making the device writable must not help.
    for _ in 1 2; do
        if dd if=/dev/zero of="$device" bs=4k count=1 oflag=direct 2>/dev/null; then fail "a write succeeded"; fi
        if blkdiscard -f "$device" 2>/dev/null; then fail "a discard succeeded"; fi
        if blkdiscard -f -z -l 4096 "$device" 2>/dev/null; then fail "zeroing succeeded"; fi
        blockdev --setrw "$device" 2>/dev/null || true
    done
    blockdev --setro "$device"
    mount -o ro "$device" /mnt
    expect_status 0 diff -r /usr/lib/modules /mnt/modules
    if (touch /mnt/new) 2>/dev/null; then fail "a file was made"; fi
    expect_status 0 blockdev --flushbufs "$device"
    umount /mnt
    qed-ublk del "$device"
    expect_no_devices
}

for image in image.qed overlay.qed marked.qed; do
    step "$image is not changed"
    try "$image"
    expect_equal "the images" "$before" "$(fingerprint ./*.qed)"
done

step "readers share an image, and keep writers out"
first=$(qed-ublk add -r image.qed)
second=$(qed-ublk add -r image.qed)
expect_status 0 cmp "$first" "$second"
expect_refusal 3 'image.qed: in use' qed-ublk add image.qed
if qemu-io -f qed -c 'write 0 4k' image.qed >/dev/null 2>&1; then fail "QEMU wrote to it"; fi
expect_status 0 qemu-io -r -f qed -c 'read 0 4k' image.qed
expect_refusal 64 'image.qed is served by /dev/ublkb0 and /dev/ublkb1; name the device' qed-ublk del image.qed
qed-ublk del "$second"
qed-ublk del image.qed
expect_no_devices
expect_equal "the images" "$before" "$(fingerprint ./*.qed)"

step "files without write permission, on a file system that is mounted read-only"
chmod 444 ./*.qed
try image.qed
# shellcheck disable=SC2103  # Nothing can be inside while it is remounted.
cd ..
mount -o remount,ro images
cd images
for image in image.qed overlay.qed; do try "$image"; done
expect_refusal 5 'image.qed: no permission to open it' qed-ublk add image.qed
expect_no_devices
expect_equal "the images" "$before" "$(fingerprint ./*.qed)"
