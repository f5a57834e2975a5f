# What bench/with-and-without.bash runs in its virtual machine. Each line of /results/runs: the work, the server, its processor
# time for a request, the round, and the time that a request took; in nanoseconds.
set -euo pipefail
rounds=$1
# shellcheck source=device/disks.bash
source disks.bash
make_ram_disk

# Of all threads of the server, in nanoseconds.
processor_time() { cat "/proc/$server/task"/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'; }

measure() { # NAME REQUESTS FIO_OPTION...
    local name=$1 requests=$2 before after nanoseconds
    shift 2
    before=$(processor_time)
    nanoseconds=$(fio --name=run --filename="$device" --ioengine=io_uring --direct=1 --size=64M --bs=4k --norandommap \
        --randrepeat=1 --number_ios="$requests" --output-format=json "$@" |
        jq --argjson requests "$requests" '.jobs[0] | (.read.runtime + .write.runtime) * 1e6 / $requests')
    after=$(processor_time)
    echo "$name $program $(((after - before) / requests)) $round $nanoseconds" | tee -a /results/runs
}

for ((round = 0; round <= rounds; round++)); do
    for program in with without; do
        if ((round == 0)); then "$program" create "/mem/$program.qed" 64M; fi
        device=$("$program" add -q 1 "/mem/$program.qed")
        server=$("$program" list --json | jq '.[0].pid')
        if ((round == 0)); then
            # Allocates every cluster.
            dd if=/dev/urandom of="$device" bs=1M count=64 oflag=direct status=none
        else
            measure read-32 20000 --rw=randread --iodepth=32
            measure write-32 20000 --rw=randwrite --iodepth=32
            measure read-1 5000 --rw=randread --iodepth=1
        fi
        "$program" del "$device"
    done
done
