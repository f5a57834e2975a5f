#!/usr/bin/env bash
# Measures, in one virtual machine, how long the longest request under fio waits while a snapshot is taken, with nothing unflushed
# and with much, and how long the command takes: qed-ublk, qemu-storage-daemon, dm-thin and copies by reference on XFS, in turn.
#
#   scripts/build && bench/snapshot-pause.sh [OPTION]... [-- OPTION OF Tests/VM/vm run...]
#
#   --kernel SERIES      6.12 or 7 (default 7)
#   --rounds N           (default 5)
#   --dirty MIB          what is written before and not flushed, and the size of the disks (default 1024)
#   --place disk|memory  on the virtual disk, or on a RAM disk (default disk)
#   --contender NAME     only this one; may be given again
#   --results FOLDER     where the records go (default .build/snapshot-pause/KERNEL-PLACE-CLOCK)
#
# With `-- --instruction-clock`, and --place memory, time is counted in instructions, whatever else the machine does.
# bench/snapshot-pause.py FOLDER... makes the table again of what was measured.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
kernel=7 rounds=5 mib=1024 place=disk clock=timed results='' contenders=()
while (($#)) && [[ $1 != -- ]]; do
    (($# >= 2)) || { echo "snapshot-pause.sh: $1 needs a value" >&2 && exit 64; }
    case $1 in
        --kernel) kernel=$2 ;;
        --rounds) rounds=$2 ;;
        --dirty) mib=$2 ;;
        --place) place=$2 ;;
        --contender) contenders+=("$2") ;;
        --results) results=$2 ;;
        *) echo "snapshot-pause.sh: no option $1" >&2 && exit 64 ;;
    esac
    shift 2
done
shift $(($# > 0))
if [[ " $* " == *' --instruction-clock '* ]]; then clock=counted; fi
((${#contenders[@]})) || contenders=(ours fork qsd-qcow2 qsd-qed qsd-cached dm-thin reflink)
: "${results:=.build/snapshot-pause/$kernel-$place-$clock}"
[[ -x .build/qed-ublk ]] || { echo "snapshot-pause.sh: there is no .build/qed-ublk; run make build" >&2 && exit 1; }
scripts/install-dependencies bench test
rm -rf "$results"
mkdir -p "$results"

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
gcc -O2 -Wall -Werror -static -o "$work/thin-snapshot" bench/thin-snapshot.c
# The daemon with what it is linked with, but for the C library, which every program of the machine has.
mkdir "$work/storage-daemon"
daemon=$(command -v qemu-storage-daemon) || { echo "snapshot-pause.sh: there is no qemu-storage-daemon" >&2 && exit 1; }
cp -L "$daemon" "$work/storage-daemon"
ldd "$daemon" | sed -n '/libc\.so/d; s/.*=> \(\/[^ ]*\).*/\1/p' | xargs cp -L --target-directory "$work/storage-daemon"

# How long a plain write takes here, on the file system that has the virtual disk, in microseconds, and the start of our program,
# in milliseconds: beside the same in the machine they say how much it stretches time. Before and after.
measure_host() {
    local folder began number
    folder=$(mktemp -d "${QED_UBLK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}}/plain-write.XXXXXX")
    fio --name=fill --filename="$folder/file" --size=64M --rw=write --bs=1M --direct=1 --end_fsync=1 --output=/dev/null
    fio --name=plain --filename="$folder/file" --size=64M --rw=randwrite --bs=4k --ioengine=psync --direct=1 --norandommap \
        --time_based --runtime=2 --output-format=json |
        jq -r '"host \(.jobs[0].write.clat_ns.percentile."50.000000" / 1000)"' >>"$results/host"
    rm -r "$folder"
    # The quickest of 20: others may use the processors.
    for ((number = 0; number < 20; number++)); do
        began=${EPOCHREALTIME/[.,]/}
        .build/qed-ublk --version >/dev/null
        echo "host-start $((${EPOCHREALTIME/[.,]/} - began))e-3"
    done | sort -g -k 2 | awk 'NR == 1' >>"$results/host"
}
measure_host
memory=2048
if [[ $place == memory ]]; then memory=$((3 * mib + 3072)); fi
# A contender that stops answering is measured too, and the kernel complains of it.
Tests/VM/vm run --kernel "$kernel" --memory "$memory" --disk "$((3 * mib + 1024))M" --timeout "$((1200 * rounds))" \
    --allow-kernel-warnings --file .build/qed-ublk --file "$work/thin-snapshot" --file "$work/storage-daemon" \
    --file bench/device/disks.bash --results "$results" "$@" \
    bench/snapshot-pause-guest.sh "$rounds" "$mib" "$place" "$clock" "${contenders[@]}" >&2
measure_host
bench/snapshot-pause.py "$results"
