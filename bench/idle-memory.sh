#!/usr/bin/env bash
# Measures, in a virtual machine, the memory of devices of one queue that nobody uses: what their servers have, each page that
# several share divided among them (Pss), which includes the logs under /run that are mapped; and the other files there.
#
#   scripts/build && bench/idle-memory.sh [KERNEL [DEVICES]]
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
if [[ ${1:-} != guest ]]; then
    exec Tests/VM/vm run --kernel "${1:-7}" --memory 4096 --timeout 900 --file .build/qed-ublk \
        bench/idle-memory.sh guest "${2:-60}"
fi
devices=$2
# shellcheck source=../Tests/VM/lib.sh
source lib.sh
for ((number = 0; number < devices; number++)); do
    qed-ublk create "/data/$number.qed" 1G
    qed-ublk add -q 1 "/data/$number.qed" >/dev/null
done
# What a start needs goes back after some seconds.
sleep 20
pss=0 logs=0
while read -r process; do
    pss=$((pss + $(awk '/^Pss:/ { print $2 }' "/proc/$process/smaps_rollup")))
    logs=$((logs + $(awk '/^[0-9a-f]+-/ { log_file = / \/run\// } /^Pss:/ && log_file { sum += $2 } END { print sum + 0 }' \
        "/proc/$process/smaps")))
done < <(qed-ublk list --json | jq '.[].pid')
files=$(du -sk /run/qed-ublk | cut -f 1)
echo "$devices devices, KiB for each: $((pss / devices)) of memory, of which $((logs / devices)) are mapped files under /run;" \
    "$((files / devices)) of files there; together $(((pss - logs + files) / devices))"
qed-ublk del --all
