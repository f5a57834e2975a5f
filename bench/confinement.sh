#!/usr/bin/env bash
# Compares a device that is served without rights (add --untrusted) with one whose server keeps them. In one virtual machine whose
# clock counts instructions, in turn: those of the server's process for a request, and of the machine.
#
# usage: bench/confinement.sh [KERNEL [ROUNDS]]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=with-and-without.bash
source bench/with-and-without.bash
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
compare "$work" "with all rights" "$kernel" "$rounds" .build/qed-ublk
