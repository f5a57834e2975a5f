#!/usr/bin/env bash
# Compares, in a virtual machine with two processors, how fast one fio reads and writes a device whose two queues are each
# bound to their only processor, are not, and that has one queue. Prints the requests in a second, in turn: their ratios count.
#
#   scripts/build && bench/affinity.sh [KERNEL]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
if [[ ${1:-} != guest ]]; then
    exec Tests/VM/vm run --kernel "${1:-7}" --memory 4096 --file .build/qed-ublk --file bench/device/ram-disk.bash \
        bench/affinity.sh guest
fi
# shellcheck source=../Tests/VM/lib.sh
source lib.sh
# shellcheck source=device/ram-disk.bash
source ram-disk.bash
make_ram_disk
devices=()
for queues in 2 2 1; do
    image=/mem/${#devices[@]}.qed
    qed-ublk create "$image" 256M
    devices+=("$(qed-ublk add -q "$queues" "$image")")
done
server=$(qed-ublk list --json | jq ".[] | select(.device == \"${devices[0]}\") | .pid")
# The threads of the queues: all but the first, and io_uring's own.
queue=0
for thread in "/proc/$server/task"/*; do
    if [[ ${thread##*/} == "$server" || $(<"$thread/comm") == iou-* ]]; then continue; fi
    taskset -cp "$(<"/sys/block/${devices[0]#/dev/}/mq/$queue/cpu_list")" "${thread##*/}" >/dev/null
    queue=$((queue + 1))
done
((queue == 2)) || fail "$queue threads of queues: $(cat "/proc/$server/task"/*/comm)"
run() {
    fio --name=run --filename="$1" --size=64M --bs=4k --direct=1 --ioengine=io_uring --norandommap --time_based \
        --runtime=600ms --gtod_reduce=1 --output-format=json "${@:2}" | jq '.jobs[0] | .read.iops + .write.iops | floor'
}
for device in "${devices[@]}"; do run "$device" --rw=write --bs=1M >/dev/null; done
printf '%-22s %10s %10s %10s\n' '' bound 'not bound' 'one queue'
for round in 1 2 3; do
    for work in "randread 32" "randwrite 32" "randread 1"; do
        read -r kind depth <<<"$work"
        figures=()
        for device in "${devices[@]}"; do figures+=("$(run "$device" --rw="$kind" --iodepth="$depth")"); done
        printf '%-22s %10s %10s %10s\n' "$round: $kind, depth $depth" "${figures[@]}"
    done
done
