# Sourced by guest.sh, after lib.sh: what is compared, as disks that are attached and detached.
#
#   ours        qed-ublk on a QED image
#   c-server    ublk-file on a raw file
#   loop        the kernel's loop device on a raw file, direct I/O
#   nbd-qed     qemu-nbd on a QED image, cache=none, aio=io_uring, and the kernel's client of it
#   nbd-qcow2   the same on a qcow2 image
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # Variables of guest.sh.

contenders=(ours c-server loop nbd-qed nbd-qcow2)

# new_image CONTENDER PATH: an empty one of $image_bytes.
new_image() {
    rm -f "$2"
    case $1 in
        ours | nbd-qed) qemu-img create -q -f qed "$2" "$image_bytes" ;;
        nbd-qcow2) qemu-img create -q -f qcow2 "$2" "$image_bytes" ;;
        *) truncate -s "$image_bytes" "$2" ;;
    esac
}

# attach CONTENDER PATH [QUEUES]: sets `device` and `server`, its process; none for the kernel's loop device.
attach() {
    case $1 in
        ours)
            device=$(qed-ublk add ${3:+--queues "$3"} "$2")
            server=$(qed-ublk list --json | jq ".[] | select(.device == \"$device\") | .pid")
            ;;
        c-server)
            mkfifo /tmp/c-server-path
            ublk-file "$2" >/tmp/c-server-path &
            server=$!
            read -r device </tmp/c-server-path
            rm /tmp/c-server-path
            ;;
        loop)
            device=$(losetup --find --show --direct-io=on "$2")
            server=
            if [[ $(<"/sys/block/${device#/dev/}/loop/dio") != 1 ]]; then fail "$device does no direct I/O"; fi
            ;;
        nbd-*)
            free_nbd_device
            # Verbose: in the foreground, where it says what it dies of. Connected by another program: with --connect the
            # kernel's client is a thread of qemu-nbd, and when that dies amid writes they wait for each other for ever.
            rm -f /tmp/nbd-socket
            qemu-nbd --verbose --socket=/tmp/nbd-socket --format="${1#nbd-}" --cache=none --aio=io_uring \
                --discard=unmap "$2" >/dev/null 2>/tmp/nbd-errors &
            server=$!
            until [[ -S /tmp/nbd-socket ]]; do sleep 0.01; done
            nbd-client -unix /tmp/nbd-socket "$device" >/dev/null 2>&1
            until [[ $(<"/sys/block/${device#/dev/}/size") != 0 ]]; do sleep 0.01; done
            ;;
    esac
}

# Sets `device` to an NBD device that is not connected: it has no pid.
free_nbd_device() {
    local path
    for path in /sys/block/nbd*; do
        if [[ ! -e $path/pid ]]; then
            device=/dev/${path##*/}
            return
        fi
    done
    fail "all NBD devices are in use"
}

# detach CONTENDER: the disk $device of $server, and waits until nobody holds the image.
detach() {
    case $1 in
        ours) qed-ublk del "$device" ;;
        c-server) kill -TERM "$server" ;;
        loop)
            losetup --detach "$device"
            until [[ ! -e /sys/block/${device#/dev/}/loop/backing_file ]]; do sleep 0.01; done
            return
            ;;
        nbd-*) nbd-client -d "$device" >/dev/null ;;
    esac
    if [[ $1 == ours ]]; then
        while [[ -d /proc/$server ]]; do sleep 0.01; done
    else
        wait "$server" || true
    fi
}

# The disk $device, whose server has died, is taken away, and what the server said is kept in `last_words`.
bury() {
    kill -KILL "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
    if [[ $1 != nbd-* ]]; then fail "$1 has died"; fi
    last_words=$(tail -n 1 /tmp/nbd-errors)
    nbd-client -d "$device" >/dev/null 2>&1 || true
}

# Clock ticks (1/100 s) of processor time that the server has used; 0 for the kernel's loop device, whose worker threads
# nothing attributes to it.
server_ticks() {
    local line=0 fields
    if [[ -n $server ]]; then
        read -r line <"/proc/$server/stat"
        read -r -a fields <<<"${line##*) }"
        line=$((fields[11] + fields[12]))
    fi
    ticks=$line
}

# Clock ticks in which a processor of the machine was not idle, the benchmark's own included.
machine_ticks() {
    local fields
    read -r -a fields </proc/stat
    busy=$((fields[1] + fields[2] + fields[3] + fields[6] + fields[7]))
}
