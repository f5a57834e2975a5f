#!/usr/bin/env bash
# Compares, in a virtual machine with four processors, overlays with one queue and with four whose base lies on a disk that takes
# five milliseconds to answer: four programs write 4 KiB to clusters of their own, each of which is filled from the base first.
# Prints the requests in a second, the flush at the end included, in turn, and at the end the median of the ratios of four queues
# to one.
#
#   scripts/build && bench/slow-base.sh [KERNEL [ROUNDS]]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
if [[ ${1:-} != guest ]]; then
    exec Tests/VM/vm run --kernel "${1:-7}" --cpus 4 --memory 4096 --timeout 900 --file .build/qed-ublk \
        bench/slow-base.sh guest "${2:-5}"
fi
rounds=$2
# shellcheck source=../Tests/VM/lib.sh
source lib.sh
modprobe brd rd_nr=2 rd_size=$((1 << 20))
echo "0 $(blockdev --getsz /dev/ram0) delay /dev/ram0 0 5" | dmsetup create slow
dmsetup mknodes
mkdir -p /base /mem
mkfs.ext4 -q /dev/mapper/slow
mount /dev/mapper/slow /base
mkfs.ext4 -q /dev/ram1
mount /dev/ram1 /mem
qed-ublk create /base/base.qed 512M
device=$(qed-ublk add /base/base.qed)
fio --name=fill --filename="$device" --rw=write --bs=1M --direct=1 --end_fsync=1 --output=/dev/null
qed-ublk del "$device"

run() {
    qed-ublk create -b /base/base.qed -F qed --force /mem/overlay.qed >/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    local device
    device=$(qed-ublk add -q "$1" /mem/overlay.qed)
    fio --name=run --filename="$device" --rw=randwrite --bs=4k --blockalign=64k --norandommap --direct=1 --ioengine=io_uring \
        --iodepth=16 --numjobs=4 --size=128M --offset_increment=128M --number_ios=1500 --end_fsync=1 --group_reporting \
        --output-format=json |
        jq '.jobs[0].write | .total_ios / .runtime * 1000 | floor'
    qed-ublk del "$device"
}
echo 'one queue, four queues: writes in a second'
for ((round = 1; round <= rounds; round++)); do
    one=$(run 1) && four=$(run 4)
    echo "$one $four"
done | tee /tmp/figures
awk '{ printf "%.2f\n", $2 / $1 }' /tmp/figures | sort -n | awk '{ value[NR] = $1 }
    END { printf "four queues beside one: %.2f (%.2f to %.2f)\n", value[int((NR + 1) / 2)], value[1], value[NR] }'
