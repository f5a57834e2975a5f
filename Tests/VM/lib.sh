# Sourced by scenarios in the guest (`source lib.sh`): headings, expectations and the summary.
# shellcheck shell=bash
#
# A scenario runs until its first failure: an expectation that is not met prints what was expected and what came, and
# ends the script with status 1. So does a command that fails without being expected to.
set -Euo pipefail

# The heading of what comes next, with the seconds since the start.
step() {
    printf '%6.1f s  %s\n' "$(elapsed_seconds)" "$*"
}

# Seconds since the scenario began, with fractions.
elapsed_seconds() {
    local microseconds=$((${EPOCHREALTIME/[.,]/} - scenario_start))
    printf '%d.%06d\n' $((microseconds / 1000000)) $((microseconds % 1000000))
}

# Ends the scenario as failed, with the reason and where, and what `explain_failure` says, where the scenario has one.
fail() {
    trap - ERR
    printf 'FAILED: %s\n' "$*" >&2
    local depth
    for ((depth = 1; depth < ${#FUNCNAME[@]}; depth++)); do
        printf '    in %s, line %s\n' "${BASH_SOURCE[depth]##*/}" "${BASH_LINENO[depth - 1]}" >&2
    done
    if declare -F explain_failure >/dev/null; then explain_failure >&2 || true; fi
    exit 1
}

# Ends the scenario as not run, with the reason. It is not counted as passed.
skip() {
    trap - ERR
    printf 'skipped: %s\n' "$*"
    exit 77
}

# expect_status STATUS COMMAND...: runs it; its output is shown only when the status is another.
expect_status() {
    local expected=$1 status=0 output
    shift
    output=$("$@" 2>&1) || status=$?
    if ((status != expected)); then
        printf '%s\n' "$output" >&2
        fail "status $status instead of $expected: $*"
    fi
}

# expect_output PATTERN COMMAND...: runs it; it must succeed, and what it prints match the extended regular expression
# in one of its lines.
expect_output() {
    local pattern=$1 status=0 output
    shift
    output=$("$@" 2>&1) || status=$?
    if ((status != 0)) || ! grep -Eq -- "$pattern" <<<"$output"; then
        printf '%s\n' "$output" >&2
        fail "expected status 0 and output like '$pattern', got status $status: $*"
    fi
}

# expect_equal WHAT EXPECTED ACTUAL
expect_equal() {
    if [[ $2 != "$3" ]]; then fail "$1: expected '$2', got '$3'"; fi
}

# wait_until SECONDS COMMAND...: until the command succeeds, looked at ten times a second.
wait_until() {
    local seconds=$1 deadline
    shift
    deadline=$((SECONDS + seconds + 1))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)); then fail "not within $seconds s: $*"; fi
        sleep 0.1
    done
}

# Cuts the power, as far as a virtual machine can: nothing in memory survives. The scenario starts from its beginning in
# the next boot, with VM_BOOT one higher and /data as it was. See `vm --help` for what the disk keeps.
power_cut() {
    power_cut_after 0
    sleep 60
    fail "the power was not cut"
}

# power_cut_after SECONDS: asks for that, and goes on with the scenario, which must not end before. Once in a boot.
power_cut_after() {
    echo "cut $1" >"$VM_POWER_PORT"
}

# Reboots the machine, where systemd is process 1 (vm --init systemd), as its user would. The script starts again in the next
# boot; this one is over when everything has been stopped.
reboot_machine() {
    : >/run/vm-reboots
    echo reboot >"$VM_POWER_PORT"
    systemctl reboot
    sleep 10000
}

# Mounts, as /notes, what keeps everything beside a forgetful disk: a file there that was written directly, or synced, is
# there in the next boot.
mount_notes() {
    local entry
    mkdir -p /notes
    for entry in /sys/block/vd*; do
        if [[ $(<"$entry/serial") == notes ]]; then mount -t ext4 "/dev/${entry##*/}" /notes; fi
    done
    findmnt /notes >/dev/null || fail "there is no disk for notes; see vm --help"
}

# From now on 10.0.2.2 is the machine that runs this one (vm --network).
join_network() {
    modprobe virtio_net
    wait_until 20 eval '[[ -e /sys/class/net/eth0 ]]'
    ip link set lo up
    ip addr add 10.0.2.15/24 dev eth0
    ip link set eth0 up
}

scenario_start=${EPOCHREALTIME/[.,]/}
trap 'fail "status $? from: $BASH_COMMAND"' ERR
