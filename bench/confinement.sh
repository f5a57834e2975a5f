#!/usr/bin/env bash
# Compares a device that is served without rights (add --untrusted) with one whose server keeps them. In one virtual machine whose
# clock counts instructions, in turn: those of the server's process for a request, and of the machine.
#
# usage: bench/confinement.sh [KERNEL [ROUNDS]]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
kernel=${1:-7} rounds=${2:-3}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/confinement.XXXXXX")
trap 'rm -rf "$work"' EXIT
scripts/build
# wrapper NAME OPTION: a program of that name that adds devices with the option.
wrapper() {
    # shellcheck disable=SC2016 # For the wrapper to expand.
    printf '#!/bin/bash\nif [[ $1 == add ]]; then set -- add %s "${@:2}"; fi\nexec qed-ublk "$@"\n' "$2" >"$work/$1"
    chmod +x "$work/$1"
}
wrapper with --untrusted
wrapper without --no-partscan
mkdir "$work/results"
Tests/VM/vm run --kernel "$kernel" --timeout 3000 --instruction-clock --file .build/qed-ublk --file "$work/with" \
    --file "$work/without" --file bench/device/disks.bash --results "$work/results" bench/counters-guest.sh "$rounds" >&2
awk '{ server[$1, $4, $2] = $3; machine[$1, $4, $2] = $5; runs[$1 SUBSEP $4] }
    END {
        for (run in runs) {
            split(run, parts, SUBSEP)
            printf "%s, round %d: the server %.4f, the machine %.4f of what it is with all rights\n", parts[1], parts[2],
                server[run, "with"] / server[run, "without"], machine[run, "with"] / machine[run, "without"]
        }
    }' "$work/results/runs" | sort
