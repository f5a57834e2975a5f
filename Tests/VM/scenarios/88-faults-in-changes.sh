# Each step of a snapshot, a rollback, a merge, a copy of the base and a growth fails once, as a disk lets it fail: the command
# ends with one sentence, or did it all the same; the server goes on, the disk reads as it should, nothing is half made, and
# the same command succeeds when the fault is gone.
# kernels: 7
# vm: --cpus 2 --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
use_images_disk 400M

# What fails of the server: the first of them, the second, and so on, of each thread. Not read and write, by which threads wake
# each other and answer the command; what goes through io_uring fails in the simulation.
calls=(openat renameat2 linkat unlink fsync pwrite64 ftruncate fallocate pread64 fcntl newfstatat fstat)

# with_fault CALL NUMBER COMMAND...: leaves its status in $status, what it says in /tmp/output and /tmp/errors, and in $met
# whether there was such a call.
with_fault() {
    local call=$1 number=$2 tracer server
    shift 2
    server=$(server_of 0)
    strace -f -q -o /tmp/trace -e "trace=$call" -e "inject=$call:error=EIO:when=$number" -p "$server" 2>/tmp/strace.log &
    tracer=$!
    wait_until 20 eval "grep -q 'TracerPid:[[:space:]]*$tracer' /proc/$server/status"
    status=0
    timeout 60 "$@" >/tmp/output 2>/tmp/errors </dev/null || status=$?
    kill -INT "$tracer"
    wait "$tracer" || true
    met=no
    if grep -q INJECTED /tmp/trace; then met=yes; fi
    expect_equal "the server" "$server" "$(server_of 0)"
    if ((status != 0)); then
        expect_equal "how many lines it says, at $call $number: $(</tmp/errors)" 1 "$(wc -l </tmp/errors)"
        if ((status > 4)) || [[ $(</tmp/errors) != "qed-ublk: "* ]]; then fail "status $status: $(</tmp/errors)"; fi
    fi
}

mark() { echo "$1" | dd of="$device" conv=sync,notrunc oflag=direct bs=64k status=none "${@:2}"; }
marks() {
    local position
    for position in 0 20 40; do
        dd if="$device" bs=64k skip=$position count=1 iflag=direct status=none | tr -d '\0'
    done | paste -sd' '
}
flush() { xfs_io -c fsync "$device" 2>&1; }

# expect_disk MARKS
expect_disk() { expect_equal "the disk, where $call $number has failed" "$1" "$(marks)"; }

# trial COMMAND...: with that fault; then without, where it has failed.
trial() {
    local before
    before=$(marks)
    with_fault "$call" "$number" "$@"
    [[ $met == yes ]] || return 0
    count=$((count + 1))
    if ((status == 0)); then
        passed=$((passed + 1))
        return
    fi
    printf '          %s %s: %s\n' "$call" "$number" "$(cut -c 11-140 </tmp/errors)"
    expect_disk "$before"
    if [[ -n $(flush) ]]; then
        # A failed sync: nothing is promised until the image is opened again.
        qed-ublk del "$device" >/dev/null 2>&1 || true
        wait_until 60 no_processes
        device=$(qed-ublk add disk.qed)
        expect_disk "$before"
        rm -f disk.qed.rollback
    fi
    mark again seek=60
    if [[ $2 == commit ]] && grep -q 'what it has taken in is not removed for good' /tmp/errors; then
        rm -f "$turn.qed"
        return
    fi
    if [[ $2 == snapshot ]] && grep -q 'is there, and the disk goes on' /tmp/errors; then return; fi
    expect_status 0 "$@"
}

# once KIND: what the command needs, the command, and what is expected of it.
once() {
    turn=$((turn + 1))
    case $1 in
        snapshot)
            mark "turn $turn"
            trial qed-ublk snapshot "$device" "$turn.qed"
            expect_disk "turn $turn first"
            expect_equal "the chain" "disk.qed $turn.qed" "$(chain | cut -d' ' -f 1,2)"
            ;;
        rollback)
            mark newest seek=40
            trial qed-ublk rollback "$device" second.qed
            if [[ $met == yes ]]; then expect_disk "second first"; fi
            expect_equal "the files" "base.qed disk.qed first.qed second.qed" "$(echo *.qed*)"
            ;;
        commit)
            mark "turn $turn"
            qed-ublk snapshot "$device" "$turn.qed" >/dev/null
            trial qed-ublk commit "$device"
            expect_disk "turn $turn first"
            expect_equal "the chain" "disk.qed base.qed" "$(chain)"
            expect_equal "the files" "base.qed disk.qed" "$(echo *.qed*)"
            ;;
        flatten)
            mark "turn $turn"
            qed-ublk snapshot "$device" "$turn.qed" >/dev/null
            trial qed-ublk flatten "$device"
            expect_disk "turn $turn first"
            expect_equal "the chain" "disk.qed" "$(chain)"
            rm "$turn.qed"
            ;;
        resize)
            trial qed-ublk resize "$device" "$((64 + turn))M"
            expect_equal "the size" $(((64 + turn) << 20)) "$(blockdev --getsize64 "$device")"
            expect_disk "second first"
            ;;
    esac
}

# A few of them, unless all are asked for (ALL=yes; of some commands with KINDS).
declare -A few=([snapshot]="renameat2 1 fsync 1 fsync 2" [rollback]="openat 8 fsync 3" [commit]="openat 15 fcntl 8")
kinds=(snapshot rollback commit)
if [[ ${ALL:-} ]]; then read -r -a kinds <<<"${KINDS:-${kinds[*]} flatten resize}"; fi
for kind in "${kinds[@]}"; do
    step "$kind: each of its steps fails once"
    qed-ublk create base.qed 64M
    device=$(qed-ublk add base.qed)
    dd if=/dev/urandom of="$device" bs=1M count=4 seek=8 oflag=direct status=none
    qed-ublk del "$device"
    qed-ublk create disk.qed --backing base.qed --backing-format qed
    device=$(qed-ublk add disk.qed)
    mark first
    mark first seek=20
    qed-ublk snapshot "$device" first.qed >/dev/null
    mark second
    qed-ublk snapshot "$device" second.qed >/dev/null
    count=0 passed=0 turn=0
    if [[ ${ALL:-} ]]; then
        for call in "${calls[@]}"; do
            met=yes
            for ((number = 1; number <= 60; number++)); do
                once "$kind"
                [[ $met == yes ]] || break
            done
        done
    else
        while read -r call number <&8; do once "$kind"; done 8< <(xargs -n 2 <<<"${few[$kind]}")
    fi
    printf '          %d faults, of which %d did not matter\n' "$count" "$passed"
    if ((count == 0)); then fail "no fault was met"; fi
    qed-ublk del "$device"
    expect_no_devices
    expect_sound ./*.qed
    rm ./*.qed
done
