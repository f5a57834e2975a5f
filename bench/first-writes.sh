#!/usr/bin/env bash
# Compares, in a virtual machine whose clock counts instructions, ways to write 4 KiB to each fresh cluster of a plain file on
# ext4 or XFS, which is what an image without a backing file asks of it: the first write to a reserved block costs the file
# system more than one to a written block. Prints clusters in 10^9 instructions: their ratios count.
#
#   written         the file has been written before: what overwriting costs
#   reserved        by fallocate, as qed-ublk does it
#   holes           nothing is reserved
#   zeros ahead     reserved space is filled with zeros first, which counts
#   whole clusters  reserved, and zeros around the data: 64 KiB are written for 4
#
#   bench/first-writes.sh [KERNEL [ext4|xfs]]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
if [[ ${1:-} != guest ]]; then
    exec Tests/VM/vm run --kernel "${1:-7}" --instruction-clock --allow-kernel-warnings --memory 4096 \
        --file bench/device/disks.bash bench/first-writes.sh guest "${2:-ext4}"
fi
# shellcheck source=../Tests/VM/lib.sh
source lib.sh
# shellcheck source=device/disks.bash
source disks.bash
make_ram_disk "$2"
clusters=4096 file=/mem/file size_bytes=$((clusters << 16))
write_allocation_log /tmp/log $clusters
zeros() { dd if=/dev/zero of=$file bs=1M count=$((clusters / 16)) oflag=direct conv=notrunc status=none; }
# Prints milliseconds, without fio's own start.
each_cluster() {
    fio --name=run --ioengine=io_uring --direct=1 --gtod_reduce=1 --output-format=json "$@" | jq '.jobs[0].write.runtime'
}
printf '%-12s %16s %16s %16s %16s %16s\n' '' written reserved holes 'zeros ahead' 'whole clusters'
for depth in 1 32; do
    figures=()
    for way in written reserved holes ahead whole; do
        rm -f $file
        truncate -s $size_bytes $file
        if [[ $way != holes ]]; then fallocate -l $size_bytes $file; fi
        if [[ $way == written ]]; then zeros; fi
        sync
        before=0
        if [[ $way == ahead ]]; then
            start=${EPOCHREALTIME/[.,]/}
            zeros
            before=$(((${EPOCHREALTIME/[.,]/} - start) / 1000))
        fi
        if [[ $way == whole ]]; then
            took=$(each_cluster --filename=$file --size=$size_bytes --rw=write --bs=64k --iodepth=$depth)
        else
            took=$(each_cluster --read_iolog=/tmp/log --replay_redirect=$file --iodepth=$depth)
        fi
        figures+=($((clusters * 1000 / (before + took))))
    done
    printf '%-12s %16s %16s %16s %16s %16s\n' "depth $depth" "${figures[@]}"
done
