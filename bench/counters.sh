#!/usr/bin/env bash
# Compares a device with one of a server that counts nothing of a request that its tables in memory answer: no requests, bytes,
# transfers or latencies. Both are built of this tree; of the second one's copy the lines that count are taken away. In one
# virtual machine whose clock counts instructions, in turn: those of the server's process for a request, and of the machine.
#
# usage: bench/counters.sh [KERNEL [ROUNDS]]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
# shellcheck source=with-and-without.bash
source bench/with-and-without.bash
kernel=${1:-7} rounds=${2:-3}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/counters.XXXXXX")
trap 'rm -rf "$work"' EXIT
scripts/build
git ls-files -z | xargs -0 cp --parents --target-directory "$work"

# take_away FILE PATTERN: the lines that match, of which there must be some.
take_away() {
    grep -q "$2" "$work/$1" || { echo "counters.sh: $1 has no line like $2 any more" >&2 && exit 1; }
    sed -i "/$2/d" "$work/$1"
}
take_away Sources/Ublk/QueueLoop.swift '^        statistics\.count(request)$'
take_away Sources/Ublk/QueueLoop.swift '{ sample(tag) }$'
take_away Sources/Ublk/QueueLoop.swift '{ recordLatency(tag) }$'
take_away Sources/QEDEngine/Request/Transfers.swift 'counters\.pointee\.[a-zA-Z]* &+= 1'
"$work/scripts/build" >&2
cp "$work/.build/qed-ublk" "$work/without"
cp .build/qed-ublk "$work/with"
compare "$work" "without counters" "$kernel" "$rounds"
