#!/usr/bin/env bash
# Measures a device with and without zero copy, in turn, in one virtual machine with Linux 7: throughput, and the
# processor time that the server takes for a request.
#
# usage: bench/zero-copy.sh [ROUNDS [THOUSANDTHS [OPTION OF Tests/VM/vm run]...]] >results
#
# With --instruction-clock time is counted in instructions, and whatever else the machine does has no influence; a tenth
# of the requests (100) is enough then.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
rounds=${1:-3}
scale=${2:-1000}
shift $(($# < 2 ? $# : 2))
[[ -x .build/qed-ublk ]] || { echo "zero-copy.sh: there is no .build/qed-ublk; run make build" >&2 && exit 1; }
results=$(mktemp -d)
trap 'rm -r "$results"' EXIT
Tests/VM/vm run --kernel 7 --timeout 3000 --allow-kernel-warnings --file .build/qed-ublk --file bench/device/disks.bash \
    --results "$results" "$@" bench/zero-copy-guest.sh "$rounds" "$scale" >&2
bench/zero-copy.py "$results/runs"
