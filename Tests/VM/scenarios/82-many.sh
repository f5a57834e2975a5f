# Many devices, in a row and at once: nothing of them is left in the end, no file, process, lock or memory.
# COUNT in a row, and DEVICES at once.
# kernels: 6.12
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
COUNT=${COUNT:-20} DEVICES=${DEVICES:-8}
cd /data

# The kernel's open files, processes but for its own, and MiB of memory in use but for caches.
open_files() { cut -f 1 /proc/sys/fs/file-nr; }
processes() { ps -o pid= -p 2 --ppid 2 --deselect | wc -l; }
memory_used() {
    awk '$1 == "MemTotal:" { used += $2 } /^(MemFree|Cached|Buffers|SReclaimable):/ { used -= $2 }
        END { print int(used / 1024) }' /proc/meminfo
}
remember() { files_before=$(open_files) processes_before=$(processes) memory_before=$(memory_used); }
nothing_is_left() {
    (($(open_files) < files_before + 100 && $(processes) < processes_before + 3)) &&
        (($(memory_used) < memory_before + 48))
}
expect_nothing_left() {
    expect_no_devices
    expect_equal "locks" '' "$(cat /proc/locks)"
    # The kernel lets go of some a moment later.
    local deadline=$((SECONDS + 60))
    until nothing_is_left || ((SECONDS > deadline)); do
        sleep 0.2
        echo 3 >/proc/sys/vm/drop_caches
    done
    echo "          open files $files_before -> $(open_files), processes $processes_before -> $(processes)," \
        "memory $memory_before -> $(memory_used) MiB"
    nothing_is_left || fail "more is left than there was"
}

if ((COUNT)); then
    step "$COUNT in a row"
    qed-ublk create image.qed 64M
    for ((turn = 1; turn <= COUNT; turn++)); do
        expect_equal "its path" /dev/ublkb5 "$(qed-ublk add --id 5 image.qed)"
        qed-ublk del 5
        if ((turn == 3)); then remember; fi
        if ((turn % 500 == 0)); then step "$turn: $(open_files) open files, $(memory_used) MiB"; fi
    done
    expect_nothing_left
    expect_sound image.qed
fi

# each COMMAND...: for every device, with its number last, four at a time.
each() {
    local number
    for ((number = 0; number < DEVICES; number++)); do
        "$@" "$number" || touch failed &
        if ((number % 4 == 3)); then wait; fi
    done
    wait
    [[ ! -e failed ]] || fail "$* of a device"
}
add() { qed-ublk create "number$1.qed" 64M && qed-ublk add --id "$1" "number$1.qed" >/dev/null; }
write() { xfs_io -d -c "pwrite -q -S $(($1 + 1)) ${2:-0} 1m" "/dev/ublkb$1"; }
verify() {
    local path=${2:-/dev/ublkb$1}
    (($(head -c 1M "$path" | tr -dc "\\$(printf %03o $(($1 + 1)))" | wc -c) == 1 << 20))
}
# KiB that a device takes on the average: of its server's memory, where what several share is divided among them, and of the
# file system of run-time files, which the servers have mapped in part. Without the buffers where the driver copies into them.
memory_of_a_device() {
    local server
    {
        for server in $(qed-ublk list --json | jq '.[].pid'); do cat "/proc/$server/smaps_rollup"; done
        du -k -s /run/qed-ublk | sed 's/^/Run: /'
        qed-ublk list --json | jq -r '.[] | select(."zero-copy" | not) | "Buffers: \(.memory."io-buffers" / 1024)"'
    } | awk -v devices="$DEVICES" '/^(Pss|Run):/ { sum += $2 } /^(Pss_Shmem|Buffers):/ { sum -= $2 }
        END { print int(sum / devices) }'
}
takes_little() { (($(memory_of_a_device) <= 6 << 10)); }
states() { qed-ublk list --json | jq -r '.[].state' | sort | uniq -c | awk '{ print $1, $2 }'; }

if ((DEVICES)); then
    step "$DEVICES at once: each has what was written to it"
    remember
    each add
    expect_equal "what list shows" "$DEVICES live" "$(states)"
    each write
    each verify
    echo "          memory $memory_before -> $(memory_used) MiB, of which the servers have" \
        "$(ps -o rss= -C qed-ublk | awk '{ sum += $1 } END { print int(sum / 1024) }') MiB"

    step "a device without work takes 6 MiB at most"
    wait_until 60 takes_little
    echo "          $(memory_of_a_device) KiB"

    step "all servers are killed, and all devices recovered"
    kill_supervisors
    mapfile -t servers < <(qed-ublk list --json | jq -r '.[].pid')
    kill -KILL "${servers[@]}"
    for server in "${servers[@]}"; do wait_until 60 process_is_gone "$server"; done
    expect_equal "what list shows" "$DEVICES waiting" "$(states)"
    expect_equal "devices that recover names" "$DEVICES" "$(qed-ublk recover --all | wc -l)"
    each verify
    qed-ublk del --all
    expect_nothing_left
    for ((number = 0; number < DEVICES; number++)); do expect_sound "number$number.qed"; done
fi
