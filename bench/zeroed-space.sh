#!/usr/bin/env bash
# Compares first writes to the clusters of an image with overwriting them, on a disk that can zero space when it is told to,
# which Linux 6.17 can use when space is reserved, and on one that cannot; ext4, in a virtual machine that counts instructions.
# The disk is scsi_debug, which zeroes with the machine's processor, where a disk's own would: what that takes is measured
# before, and the last column is without it.
#
#   scripts/build && bench/zeroed-space.sh [--env CLUSTER_SIZE=4K] [OPTION OF Tests/VM/vm run]...
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
if [[ ${1:-} != guest ]]; then
    exec Tests/VM/vm run --kernel 7 --instruction-clock --allow-kernel-warnings --memory 4096 --file .build/qed-ublk \
        --file bench/device/disks.bash "$@" bench/zeroed-space.sh guest
fi
# shellcheck source=../Tests/VM/lib.sh
source lib.sh
# shellcheck source=device/disks.bash
source disks.bash
clusters=4096
write_allocation_log /tmp/log $clusters shuffled
# Prints the microseconds that writing 4 KiB to each cluster takes.
each_cluster() {
    fio --name=run --read_iolog=/tmp/log --replay_redirect="$device" --iodepth="$1" --ioengine=io_uring --direct=1 \
        --gtod_reduce=1 --output-format=json | jq '(.jobs[0].write | .total_ios / .iops * 1000000) | floor'
}
modprobe sd_mod
mkdir /mem
# What the disk was told to write, in sectors, zeroed ones among them.
written_sectors() { awk '{ print $7 }' /sys/block/sda/stat; }
printf '%-10s %18s %22s %22s %26s\n' \
    '' 'zeroed by the disk' 'overwriting, writes/s' 'allocating, to that' 'without the zeroing itself'
for can in 0 1; do
    modprobe scsi_debug dev_size_mb=1100 lbpu=1 lbpws="$can" lbpws10=0 lbprz=1 delay=0 ndelay=0
    wait_until 20 test -b /dev/sda
    # Discarding takes the same work of this disk.
    start=${EPOCHREALTIME/[.,]/}
    blkdiscard --length $((512 << 20)) /dev/sda
    discarding=$((${EPOCHREALTIME/[.,]/} - start))
    make_file_system /dev/sda /mem
    for depth in 1 32; do
        qed-ublk create --cluster-size "${CLUSTER_SIZE:-64K}" /mem/image.qed $((clusters << 16))
        device=$(qed-ublk add /mem/image.qed)
        before=$(written_sectors)
        allocating=$(each_cluster "$depth")
        # But for the data, and what the file system wrote of its own, which is little.
        zeroed_bytes=$((can * (($(written_sectors) - before) * 512 - clusters * 4096)))
        overwriting=$(each_cluster "$depth")
        qed-ublk del "$device"
        rm /mem/image.qed
        awk -v depth="depth $depth" -v zeroed=$((zeroed_bytes >> 20)) -v a="$allocating" -v o="$overwriting" -v count=$clusters \
            -v zeroing=$((zeroed_bytes * discarding / (512 << 20))) 'BEGIN {
                printf "%-10s %14d MiB %22d %22.2f %26.2f\n", depth, zeroed, count / o * 1e6, o / a, o / (a - zeroing)
            }'
    done
    umount /mem
    modprobe -r scsi_debug
done
