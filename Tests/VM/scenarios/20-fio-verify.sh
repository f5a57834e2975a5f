# fio writes blocks of all sizes at all depths, with checksums in them, and finds every one again: while it writes, through
# a second device, and in what QEMU makes of the image. With one queue and with four.
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/fio-verify.bash
source lib.sh
source devices.bash
source fio-verify.bash
cd /data

for queues in 1 4; do
    step "$queues queues: fio writes, and reads back what it wrote"
    rm -f image.qed
    qed-ublk create image.qed 192M
    device=$(qed-ublk add -q "$queues" image.qed)
    expect_equal "queues of the disk" "$queues" "$(find /sys/block/ublkb0/mq -mindepth 1 -maxdepth 1 | wc -l)"
    block=$(blockdev --getss "$device")
    # Its requests are let end, and held, on all queues at once, again and again.
    for ((pause = 0; pause < 100; pause++)); do
        qed-ublk stats --quiesce --json "$device" | jq '."quiesce-microseconds"'
        sleep 0.02
    done >pauses.log 2>&1 &
    pauses=$!
    run_fio "$device" "$block" || { cat fio.log >&2 && fail "fio on the device that it writes"; }
    wait "$pauses"
    # What fio does may be over in a second: reads for as long as top looks.
    touch load
    while [[ -e load ]]; do dd if="$device" of=/dev/null bs=4k count=64 iflag=direct status=none; done &
    load=$!
    qed-ublk top -b -n 2 -d 2 >top.log || fail "top"
    rm load
    wait "$load"
    expect_output "^${device#/dev/} +live +[1-9][0-9.kM]* .* <?.*qed\$" tail -n 1 top.log
    expect_equal "lines longer than 80 columns" 0 "$(grep -cE '^.{81}' top.log || true)"
    expect_equal "the pictures" 2 "$(grep -c '^qed-ublk - .*, 1 device, ' top.log)"
    grep -cE '^[0-9]+$' pauses.log | grep -qx 100 || fail "pauses: $(sort pauses.log | uniq -c | sort -n | tail -n 3)"
    qed-ublk stats --json "$device" >stats.json
    expect_equal "queues that counted" "$queues" "$(jq '.queues | map(select(.requests.writes > 0)) | length' stats.json)"
    expect_equal "failures" 0 "$(jq '.requests.failures' stats.json)"
    expect_output '^writes +[1-9]' qed-ublk stats "$device"
    expect_output "^queues +$queues\$" qed-ublk status "$device"
    expect_equal "latencies in order" true \
        "$(jq '."latency-microseconds" | [.read, .write] | all(.requests > 10 and .p50 <= .p99 and .p99 <= .p100)' stats.json)"
    expect_equal "hits and misses, of all reads and writes" true \
        "$(jq '.requests.reads + .requests.writes == (.cache | .hits + .misses) and (.cache | .hits > 100 * .misses)' stats.json)"
    expect_equal "allocations, commits, and how many requests there were at once" true \
        "$(jq '."storage-operations"."allocated-clusters" > 0 and .requests."largest-under-way" > 1 and
            (."commit-microseconds".commit | .count > 0 and .p50 <= .p99 and .p99 <= .p100)' stats.json)"
    expect_equal "what it is" "[1,\"$device\",$queues,false]" \
        "$(qed-ublk status --json image.qed | jq -c '[.protocol, .device, .queues, .failed]')"
    expect_status 0 qed-ublk metrics --file figures.prom
    expect_equal "files of figures" 1 "$(find . -name 'figures.prom*' | wc -l)"
    expect_equal "writes, in the figures for Prometheus" "$(jq .requests.writes stats.json)" \
        "$(sed -n "s/^qed_ublk_requests_total{device=\"${device#/dev/}\",kind=\"write\"} //p" figures.prom)"
    expect_output "^qed_ublk_device_info.device=\"${device#/dev/}\",image=\"$PWD/.*state=\"live\". 1\$" cat figures.prom
    qed-ublk del "$device"
    expect_no_devices
    expect_sound image.qed

    step "$queues queues: it is all there through a second device"
    device=$(qed-ublk add -q $((5 - queues)) -d 16 image.qed)
    run_fio "$device" "$block" --verify_only=1 || { cat fio.log >&2 && fail "fio finds something else the next time"; }
    qed-ublk del "$device"

    step "$queues queues: and in what QEMU reads"
    rm -f raw
    qemu-img convert -f qed -O raw image.qed raw
    run_fio raw "$block" --verify_only=1 || { cat fio.log >&2 && fail "QEMU reads something else"; }
done

step "fio would have noticed lost blocks, in each of its loads"
start=0
for load in mixed-deep small-shallow large-in-order; do
    fallocate -p -o "$start" -l 64M raw
    if run_fio raw "$block" --verify_only=1 --section="$load" 2>/dev/null; then fail "lost blocks of $load went unnoticed"; fi
    start=$((start + (64 << 20)))
done
