# Sourced by the scenarios, after lib.sh: what several of them expect of devices, images and refusals. Written with few
# programs: starting one takes long in an emulated machine.
# shellcheck shell=bash
# shellcheck disable=SC2034  # What functions leave in variables is for the scenarios.

# Prints what there is of devices: their nodes, what the kernel knows, run-time files, and processes of the program.
traces_of_devices() {
    local path name
    for path in /dev/ublk[bc]* /sys/class/ublk-char/* /run/qed-ublk/* /run/qed-ublk/.[!.]*; do
        if [[ -e $path || -L $path ]]; then echo "$path"; fi
    done
    for path in /proc/[0-9]*; do
        # A server is called exe until it has given itself its name.
        read -r name 2>/dev/null <"$path/comm" || continue
        if [[ $name == qed-ublk || $name == exe ]]; then echo "process ${path#/proc/}"; fi
    done
}

# What `fail` adds: what there is of devices, and of each process of the program what it said and where each thread waits.
explain_failure() {
    local process thread
    echo "--- devices, files and processes"
    traces_of_devices
    timeout 20 qed-ublk list 2>&1
    for process in $(traces_of_devices | sed -n 's/^process //p'); do
        echo "--- process $process: $(tr '\0' ' ' <"/proc/$process/cmdline")"
        ps -L -o tid,stat,etime,wchan:32,comm -p "$process"
        for thread in "/proc/$process/task"/*; do
            echo "thread ${thread##*/}"
            cat "$thread/stack"
        done
        # The log of a server has no name until its device is usable.
        if [[ $(readlink "/proc/$process/fd/2") == /run/* ]]; then sed 's/^/log: /' "/proc/$process/fd/2"; fi
    done 2>/dev/null
    tail -n 20 /run/qed-ublk/ublk*.log 2>/dev/null
}

# is_marked_clean IMAGE: NEED_CHECK is not set, bit 1 of the features at byte 16.
is_marked_clean() { (((($(od -An -tu1 -j 16 -N 1 "$1")) & 2) == 0)); }

# Expects that QEMU finds no corruption in the images, and that they do not ask to be checked. A server that was killed may have
# left clusters that nobody uses.
expect_undamaged() {
    local image status
    for image; do
        status=0
        qemu-img check -f qed "$image" >check.log 2>&1 || status=$?
        if ((status != 0 && status != 3)); then fail "$image: $(<check.log)"; fi
        is_marked_clean "$image" || fail "$image asks to be checked"
    done
}

# Expects that no device, server or file of one is left. What a killed server has left for the next one to use may be.
expect_no_devices() {
    local left
    # A supervisor sees for itself that a server has removed its device; a moment later.
    wait_until 5 no_supervisors
    left=$(traces_of_devices | grep -v '^/run/qed-ublk/image-') || true
    if [[ -n $left ]]; then fail "left behind: $left"; fi
    expect_equal "what list shows" '[]' "$(qed-ublk list --json)"
}

# For wait_until: processes of the program end by themselves.
no_processes() {
    [[ $(traces_of_devices) != *process* ]]
}

# expect_sound IMAGE...: nobody holds its lock, QEMU finds neither errors nor leaks, and it does not ask to be checked.
expect_sound() {
    local image
    for image; do
        expect_output 'No errors were found' qemu-img check -f qed "$image"
        is_marked_clean "$image" || fail "$image asks to be checked"
    done
}

# expect_refusal STATUS PATTERN COMMAND...: within a minute it ends with the status, nothing on standard output, and on
# standard error one sentence that starts with the program's name and matches the extended regular expression.
expect_refusal() {
    local expected=$1 pattern=$2 status=0 output lines
    shift 2
    timeout 60 "$@" >/tmp/output 2>/tmp/errors </dev/null || status=$?
    output=$(</tmp/output)
    mapfile -t lines </tmp/errors
    if ((status != expected || ${#lines[@]} != 1)) || [[ -n $output ]] ||
        [[ ${lines[0]} != "qed-ublk: "* || ! ${lines[0]} =~ $pattern ]]; then
        printf 'standard output: %s\nstandard error: %s\n' "$output" "$(</tmp/errors)" >&2
        fail "expected status $expected and a sentence like '$pattern', got status $status: $*"
    fi
}

# fingerprint FILE...: changes when a byte of them does.
fingerprint() {
    cat -- "$@" | md5sum
}

# The process that serves the device with this number.
server_of() {
    qed-ublk list --json | jq ".[] | select(.id == $1) | .pid"
}

# process_is_gone PID: for wait_until.
process_is_gone() {
    [[ ! -d /proc/$1 ]]
}

# hold_open DEVICE: from now on a process called sleep has it open, whose number is in $user.
hold_open() {
    # shellcheck disable=SC2217  # It only has to be open.
    sleep 1000 <"$1" &
    user=$!
    wait_until 20 eval '[[ $(<"/proc/$user/comm") == sleep ]]'
}

# is_open PATH: for wait_until; some process has it open.
is_open() { [[ -n $(find /proc/[0-9]*/fd -lname "$1" -print -quit 2>/dev/null) ]]; }

# qemu_holds SIZE ARGUMENT...: from now on, and until descriptor 7 is closed, qemu-io has open what its arguments say, of that
# size in MiB; its number is in $holder.
qemu_holds() {
    local size_mib=$1
    shift
    rm -f /tmp/hold /tmp/said
    mkfifo /tmp/hold
    qemu-io "$@" </tmp/hold >/tmp/said 2>&1 &
    holder=$!
    exec 7>/tmp/hold
    echo length >&7
    wait_until 20 grep -q "$size_mib MiB" /tmp/said
}

# Prints the processes that give devices their next servers.
supervisors() {
    local path name arguments
    for path in /proc/[0-9]*; do
        read -r name 2>/dev/null <"$path/comm" || continue
        if [[ $name != qed-ublk && $name != exe ]]; then continue; fi
        mapfile -d '' -t arguments 2>/dev/null <"$path/cmdline" || continue
        if [[ ${arguments[1]:-} == supervise ]]; then echo "${path#/proc/}"; fi
    done
}

no_supervisors() { [[ -z $(supervisors) ]]; }

# process_has_ended PID: for wait_until; it is gone, or nothing is left of it but the status that its parent has yet to fetch.
process_has_ended() {
    local status
    status=$(sed -n '/^State:/p; /^Threads:/p' "/proc/$1/status" 2>/dev/null) || return 0
    [[ $status == "State:"*"Z (zombie)"*"Threads:"*([[:space:]])1 ]]
}

# Nobody but the scenario gives a server that is killed, or ends, from now on another one.
kill_supervisors() {
    local victim victims
    mapfile -t victims < <(supervisors)
    if ((${#victims[@]} == 0)); then return; fi
    kill -KILL "${victims[@]}" 2>/dev/null || true
    # Not only on its way: the last process of a namespace unmounts what is mounted there, and needs the disk's server for that.
    for victim in "${victims[@]}"; do wait_until 20 process_has_ended "$victim"; done
}

# Kills the server of device 0, and before it its supervisor, and waits until it has ended; the kernel may not have noticed yet.
kill_server() {
    kill_supervisors
    kill_only_server
}

# The same, but its supervisor gives the device another one.
kill_only_server() {
    local server
    server=$(server_of 0)
    kill -KILL "$server"
    wait_until 20 process_is_gone "$server"
}

# Kills every process of the program, and those that one has started meanwhile, until there is none.
kill_servers() {
    local server servers
    while mapfile -t servers < <(traces_of_devices | sed -n 's/^process //p') && ((${#servers[@]})); do
        # With their supervisors, and in the same moment: some scenarios mean this one.
        kill -KILL "${servers[@]}" 2>/dev/null || true
        for server in "${servers[@]}"; do wait_until 60 process_is_gone "$server"; done
    done
}

# kill_server_during SECONDS COMMAND...: the server of device 0 is killed so long after the command has begun; both have ended
# then. What the command says is in /tmp/command.log; $has_ended is "yes" if it had ended well.
kill_server_during() {
    local server process seconds=$1
    shift
    kill_supervisors
    server=$(server_of 0)
    has_ended=
    "$@" >/tmp/command.log 2>&1 &
    process=$!
    sleep "$seconds"
    kill -KILL "$server"
    wait_until 20 process_is_gone "$server"
    if { wait "$process"; } 2>/dev/null; then has_ended=yes; fi
}

# use_images_disk SIZE: the working directory is a file system of its own from now on, for images, which can be filled.
use_images_disk() {
    modprobe loop
    truncate -s "$1" disk
    expect_status 0 mkfs.ext4 -q disk
    mkdir images
    mount disk images
    cd images || return
}

# leave_no_room: there is none on the working directory's file system, because of the file `filling`, most of which is not
# written.
leave_no_room() {
    fallocate -l "$(df --output=avail -B1 . | tail -n 1)" filling
    dd if=/dev/zero of=filling bs=1M oflag=append conv=notrunc status=none 2>/dev/null || true
    dd if=/dev/zero of=filling bs=512 oflag=append conv=notrunc status=none 2>/dev/null || true
}

# chain: the files of the chain of disk.qed, the newest first, by QEMU.
chain() { qemu-img info -U --backing-chain --output json disk.qed | jq -r '[.[].filename | split("/") | last] | join(" ")'; }
