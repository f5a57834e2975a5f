# What bench/zero-copy.sh runs in its virtual machine. Each line of /results/runs: where the image is, the work, zero
# copy or not, requests per second, microseconds of the server's processor time for a request.
set -euo pipefail
rounds=$1
# Requests of each run: this many thousandths.
scale=${2:-1000}
mkdir /tmp/files
mount -t tmpfs -o size=400m none /tmp/files
# shellcheck source=device/disks.bash
source disks.bash
make_ram_disk
declare -A folders=([tmpfs]=/tmp/files [ram-disk]=/mem [virtual-disk]=/data)

# Of all threads of a process, in nanoseconds.
processor_time() {
    cat "/proc/$1/task"/*/schedstat | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

measure() { # PLACE ZERO_COPY NAME REQUESTS FIO_OPTION...
    local place=$1 zero_copy=$2 name=$3 requests=$4 before after rate
    shift 4
    requests=$((requests * scale / 1000))
    before=$(processor_time "$server")
    rate=$(fio --name=run --filename="$device" --ioengine=io_uring --direct=1 --size=256M --norandommap --randrepeat=1 \
        --number_ios="$requests" --output-format=json "$@" | jq '.jobs[0] | .read.iops + .write.iops')
    after=$(processor_time "$server")
    echo "$place $name $zero_copy $rate $(((after - before) / requests))e-3" | tee -a /results/runs
}

for place in tmpfs ram-disk virtual-disk; do
    folder=${folders[$place]}
    qed-ublk create "$folder/image.qed" 256M
    for round in $(seq 0 "$rounds"); do
        for zero_copy in off on; do
            device=$(qed-ublk add --zero-copy "$zero_copy" "$folder/image.qed")
            server=$(qed-ublk list --json | jq '.[0].pid')
            if ((round == 0)); then
                # Allocates every cluster, and warms up.
                dd if=/dev/urandom of="$device" bs=1M count=256 oflag=direct status=none
            else
                measure "$place" "$zero_copy" "read 4 KiB, depth 32" 10000 --rw=randread --bs=4k --iodepth=32
                measure "$place" "$zero_copy" "write 4 KiB, depth 32" 10000 --rw=randwrite --bs=4k --iodepth=32
                measure "$place" "$zero_copy" "read 64 KiB, depth 32" 3000 --rw=randread --bs=64k --iodepth=32
                measure "$place" "$zero_copy" "write 64 KiB, depth 32" 3000 --rw=randwrite --bs=64k --iodepth=32
                measure "$place" "$zero_copy" "read 1 MiB in order, depth 8" 400 --rw=read --bs=1M --iodepth=8
                measure "$place" "$zero_copy" "write 1 MiB in order, depth 8" 400 --rw=write --bs=1M --iodepth=8
            fi
            qed-ublk del "$device"
        done
    done
    rm "$folder/image.qed"
done
