# What bench/snapshot-pause.sh runs in its virtual machine. Each line of /results/records:
#
#   kernel RELEASE PLACE MIB CLOCK                                             (CLOCK: timed, or counted, in instructions)
#   pause CONTENDER STATE ROUND COMMAND BEFORE DURING AT AFTER REQUESTS WAITED MIB   (milliseconds; at is when the longest
#                                                        ended; how many were under way meanwhile; what was written before)
#   plain ROUND P50                                                           (a write of 4 KiB to a file, microseconds)
#   start ROUND MILLISECONDS                                                  (of our program, which does nothing)
#   idle ROUND MILLISECONDS                                                   (a fork while nobody uses the disk)
#   back ROUND MILLISECONDS                                                   (a rollback then)
#   death CONTENDER STATE ROUND WORDS
#
#   snapshot-pause-guest.sh ROUNDS MIB PLACE CLOCK CONTENDER...
#
# Contenders, each on a disk of its own that is made anew for each measurement:
#
#   ours        qed-ublk snapshot, the image on ext4
#   fork        qed-ublk fork, the same
#   qsd-qcow2   qemu-storage-daemon, direct I/O, NBD: blockdev-snapshot over QMP, qcow2 on ext4
#   qsd-qed     the same with QED
#   qsd-cached  qcow2 through the page cache, which is what qemu-storage-daemon does when it is not told otherwise
#   dm-thin     a thin volume in blocks of 64 KiB: what LVM does
#   reflink     a loop device with direct I/O on a file on XFS: a sync of it, cp --reflink, a sync of the copy
source lib.sh
# shellcheck source=device/disks.bash
source disks.bash
rounds=$1 mib=$2 place=$3 clock=$4
shift 4
contenders=("$@")
# How long fio may take to write what is not flushed, in seconds: who has not done by then has less of it. And how long it writes
# before the snapshot and after it; what it writes before is dirty too, so not for long.
fill_limit=60 lead=0.7 tail=0.7
export DM_DISABLE_UDEV=1

modprobe nbd nbds_max=16
modprobe loop
modprobe dm-thin-pool
if [[ $place == memory ]]; then
    modprobe brd rd_nr=1 rd_size=$(((3 * mib + 1024) << 10)) max_part=0
    disk=/dev/ram0
else
    disk=$(findmnt --noheadings --output SOURCE /data)
    umount /data
fi
disk_sectors=$(blockdev --getsz "$disk")
mkdir /disk

fio_run() {
    fio --ioengine=io_uring --direct=1 --thread --name=run --output=/tmp/fio-output "$@" 2>/tmp/fio-errors
}

# qmp COMMAND: waits for its answer, and fails when it is an error or does not come.
qmp() {
    local line
    printf '%s\n' "$1" >&"$qmp_in"
    while read -r -t 120 line <&"$qmp_out"; do
        case $line in
            *'"return"'*) return ;;
            *'"error"'*) echo "$line" >/tmp/daemon-errors && return 1 ;;
        esac
    done
    return 1
}

# attach CONTENDER: an empty disk of $mib, as `device`, whose parts lie on $disk and nothing else does.
attach() {
    local format direct pool=$(((disk_sectors - (64 << 11)) / 128 * 128))
    case $1 in
        dm-thin)
            # A superblock of zeros is that of a new pool.
            echo "0 $((64 << 11)) linear $disk 0" | dmsetup create metadata
            echo "0 $pool linear $disk $((64 << 11))" | dmsetup create data
            dd if=/dev/zero of=/dev/mapper/metadata bs=4k count=1 oflag=direct status=none
            echo "0 $pool thin-pool /dev/mapper/metadata /dev/mapper/data 128 0 1 skip_block_zeroing" | dmsetup create pool
            dmsetup message pool 0 'create_thin 0'
            echo "0 $((mib << 11)) thin /dev/mapper/pool 0" | dmsetup create thin
            dmsetup mknodes
            device=/dev/mapper/thin
            ;;
        reflink)
            make_file_system "$disk" /disk xfs
            # Reserved: else each first write is an extent of its own, and there are too many for a quick copy.
            fallocate -l "${mib}M" /disk/disk.raw
            device=$(losetup --find --show --direct-io=on /disk/disk.raw)
            if [[ $(<"/sys/block/${device#/dev/}/loop/dio") != 1 ]]; then fail "$device does no direct I/O"; fi
            ;;
        ours | fork)
            make_file_system "$disk" /disk
            qed-ublk create /disk/disk.qed "${mib}M" >/dev/null
            device=$(qed-ublk add /disk/disk.qed)
            ;;
        qsd-*)
            make_file_system "$disk" /disk
            format=${1#qsd-} direct=on
            if [[ $format == cached ]]; then format=qcow2 direct=off; fi
            qemu-img create -q -f "$format" "/disk/disk.$format" "${mib}M"
            rm -f /tmp/qmp.in /tmp/qmp.out /tmp/nbd-socket
            mkfifo /tmp/qmp.in /tmp/qmp.out
            LD_LIBRARY_PATH=/payload/storage-daemon /payload/storage-daemon/qemu-storage-daemon \
                --chardev pipe,id=qmp,path=/tmp/qmp --monitor chardev=qmp \
                --blockdev "driver=file,node-name=file0,filename=/disk/disk.$format,cache.direct=$direct,aio=io_uring" \
                --blockdev "driver=$format,node-name=disk0,file=file0,cache.direct=$direct,discard=unmap" \
                --nbd-server addr.type=unix,addr.path=/tmp/nbd-socket \
                --export type=nbd,id=export0,node-name=disk0,name=disk,writable=on >/tmp/daemon-errors 2>&1 &
            server=$!
            exec {qmp_in}<>/tmp/qmp.in {qmp_out}<>/tmp/qmp.out
            until [[ -S /tmp/nbd-socket ]]; do sleep 0.05; done
            qmp '{"execute": "qmp_capabilities"}'
            device=/dev/nbd0
            # Requests that are not answered within this time fail.
            nbd-client -unix /tmp/nbd-socket -N disk -timeout 60 "$device" >/dev/null 2>&1
            until [[ $(<"/sys/block/nbd0/size") != 0 ]]; do sleep 0.05; done
            ;;
    esac
}

# prepare CONTENDER: what can be done before the snapshot is asked for.
prepare() {
    case $1 in
        qsd-*)
            qemu-img create -q -f "$format" -u -b "/disk/disk.$format" -F "$format" "/disk/new.$format" "${mib}M"
            ;;
    esac
}

# take CONTENDER: a snapshot of $device that survives a power cut. Sets `waited`: milliseconds, as the contender says itself.
take() {
    waited=-
    case $1 in
        ours) qed-ublk snapshot --json "$device" /disk/snapshot.qed >/tmp/answer ;;
        fork) qed-ublk fork --json "$device" /disk/snapshot.qed /disk/clone.qed >/tmp/answer ;;
        dm-thin) thin-snapshot thin pool 1 0 ;;
        reflink)
            sync "$device"
            cp --reflink=always /disk/disk.raw /disk/snapshot.raw
            sync /disk/snapshot.raw
            ;;
        qsd-*)
            qmp "{\"execute\": \"blockdev-add\", \"arguments\": {\"driver\": \"$format\", \"node-name\": \"disk1\",
                \"backing\": null, \"discard\": \"unmap\", \"cache\": {\"direct\": $is_direct}, \"file\": {\"driver\": \"file\",
                \"filename\": \"/disk/new.$format\", \"cache\": {\"direct\": $is_direct}, \"aio\": \"io_uring\"}}}" || return
            qmp '{"execute": "blockdev-snapshot", "arguments": {"node": "disk0", "overlay": "disk1"}}' || return
            ;;
    esac
}

# has_snapshot CONTENDER: after `take` and some writes, there is one.
has_snapshot() {
    local below
    case $1 in
        ours | fork)
            below=$(qed-ublk info -U --json /disk/disk.qed | jq -r '."backing-filename"')
            [[ -s /disk/snapshot.qed && $below == snapshot.qed ]]
            ;;
        dm-thin)
            echo "0 $((mib << 11)) thin /dev/mapper/pool 1" | dmsetup create copy && dmsetup remove copy
            ;;
        reflink) [[ $(stat -c %s /disk/snapshot.raw) == "$((mib << 20))" ]] ;;
        # What has been written since is in the overlay.
        qsd-*) (($(stat -c %b "/disk/new.$format") > 2048)) ;;
    esac
}

detach() {
    case $1 in
        dm-thin) dmsetup remove thin && dmsetup remove pool && dmsetup remove metadata && dmsetup remove data && return ;;
        reflink)
            losetup --detach "$device"
            until [[ ! -e /sys/block/${device#/dev/}/loop/backing_file ]]; do sleep 0.05; done
            ;;
        ours | fork) qed-ublk del "$device" ;;
        qsd-*)
            nbd-client -d "$device" >/dev/null 2>&1 || true
            kill -TERM "$server" 2>/dev/null || true
            wait "$server" || true
            exec {qmp_in}>&- {qmp_out}>&-
            until [[ $(<"/sys/block/nbd0/size") == 0 ]]; do sleep 0.05; done
            ;;
    esac
    umount /disk
}

# How many sectors were written to $device.
written_sectors() {
    awk '{ print $7 }' "/sys/class/block/$(lsblk --nodeps --noheadings --output KNAME "$device")/stat"
}

# has_written SECTORS: more than those; for wait_until.
has_written() { (($(written_sectors) > $1)); }

# longest BEGAN ENDED: of fio's requests, in milliseconds: of those that ended in as much time before, of those that were under
# way meanwhile, and when it ended; of those that began in as much time after; and how many were under way meanwhile.
longest() {
    awk -F ', *' -v began="$1" -v ended="$2" '
        { finish = $1; took = $2 / 1e6; start = finish - took; window = ended - began
          if (finish >= began - window && finish < began) { if (took > before) before = took }
          else if (finish >= began && start <= ended) { number++; if (took > during) { during = took; at = finish - began } }
          else if (start > ended && start <= ended + window && took > after) after = took }
        END { printf "%.2f %.2f %.0f %.2f %d\n", before, during, at, after, number }' /tmp/load_lat.*.log
}

# measure CONTENDER STATE ROUND: one snapshot. Fails when the contender does.
measure() {
    local load began ended command result sectors written status=0
    written=$(written_sectors)
    case $2 in
        # All of it is there and flushed.
        clean) fio_run --filename="$device" --rw=write --bs=1M --iodepth=1 --end_fsync=1 || return ;;
        # All of it is new, each block once, and nothing is flushed.
        dirty) fio_run --filename="$device" --rw=randwrite --bs=4k --iodepth=32 --randrepeat=1 --runtime=$fill_limit || return ;;
    esac
    prepare "$1"
    rm -f /tmp/load_lat.*.log
    sectors=$(written_sectors)
    written=$(((sectors - written) >> 11))
    # Not by way of a function, whose shell would get the signal.
    fio --name=load --filename="$device" --rw=randwrite --bs=4k --iodepth=32 --ioengine=io_uring --direct=1 --thread \
        --norandommap --time_based --runtime=200 --write_lat_log=/tmp/load --log_unix_epoch=1 --output=/dev/null \
        2>/tmp/fio-errors &
    load=$!
    wait_until 60 has_written "$sectors"
    sleep "$lead"
    began=${EPOCHREALTIME/[.,]/}
    take "$1" || status=1
    ended=${EPOCHREALTIME/[.,]/}
    sleep "$tail"
    kill -TERM "$load" 2>/dev/null || status=1
    wait "$load" || true
    if ((status != 0)) || ! has_snapshot "$1"; then return 1; fi
    if [[ -s /tmp/answer ]]; then waited=$(jq '.microseconds / 1000' /tmp/answer) && rm /tmp/answer; fi
    command=$(awk "BEGIN { printf \"%.2f\", ($ended - $began) / 1000 }")
    result=$(longest "$((began / 1000))" "$((ended / 1000))")
    echo "pause $1 $2 $3 $command $result $waited $written" | tee -a /results/records
}

# milliseconds COMMAND...: prints how many it takes.
milliseconds() {
    local began=${EPOCHREALTIME/[.,]/} ended
    "$@" >/dev/null
    ended=${EPOCHREALTIME/[.,]/}
    awk "BEGIN { printf \"%.2f\\n\", ($ended - $began) / 1000 }"
}

# What the machine itself takes, and a command that nothing disturbs.
measure_machine() {
    make_file_system "$disk" /disk
    fio_run --filename=/disk/file --size=64M --rw=write --bs=1M --end_fsync=1
    fio --name=plain --filename=/disk/file --size=64M --rw=randwrite --bs=4k --ioengine=psync --direct=1 --norandommap \
        --time_based --runtime=2 --output-format=json |
        jq -r "\"plain $1 \(.jobs[0].write.clat_ns.percentile.\"50.000000\" / 1000)\"" | tee -a /results/records
    umount /disk
    attach fork
    fio_run --filename="$device" --rw=write --bs=1M --iodepth=1 --end_fsync=1
    echo "start $1 $(milliseconds qed-ublk --version)" | tee -a /results/records
    echo "idle $1 $(milliseconds qed-ublk fork "$device" /disk/snapshot.qed /disk/clone.qed)" | tee -a /results/records
    echo "back $1 $(milliseconds qed-ublk rollback "$device" /disk/snapshot.qed)" | tee -a /results/records
    detach fork
}

echo "kernel $(uname -r) $place $mib $clock" | tee /results/records
step "the disk is written once, so that the host has room for it"
fio_run --filename="$disk" --rw=write --bs=1M --iodepth=4
for ((round = 1; round <= rounds; round++)); do
    measure_machine "$round"
    for ((index = 0; index < ${#contenders[@]}; index++)); do
        contender=${contenders[(index + round - 1) % ${#contenders[@]}]}
        format=${contender#qsd-} is_direct=true
        if [[ $format == cached ]]; then format=qcow2 is_direct=false; fi
        for state in clean dirty; do
            step "round $round: $contender, $state"
            attach "$contender"
            measure "$contender" "$state" "$round" ||
                echo "death $contender $state $round $(tr '\n' ' ' </tmp/daemon-errors) $(tr '\n' ' ' </tmp/fio-errors)" |
                tee -a /results/records
            detach "$contender"
        done
    done
done
step "done"
