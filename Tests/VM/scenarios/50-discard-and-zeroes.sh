# Zeroed ranges read as zeros, over a backing file too, and so do discarded ones that the image had itself; nothing around
# them changes; their space goes back to the file system below; a file system that trims loses nothing. What asks for
# durability, by flushes or by FUA, gets it from the disk below.
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
size=$((24 << 20))

# KiB that the file takes. A device that is served has some more in reserve.
space() {
    sync -f "$1"
    du -k "$1" | cut -f 1
}

# The device reads like the raw file.
device_is() {
    blockdev --flushbufs "$device"
    cmp "$device" "$1" || fail "the device reads something else than $1"
}

step "the disk takes discards and write-zeroes requests of any length"
qed-ublk create image.qed "$size"
device=$(qed-ublk add image.qed)
queue=/sys/block/ublkb0/queue
expect_equal "granularity" 65536 "$(<$queue/discard_granularity)"
for limit in discard_max_bytes write_zeroes_max_bytes; do
    if (($(<"$queue/$limit") < 1 << 30)); then fail "$limit is $(<"$queue/$limit")"; fi
done
qed-ublk del "$device"

xfs_io -f -c "truncate $size" -c 'pwrite -q -b 1m -S 170 0 16m' base.raw
before=$(fingerprint base.raw)
for kind in plain overlay; do
    step "$kind: ranges that start and end anywhere are zeroed"
    rm -f image.qed golden
    if [[ $kind == overlay ]]; then
        qed-ublk create image.qed --backing base.raw --backing-format raw
        cp --sparse=always base.raw golden
    else
        qed-ublk create image.qed "$size"
        truncate -s "$size" golden
    fi
    device=$(qed-ublk add image.qed)
    for file in "$device" golden; do
        xfs_io -d -c 'pwrite -q -b 1m -S 85 2m 10m' -c 'pwrite -q -S 51 21m 1m' "$file"
    done
    # Whole clusters and parts, allocated and not, at the end of the base, and at that of the disk.
    for range in 0:1m 3145728:65536 3211776:512 3300864:132096 4194816:1048064 6m:3m 15m:2m 23m:1m; do
        expect_status 0 blkdiscard -z -o "${range%:*}" -l "${range#*:}" "$device"
        fallocate -p -o "${range%:*}" -l "${range#*:}" golden
    done
    device_is golden

    step "$kind: and so are those of fallocate, giving their space back or keeping it"
    for range in 2621440:1000448 7342080:4096 22m:69632; do
        expect_status 0 fallocate -p -o "${range%:*}" -l "${range#*:}" "$device"
        fallocate -p -o "${range%:*}" -l "${range#*:}" golden
    done
    for range in 8m:200704 12582400:512 14m:1m; do
        expect_status 0 fallocate -z -n -o "${range%:*}" -l "${range#*:}" "$device"
        fallocate -p -o "${range%:*}" -l "${range#*:}" golden
    done
    device_is golden

    step "$kind: ranges are discarded"
    qed-ublk del "$device"
    full=$(space image.qed)
    device=$(qed-ublk add image.qed)
    for range in 9m:2500k 18m:1m; do
        expect_status 0 blkdiscard -o "${range%:*}" -l "${range#*:}" "$device"
        fallocate -p -o "${range%:*}" -l "${range#*:}" golden
    done
    device_is golden

    step "$kind: what is written over zeros stays, and the rest of its cluster is zero"
    for file in "$device" golden; do
        xfs_io -d -c 'pwrite -q -S 17 7m 4608' -c 'pwrite -q -S 18 9961984 512' -c 'pwrite -q -S 19 512k 64k' "$file"
    done
    device_is golden
    qed-ublk del "$device"
    expect_no_devices
    expect_sound image.qed
    qemu-img compare -q -f qed -F raw image.qed golden || fail "QEMU reads something else"
    rest=$(space image.qed)
    if ((rest > full - 2048)); then fail "the image takes $rest KiB; $full KiB before 2500 KiB were discarded"; fi

    step "$kind: the whole disk is discarded"
    device=$(qed-ublk add image.qed)
    device_is golden
    expect_status 0 blkdiscard "$device"
    # What only the base has may stay.
    if [[ $kind == plain ]]; then truncate -s 0 golden && truncate -s "$size" golden; else cp "$device" golden; fi
    device_is golden
    qed-ublk del "$device"
    expect_sound image.qed
    qemu-img compare -q -f qed -F raw image.qed golden || fail "QEMU reads something else"
    if (($(space image.qed) > 2000)); then fail "the empty image takes $(space image.qed) KiB"; fi
    expect_equal "the base" "$before" "$(fingerprint base.raw)"
done

step "zeros that are to keep their space keep it"
rm -f image.qed
qed-ublk create image.qed "$size"
device=$(qed-ublk add image.qed)
xfs_io -d -c 'pwrite -q -b 1m -S 85 0 8m' "$device"
full=$(space image.qed)
# Zeroing without unmapping is what the kernel sends for fallocate's zero range.
xfs_io -d -c 'fzero -k 0 8m' "$device"
expect_equal "bytes of the device that are not zero" 0 "$(head -c 8M "$device" | tr -d '\0' | wc -c)"
if (($(space image.qed) < full - 512)); then fail "the image takes $(space image.qed) KiB instead of $full KiB"; fi
qed-ublk del "$device"
expect_sound image.qed

step "a file system that trims keeps its files and gives back the space of those that were removed"
qed-ublk create fs.qed 160M
device=$(qed-ublk add fs.qed)
dd if=/dev/urandom of="$device" bs=1M count=60 oflag=direct status=none
full=$(space fs.qed)
expect_status 0 mkfs.ext4 -q -E discard "$device"
rest=$(space fs.qed)
if ((rest > full - 40 * 1024)); then fail "the image takes $rest KiB; $full KiB before mkfs.ext4 discarded 60 MiB"; fi
mount "$device" /mnt
cp -a /usr/lib/modules /mnt/kept
dd if=/dev/urandom of=/mnt/removed bs=1M count=30 status=none
sync -f /mnt
full=$(space fs.qed)
rm /mnt/removed
# What a transaction frees can be trimmed when it is on disk.
sync -f /mnt
expect_output '^/mnt: [0-9.]+ MiB' fstrim -v /mnt
sync -f /mnt
rest=$(space fs.qed)
if ((rest > full - 25 * 1024)); then fail "the image takes $rest KiB; $full KiB before 30 MiB were removed"; fi
umount /mnt
# Mounted with discard, every removal is one.
mount -o discard "$device" /mnt
cp -a /mnt/kept /mnt/again
sync -f /mnt
rm -r /mnt/again
umount /mnt
expect_status 0 e2fsck -fn "$device"
qed-ublk del "$device"
expect_no_devices
expect_sound fs.qed
device=$(qed-ublk add fs.qed)
mount "$device" /mnt
expect_status 0 diff -r /usr/lib/modules /mnt/kept
umount /mnt
qed-ublk del "$device"

# flushes DISK: how many flushes the kernel has sent to it.
flushes() { awk '{ print $16 }' "/sys/block/${1#/dev/}/stat"; }

# durability_of OPTION...: what 50 overwrites of a file on XFS, by dd with these options, send: flushes to the device into
# $flushed, and to the disk below into $synced.
durability_of() {
    flushed=$(flushes "$device") synced=$(flushes "$VM_DATA_DISK")
    expect_status 0 dd if=/dev/urandom of=/mnt/file bs=4k count=50 conv=notrunc status=none "$@"
    flushed=$(($(flushes "$device") - flushed)) synced=$(($(flushes "$VM_DATA_DISK") - synced))
    echo "$*: $flushed flushes of the device, $synced of the disk below"
}

step "mkfs.xfs discards what was there"
qed-ublk create xfs.qed 320M
device=$(qed-ublk add xfs.qed)
expect_equal "FUA" 1 "$(<"$queue/fua")"
expect_equal "write cache" 'write back' "$(<"$queue/write_cache")"
dd if=/dev/urandom of="$device" bs=1M count=40 oflag=direct status=none
expect_status 0 mkfs.xfs -q -f "$device"
expect_equal "bytes of its free space that are not zero" 0 \
    "$(dd if="$device" bs=1M skip=20 count=10 iflag=direct status=none | tr -d '\0' | wc -c)"

step "each write with FUA is made durable; without it they are not"
mount "$device" /mnt
dd if=/dev/zero of=/mnt/file bs=1M count=1 conv=fsync status=none
sync -f /mnt
# XFS overwrites with FUA, and without a flush of its own.
durability_of oflag=direct,dsync
((synced >= 50)) || fail "$synced syncs of the image for 50 writes with FUA"
((flushed <= 10)) || fail "these were flushes, not FUA"
durability_of oflag=direct
((synced <= 20)) || fail "$synced syncs of the image though nobody asked for any"

step "and so is what was written before a flush"
flushed=$(flushes "$device") synced=$(flushes "$VM_DATA_DISK")
for turn in {1..20}; do xfs_io -c "pwrite -q -S $turn 0 4k" -c fdatasync /mnt/file; done
flushed=$(($(flushes "$device") - flushed)) synced=$(($(flushes "$VM_DATA_DISK") - synced))
echo "fdatasync: $flushed flushes of the device, $synced of the disk below"
((flushed >= 20 && synced >= 20)) || fail "fewer than 20"
umount /mnt
qed-ublk del "$device"
expect_no_devices
expect_sound xfs.qed
