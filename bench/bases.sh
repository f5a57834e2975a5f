#!/usr/bin/env bash
# Compares, in a virtual machine, starts over a base of 20 GiB whose NBD server takes 20 ms to answer a read: 2000 reads of 4 to
# 64 KiB at random places of 512 MiB of data, the same ones each time, at depth 4. Contenders, in turn, each on fresh images:
#
#   local      qed-ublk, an overlay over the same base as a local file
#   prefetch   qed-ublk add --copy-on-read --prefetch, with what such a start was recorded to read
#   near       the same, and the server takes no time to answer
#   plain      qed-ublk add --copy-on-read
#   nbdkit     nbdkit with its readahead and cow filters (cow-on-read, cow-on-cache) over the origin, nbd-client, dm-snapshot
#   qemu-nbd   qemu-nbd with the copy-on-read driver over a qcow2 overlay, nbd-client
#
# Nothing is in the page cache at the beginning; adding the device is counted. The base is served by this machine, over TCP: the
# virtual one is emulated, and has no processor to spare for an origin. Then, with the origin in it, how many bytes the origin is
# asked for when many clones start at once over one device that keeps what is read, and when another one starts after them; and
# how fast what is in the page cache is read through a clone, beside one over a local file.
#
#   scripts/build && bench/bases.sh [KERNEL [ROUNDS [CLONES]]]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
port=10909 near_port=10910

# make_base FILE: of 20 GiB, with 512 pieces of data.
make_base() {
    local place
    truncate -s 20G "$1"
    for ((place = 0; place < 512; place++)); do
        dd if=/dev/urandom of="$1" bs=1M count=1 seek=$((place * 40)) conv=notrunc status=none
    done
}

if [[ ${1:-} != guest ]]; then
    scripts/install-dependencies bench test
    files=(--file .build/qed-ublk)
    # Filters and plugins that tests have no use for.
    for part in plugins/nbdkit-nbd-plugin.so filters/nbdkit-readahead-filter.so; do
        for found in /usr/lib/*/nbdkit/"$part"; do files+=(--file "$found"); done
    done
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    make_base "$work/base.raw"
    serve() { nbdkit -f --exit-with-parent -r -t 64 -i 127.0.0.1 -p "$1" --filter=delay file "$work/base.raw" rdelay="$2" & }
    serve "$port" 20ms
    serve "$near_port" 0
    Tests/VM/vm run --kernel "${1:-7}" --cpus 4 --memory 4096 --disk 16G --timeout 3000 --allow-kernel-warnings --network \
        "${files[@]}" bench/bases.sh guest "${2:-3}" "${3:-50}"
    exit
fi
rounds=$2 clones=$3
# shellcheck source=../Tests/VM/lib.sh
source lib.sh
cd /data
outside=nbd://10.0.2.2:$port/ near=nbd://10.0.2.2:$near_port/ inside='nbd+unix:///?socket=/run/origin'
modprobe nbd nbds_max=4
modprobe loop
modprobe dm-snapshot

join_network
make_base base.raw
sync
# The same ones each time: of a generator with a fixed seed.
{
    printf 'fio version 2 iolog\n/dev/disk add\n/dev/disk open\n'
    awk 'BEGIN {
        srand(1)
        for (number = 0; number < 2000; number++) {
            length_ = 4096 * (1 + int(rand() * 16))
            place = int(rand() * 512) * 40 * 1048576 + 4096 * int(rand() * 240)
            printf "/dev/disk read %.0f %d\n", place, length_
        }
    }'
    printf '/dev/disk close\n'
} >start.log

origin() {
    rm -f /run/origin reads.log
    (setsid nbdkit -f -r -t 64 -U /run/origin --filter=log --filter=delay file base.raw rdelay=20ms logfile=reads.log \
        </dev/null >/dev/null 2>&1 &)
    wait_until 20 eval '[[ -S /run/origin ]]'
}
no_servers() { ! pidof nbdkit qemu-nbd nbd-client >/dev/null; }
end_servers() {
    pkill -x nbdkit || true
    pkill -x qemu-nbd || true
    wait_until 30 no_servers
}
# What the origin was asked for, in bytes.
asked() {
    { sed -n 's/.* Read id=[0-9]* offset=0x[0-9a-f]* count=0x\([0-9a-f]*\).*/\1/p' reads.log 2>/dev/null || true; } |
        while read -r count; do echo $((16#$count)); done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}

# start DEVICE: reads what a start reads.
start() {
    fio --name=start --read_iolog=start.log --replay_redirect="$1" --replay_no_stall=1 --ioengine=io_uring --iodepth=4 \
        --direct=1 --output=/dev/null
}

attach() {
    case $1 in
        local)
            qed-ublk create -q -b base.raw -F raw disk.qed
            device=$(qed-ublk add disk.qed)
            ;;
        prefetch | near | plain | record)
            if [[ $1 == near ]]; then base=$near; else base=$outside; fi
            qed-ublk create -q --base "$base" disk.qed
            options=(--copy-on-read)
            if [[ $1 == prefetch || $1 == near ]]; then options+=(--prefetch start.reads); fi
            if [[ $1 == record ]]; then options+=(--record start.reads); fi
            device=$(qed-ublk add --base-allow '*' "${options[@]}" disk.qed)
            ;;
        nbdkit)
            (setsid nbdkit -f -t 64 -U /run/cache --filter=/payload/nbdkit-readahead-filter.so --filter=cow \
                /payload/nbdkit-nbd-plugin.so uri="$outside" cow-on-read=true cow-on-cache=true </dev/null >/dev/null 2>&1 &)
            wait_until 20 eval '[[ -S /run/cache ]]'
            nbd-client -unix /run/cache /dev/nbd0 -C 4 >/dev/null 2>&1
            truncate -s 4G changes
            changes=$(losetup --find --show changes)
            echo "0 $(blockdev --getsz /dev/nbd0) snapshot /dev/nbd0 $changes P 128" | dmsetup create start
            dmsetup mknodes
            device=/dev/mapper/start
            ;;
        qemu-nbd)
            qemu-img create -q -f qcow2 -b "$outside" -F raw disk.qcow2
            (setsid qemu-nbd -t -e 8 -k /run/cache --image-opts \
                driver=copy-on-read,file.driver=qcow2,file.file.driver=file,file.file.filename=disk.qcow2 \
                </dev/null >/dev/null 2>&1 &)
            wait_until 20 eval '[[ -S /run/cache ]]'
            nbd-client -unix /run/cache /dev/nbd0 -C 4 >/dev/null 2>&1
            device=/dev/nbd0
            ;;
    esac
}

detach() {
    case $1 in
        nbdkit)
            wait_until 20 dmsetup remove start
            losetup -d "$changes"
            nbd-client -d /dev/nbd0 >/dev/null 2>&1
            ;;
        qemu-nbd) nbd-client -d /dev/nbd0 >/dev/null 2>&1 ;;
        *) wait_until 30 qed-ublk del 0 ;;
    esac
    rm -f disk.qed disk.qcow2 changes /run/cache
}

# measure CONTENDER: prints seconds.
measure() {
    local began ended
    echo 3 >/proc/sys/vm/drop_caches
    began=${EPOCHREALTIME/[.,]/}
    attach "$1"
    start "$device"
    ended=${EPOCHREALTIME/[.,]/}
    echo "$1 $(((ended - began) / 1000))e-3"
    detach "$1"
    end_servers
}

measure record >/dev/null
echo "what a start reads: $(awk 'NR > 1 { bytes += $3 } END { print bytes }' start.reads) bytes"
contenders=(local prefetch near plain nbdkit qemu-nbd)
for ((round = 0; round < rounds; round++)); do
    for ((turn = 0; turn < ${#contenders[@]}; turn++)); do
        measure "${contenders[(round + turn) % ${#contenders[@]}]}"
    done
done | tee figures
middle() { sort -g | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }
# median NAME: of the figures of that name.
median() { awk -v name="$1" '$1 == name { print $2 }' figures | middle; }
# row WHAT BAR REACHED: for the table at the end.
row() { printf '%-66s %-22s %s\n' "$@" >>table; }
# times NAME OTHER: how many times as long the one takes as the other.
times() { awk -v one="$(median "$1")" -v other="$(median "$2")" 'BEGIN { printf "%.2f\n", one / other }'; }

# From the command to the first byte, from near and from half a second away.
first_byte() {
    local began
    began=${EPOCHREALTIME/[.,]/}
    device=$(qed-ublk add -q 1 --no-partscan --base-allow '*' disk.qed)
    dd if="$device" of=/dev/null bs=4k count=1 iflag=direct status=none
    echo "$1 $(((${EPOCHREALTIME/[.,]/} - began) / 1000))e-3"
    qed-ublk del "$device"
}
qed-ublk create -q --base "$near" disk.qed
for ((round = 0; round < 3; round++)); do first_byte at-hand; done >>figures
tc qdisc add dev eth0 root netem delay 500ms
for ((round = 0; round < 3; round++)); do first_byte far; done >>figures
tc qdisc del dev eth0 root
rm disk.qed
row 'add to the first byte, in round trips' '4, 1.2 times as long' \
    "$(awk -v far="$(median far)" -v near="$(median at-hand)" 'BEGIN { printf "%.2f\n", (far - near) / 0.5 }')"
row 'a recorded start with prefetch takes, of the same local, times' '2' "$(times prefetch local)"
row '  of the same over a server without a delay' '' "$(times prefetch near)"
row '  of one without prefetch' '' "$(times prefetch plain)"
row 'as many times as fast as qemu-nbd with copy-on-read' '5' "$(times qemu-nbd prefetch)"
row 'as many times as fast as nbdkit with cow-on-read and readahead' '5' "$(times nbdkit prefetch)"

# Many clones over one device that keeps what is read, all at once.
origin
qed-ublk create -q --base "$inside" cache.qed
base=$(qed-ublk add -r --copy-on-read --name base --base-allow '*' cache.qed)
udevadm settle 2>/dev/null || true
before=$(asked)
for ((number = 0; number < clones; number++)); do
    qed-ublk create -q -b "$base" -F raw "clone$number.qed"
    qed-ublk add -q 1 --backing-devices "clone$number.qed"
done >devices
began=${EPOCHREALTIME/[.,]/}
while read -r device; do start "$device" & done <devices
wait
echo "$clones clones at once: $(((${EPOCHREALTIME/[.,]/} - began) / 1000))e-3 s"
once=$(awk '$2 == "read" {
    for (cluster = int($3 / 65536); cluster <= int(($3 + $4 - 1) / 65536); cluster++) clusters[cluster]
} END { print length(clusters) * 65536 }' start.log)
after=$(asked)
row "$clones clones at once: the origin is asked for each byte, times" '1.02' \
    "$(awk -v asked="$((after - before))" -v once="$once" 'BEGIN { printf "%.3f\n", asked / once }')"
qed-ublk create -q -b "$base" -F raw second.qed
second=$(qed-ublk add --backing-devices second.qed)
start "$second"
row 'another clone: bytes from the origin' '0' "$(($(asked) - after))"

# What is in the page cache, through a clone, and over a local file.
qed-ublk create -q -b base.raw -F raw local.qed
local=$(qed-ublk add local.qed)
start "$local"
for ((round = 0; round < 2 * rounds + 1; round++)); do
    for device in "$second" "$local"; do
        began=${EPOCHREALTIME/[.,]/}
        start "$device"
        echo "$device $((${EPOCHREALTIME/[.,]/} - began))"
    done
done >figures
row 'warm reads through a clone, as fast as over a local file, times' '0.95' "$(times "$local" "$second")"
row 'origin away, kill -9 while fetching, power cut' 'nothing lost' '84-bases, 84-another-machine, 84-kept-limit, KeptLimitProof'

printf '\n%-66s %-22s %s\n' '' bar reached
cat table
