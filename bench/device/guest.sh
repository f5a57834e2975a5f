# Measures the devices of contenders.bash in turn, in a virtual machine. What was measured is left in /results, for
# device.py: a line in `records` for each run, and fio's report of it.
#
#   guest.sh ROUNDS MILLISECONDS SET...
#
# Sets: memory (images on the ext4 of a RAM disk), disk (on the ext4 of the virtual disk), syncs (how many for how many
# flushes), counted (as memory, where the clock counts instructions), standing (time to add, memory, idleness).
# With BENCH_WORKS only these are measured.
# shellcheck shell=bash
source lib.sh
source contenders.bash
source disks.bash

rounds=$1 milliseconds=$2
shift 2
# Images of 16384 clusters, of which the first 2048 are filled where nothing is to be allocated.
image_bytes=$((1 << 30)) filled_bytes=$((128 << 20))
# Work on an empty image ends when each cluster was written, or sooner; the first part would tell of its beginning only.
at_most_milliseconds=$((milliseconds * 5))

modprobe nbd nbds_max=16
modprobe loop

fio_run() {
    fio --ioengine=io_uring --direct=1 --gtod_reduce=1 --randrepeat=1 --disk_util=0 --output-format=json "$@"
}

# run_fio SET WORK CONTENDER ROUND OPTION...: on $device.
run_fio() {
    local name=$1.$2.$3.$4 set=$1 work=$2 contender=$3 round=$4 ticks busy before busy_before
    shift 4
    server_ticks
    machine_ticks
    before=$ticks busy_before=$busy
    fio_run --name="$work" --output="/results/$name" "$@" || return
    server_ticks
    machine_ticks
    echo "fio $set $work $contender $round $((ticks - before)) $((busy - busy_before)) $name" >>/results/records
}

# The options of a work on a filled image; on an empty one for those that begin with "empty".
options_of() {
    local depth=${1##*-d} region=(--filename="$device" --size="$filled_bytes" --time_based --runtime="${milliseconds}ms")
    case $1 in
        randread-*) options=("${region[@]}" --rw=randread --bs=4k --norandommap --iodepth="$depth") ;;
        overwrite-*) options=("${region[@]}" --rw=randwrite --bs=4k --norandommap --iodepth="$depth") ;;
        seqread-*) options=("${region[@]}" --rw=read --bs=1M --iodepth="$depth") ;;
        empty-seqwrite-*)
            options=(--filename="$device" --size=768M --runtime="${at_most_milliseconds}ms" --rw=write --bs=1M
                --iodepth="$depth")
            ;;
        empty-allocate-*)
            options=(--read_iolog=/tmp/allocation-log --replay_redirect="$device" --runtime="${at_most_milliseconds}ms"
                --iodepth="$depth")
            ;;
        empty-fsync-*)
            options=(--filename="$device" --size="$image_bytes" --number_ios=32 --rw=randwrite
                --bs=4k --norandommap --randrepeat=0 --iodepth=1 --thread --numjobs=32 --fdatasync=1 --group_reporting)
            ;;
    esac
}

# The contenders, another one first in each round and work.
in_turn() {
    local index
    turn=()
    for ((index = 0; index < ${#contenders[@]}; index++)); do
        turn+=("${contenders[(index + $1) % ${#contenders[@]}]}")
    done
}

# measure_set SET FOLDER WORK...
measure_set() {
    local set=$1 folder=$2 round number work contender
    local -A devices servers
    shift 2
    # shellcheck disable=SC2086 # several words
    if [[ -n ${BENCH_WORKS:-} ]]; then set -- $BENCH_WORKS; fi
    step "$set: images with data"
    for contender in "${contenders[@]}"; do
        new_image "$contender" "$folder/$contender"
        attach "$contender" "$folder/$contender"
        fio_run --name=fill --output=/dev/null --filename="$device" --rw=write --bs=1M --iodepth=1 \
            --size=$filled_bytes --end_fsync=1
        devices[$contender]=$device servers[$contender]=$server
        echo "scheduler $set $contender $(<"/sys/block/${device#/dev/}/queue/scheduler")" >>/results/records
    done
    for ((round = 1; round <= rounds; round++)); do
        number=$round
        for work; do
            step "$set: round $round, $work"
            in_turn $((number++))
            for contender in "${turn[@]}"; do
                if [[ $work == empty-* ]]; then
                    measure_on_empty_image "$set" "$folder" "$work" "$contender" "$round"
                else
                    device=${devices[$contender]} server=${servers[$contender]}
                    options_of "$work"
                    run_fio "$set" "$work" "$contender" "$round" "${options[@]}"
                fi
            done
        done
    done
    for contender in "${contenders[@]}"; do
        device=${devices[$contender]} server=${servers[$contender]}
        detach "$contender"
        rm "$folder/$contender"
    done
}

# A server may die of it, or stop answering, and gets a second try: what is said of it then is a record too.
measure_on_empty_image() {
    local set=$1 image=$2/new work=$3 contender=$4 round=$5 attempt watch is_measured
    for attempt in 1 2; do
        new_image "$contender" "$image"
        sync
        attach "$contender" "$image"
        watch=
        if [[ $contender == nbd-* ]]; then
            end_when_stuck "$server" "$device" &
            watch=$!
        fi
        is_measured=
        if measure_attached; then is_measured=1; fi
        if [[ -n $watch ]]; then kill "$watch" 2>/dev/null || true; fi
        if [[ -n $is_measured ]]; then
            detach "$contender"
            rm "$image"
            return
        fi
        bury "$contender"
        step "$contender died, attempt $attempt: $last_words"
        echo "death $contender $work $(tr '`' "'" <<<"${last_words:-no answer for half a minute}")" >>/results/records
    done
}

# end_when_stuck PID DEVICE: after half a minute, far more than any run takes, ends the server, if it has not died, and the
# requests that wait for it.
end_when_stuck() {
    sleep 30
    kill -KILL "$1" 2>/dev/null || true
    nbd-client -d "$2" >/dev/null 2>&1 || true
}

# One measurement on a disk with an empty image; fails when the disk does.
measure_attached() {
    local done_count
    if [[ $work == empty-files ]]; then
        measure_files
        return
    fi
    options_of "$work"
    run_fio "$set" "$work" "$contender" "$round" "${options[@]}" || return
    if [[ $contender == ours && $work == empty-allocate-* ]]; then
        # The requests that were made once more, and no others: nothing is left to allocate for these.
        done_count=$(jq '.jobs[0].write.total_ios' "/results/$set.$work.$contender.$round")
        { head -n $((3 + done_count)) /tmp/allocation-log && echo '/dev/disk close'; } >/tmp/done-log
        run_fio "$set" "again${work#empty}" "$contender" "$round" "${options[@]/allocation-log/done-log}"
    fi
}

# A file system, and a tree of small files unpacked on it, up to the end of a sync.
measure_files() {
    local start ticks before status=0
    server_ticks
    before=$ticks start=${EPOCHREALTIME/[.,]/}
    mkfs.ext4 -q "$device" || return
    time_record mkfs
    # Without ext4's zeroing in the background, which would go on for longer than this.
    mount -t ext4 -o noinit_itable "$device" /mnt || return
    server_ticks
    before=$ticks start=${EPOCHREALTIME/[.,]/}
    { tar -xf /payload/tree.tar -C /mnt && sync -f /mnt; } || status=1
    if ((status == 0)); then time_record untar; fi
    umount /mnt
    return $status
}

time_record() {
    local now=${EPOCHREALTIME/[.,]/}
    server_ticks
    echo "time $set $1 $contender $round $((ticks - before)) $((now - start))" >>/results/records
}

# How often the servers sync their images for the flushes of 32 jobs: counted where ext4 is asked to sync a file, the
# same way for all. Runs by itself, so that counting disturbs no measurement.
count_syncs() {
    local folder=$1 contender tracing=/sys/kernel/tracing count
    mount -t tracefs tracefs $tracing 2>/dev/null || true
    echo 16384 >$tracing/buffer_size_kb
    for contender in "${contenders[@]}"; do
        step "syncs: $contender"
        new_image "$contender" "$folder/new"
        sync
        attach "$contender" "$folder/new"
        options_of empty-fsync-d1
        echo >$tracing/trace
        echo "ino == $(stat -c %i "$folder/new")" >$tracing/events/ext4/ext4_sync_file_enter/filter
        echo 1 >$tracing/events/ext4/ext4_sync_file_enter/enable
        fio_run --name=syncs --output="/results/syncs.$contender" "${options[@]}"
        echo 0 >$tracing/events/ext4/ext4_sync_file_enter/enable
        count=$(cat $tracing/per_cpu/cpu*/stats | awk '/^(entries|overrun):/ { sum += $2 } END { print sum }')
        echo "syncs disk $contender $count syncs.$contender" >>/results/records
        detach "$contender"
        rm "$folder/new"
    done
}

# How long it takes until a disk can be used, how much memory a server has after a little use, what it does when idle.
measure_standing() {
    local folder=$1 contender round start now ticks before thread sleeps earlier later
    for ((round = 1; round <= rounds; round++)); do
        in_turn "$round"
        for contender in "${turn[@]}"; do
            new_image "$contender" "$folder/new"
            # What `attach` does beside it, to find the server's process, is no part of it.
            start=${EPOCHREALTIME/[.,]/}
            case $contender in
                ours) device=$(qed-ublk add "$folder/new") ;;
                *) attach "$contender" "$folder/new" ;;
            esac
            now=${EPOCHREALTIME/[.,]/}
            echo "time standing attach $contender $round 0 $((now - start))" >>/results/records
            if [[ $contender == ours ]]; then server=$(qed-ublk list --json | jq '.[0].pid'); fi
            detach "$contender"
        done
    done
    for contender in "${contenders[@]}"; do
        if [[ $contender == loop ]]; then continue; fi
        step "standing: $contender"
        new_image "$contender" "$folder/new"
        attach "$contender" "$folder/new"
        # One at a time: qemu-nbd may die of more on QED, or never answer.
        fio_run --name=use --output=/dev/null --filename="$device" --rw=randrw --bs=4k --iodepth=1 --number_ios=500 \
            --size=256M --fdatasync=100
        # What is put off for some seconds is over.
        sleep 15
        cat "/proc/$server/smaps" >"/results/smaps.$contender"
        server_ticks
        before=$ticks
        count_switches earlier
        sleep 30
        server_ticks
        count_switches later
        sleeps=0
        for thread in "${!later[@]}"; do
            sleeps=$((sleeps + later[thread] - ${earlier[thread]:-${later[thread]}}))
        done
        echo "idle $contender $((ticks - before)) $sleeps" >>/results/records
        detach "$contender"
    done
}

# count_switches ARRAY: sets ARRAY[THREAD], how often each of the server's threads has slept. Without io_uring's workers
# in it, whose timers are the kernel's.
# shellcheck disable=SC2034  # What the name stands for is read by the caller.
count_switches() {
    local -n counts=$1
    local key value name thread
    counts=()
    while read -r key value; do
        case $key in
            Name:) name=$value ;;
            Pid:) thread=$value ;;
            voluntary_ctxt_switches:) if [[ $name != iou-* ]]; then counts[thread]=$value; fi ;;
        esac
    done < <(cat /proc/"$server"/task/*/status)
}

echo "kernel $(uname -r)" >>/results/records
write_allocation_log /tmp/allocation-log $((image_bytes >> 16)) shuffled
works=(randread-d1 randread-d32 overwrite-d1 overwrite-d32 empty-allocate-d1 empty-allocate-d32 seqread-d1 seqread-d32
    empty-seqwrite-d1 empty-seqwrite-d32)
make_ram_disk
disk=$(findmnt --noheadings --output SOURCE /data)
umount /data
make_file_system "$disk" /data
for set; do
    case $set in
        memory) measure_set memory /mem "${works[@]}" empty-files ;;
        disk) measure_set disk /data randread-d32 overwrite-d32 empty-allocate-d32 empty-fsync-d1 empty-files ;;
        syncs) count_syncs /data ;;
        counted) measure_set counted /mem "${works[@]}" empty-files ;;
        standing) measure_standing /mem ;;
        *) fail "no set $set" ;;
    esac
done
step "done"
