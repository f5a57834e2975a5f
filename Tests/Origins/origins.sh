# Sourced by what lies here, in an empty folder, with the path of this one: programs in the background, and refusals.
# shellcheck shell=bash
# shellcheck source=../VM/lib.sh
source "$1/../VM/lib.sh"

# The program, where those who have no rights may run it too.
chmod 755 .
cp "$QED_UBLK_PROGRAM" qed-ublk
qed() { ./qed-ublk "$@"; }

# in_background NAME COMMAND...: its output is in NAME.log; it ends with the test, or with `ends NAME`.
in_background() {
    "${@:2}" </dev/null >>"$1.log" 2>&1 &
    echo $! >"$1.pid"
}
ends() {
    kill -KILL "$(<"$1.pid")"
    wait "$(<"$1.pid")" 2>/dev/null || true
    rm "$1.pid"
}

# expect_refusal STATUS PATTERN COMMAND...: it ends with the status, and one sentence on standard error like that.
expect_refusal() {
    local expected=$1 pattern=$2 status=0 said
    shift 2
    said=$("$@" 2>&1 >printed </dev/null) || status=$?
    if ((status != expected)) || [[ -s printed || $said == *$'\n'* || $said != "qed-ublk: "* || ! $said =~ $pattern ]]; then
        echo "$said" >&2
        fail "expected status $expected and a sentence like '$pattern', got status $status: $*"
    fi
}
