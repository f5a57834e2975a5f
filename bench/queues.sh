#!/usr/bin/env bash
# Compares, in a virtual machine with two processors, how fast one fio reads and writes a device whose two queues are each
# bound to their only processor, are not, that has one queue, and the C server, which has one; images on a RAM disk, then on
# the virtual disk. Prints the requests in a second, in turn, and at the end the medians of the ratios to the C server.
#
#   scripts/build && bench/queues.sh [KERNEL [ROUNDS]]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
if [[ ${1:-} != guest ]]; then
    bench/device/build-server .build/bench-device/ublk-file
    exec Tests/VM/vm run --kernel "${1:-7}" --memory 4096 --timeout 900 --file .build/qed-ublk \
        --file .build/bench-device/ublk-file --file bench/device/disks.bash --file bench/device/contenders.bash \
        bench/queues.sh guest "${2:-5}"
fi
rounds=$2
# shellcheck source=../Tests/VM/lib.sh
source lib.sh
# shellcheck source=device/disks.bash
source disks.bash
# shellcheck source=device/contenders.bash
source contenders.bash
image_bytes=$((256 << 20))
make_ram_disk

# Binds the threads of the server's queues to the processors of their queues. The first thread is no queue's, nor are
# io_uring's own, nor those that bring memory.
bind_queues() {
    local thread queue=0
    for thread in "/proc/$server/task"/*; do
        if [[ ${thread##*/} == "$server" || $(<"$thread/comm") =~ ^(iou-|memory) ]]; then continue; fi
        taskset -cp "$(<"/sys/block/${device#/dev/}/mq/$queue/cpu_list")" "${thread##*/}" >/dev/null
        queue=$((queue + 1))
    done
    ((queue == 2)) || fail "$queue threads of queues: $(cat "/proc/$server/task"/*/comm)"
}
run() {
    fio --name=run --filename="$1" --size=64M --bs=4k --direct=1 --ioengine=io_uring --norandommap --time_based \
        --runtime=600ms --gtod_reduce=1 --output-format=json "${@:2}" | jq '.jobs[0] | .read.iops + .write.iops | floor'
}
row() { printf '%-34s %10s %10s %10s %10s\n' "$@"; }

row '' bound 'not bound' 'one queue' 'C server'
for folder in /mem /data; do
    devices=()
    for queues in 2 2 1 0; do
        contender=ours && ((queues)) || contender=c-server
        image=$folder/${#devices[@]}
        new_image $contender "$image"
        attach $contender "$image" $((queues ? queues : 1))
        if ((${#devices[@]} == 0)); then bind_queues; fi
        devices+=("$device")
        run "$device" --rw=write --bs=1M >/dev/null
    done
    for ((round = 1; round <= rounds; round++)); do
        for work in "randread 32" "randwrite 32" "randread 1"; do
            read -r kind depth <<<"$work"
            figures=()
            for device in "${devices[@]}"; do figures+=("$(run "$device" --rw="$kind" --iodepth="$depth")"); done
            row "$folder, $kind, depth $depth" "${figures[@]}"
        done
    done
    qed-ublk del --all
done | tee /tmp/figures
# The middle of what each column is to the last one.
median() {
    awk -v name="$1 " -v column="$2" 'index($0, name) == 1 { printf "%.2f\n", $column / $NF }' /tmp/figures |
        sort -n | sed -n "$(((rounds + 1) / 2))p"
}
while read -r name; do
    row "$name" "$(median "$name" 5)" "$(median "$name" 6)" "$(median "$name" 7)" 1
done < <(sed 's/\(depth [0-9]*\) .*/\1/' /tmp/figures | sort -u)
