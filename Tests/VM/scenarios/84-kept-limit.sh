# What a device keeps of its base has a bound (add --keep-limit): beyond it what was kept first goes, and what is in use stays.
# The same on every kernel.
# kernels: 7
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/origins.bash
source lib.sh
source devices.bash
source origins.bash
cd /data
make_base
origin --filter=log file base.raw logfile=reads.log
reads() { grep -c ' Read ' reads.log || true; }
bounded=(qed-ublk add -r --copy-on-read --base-allow '*' --keep-limit 32M)
# mebibytes FILE...: what they take on their file system.
mebibytes() { du -cm "$@" 2>/dev/null | tail -n 1 | cut -f 1; }
# begun: how often the image has begun anew.
begun() { grep -c 'and begins anew' /run/qed-ublk/ublk0.log || true; }

step "--keep-limit: refused where something could be lost"
qed-ublk create --base "$address" disk.qed
expect_refusal 64 'is for --copy-on-read and --read-only together' \
    qed-ublk add --copy-on-read --keep-limit 32M --base-allow '*' disk.qed
expect_refusal 64 'keep-limit must be 16M or more' qed-ublk add -r --copy-on-read --keep-limit 15M --base-allow '*' disk.qed
expect_refusal 64 'leave out --untrusted' qed-ublk add -r --copy-on-read --keep-limit 32M --untrusted disk.qed
# What somebody has written is not the base's.
device=$(qed-ublk add --base-allow '*' disk.qed)
printf mine | dd of="$device" oflag=direct bs=512 count=1 conv=sync status=none
qed-ublk del "$device"
expect_refusal 2 'disk.qed: may have something that its base has not' "${bounded[@]}" disk.qed
rm disk.qed
qed-ublk create --base "$address" disk.qed
qed-ublk create -b disk.qed -F qed above.qed
expect_refusal 2 'above.qed: lies over more than one file' "${bounded[@]}" above.qed
qed-ublk create --table-size 16 --base "$address" wide.qed
expect_refusal 2 'wide.qed: its tables leave no room to keep something; say --keep-limit 64M or more' "${bounded[@]}" wide.qed
rm wide.qed
expect_no_devices

step "--keep-limit: all of a base that is larger is read, and the files stay small; what is read is right"
device=$("${bounded[@]}" disk.qed)
dd if="$device" bs=1M iflag=direct status=none | cmp - base.raw
wait_until 20 eval '(($(begun) >= 2))'
(($(mebibytes disk.qed disk.qed.older) <= 34)) || fail "$(mebibytes disk.qed disk.qed.older) MiB were kept of 32: $(ls -ls disk*)"
for change in "snapshot $device saved.qed" "rollback $device base.raw" "commit $device" "flatten $device" "resize $device +1G"; do
    # shellcheck disable=SC2086  # Words.
    expect_refusal 1 'was added with --keep-limit, and has nothing but what its base has' qed-ublk $change
done

step "--keep-limit: what is read again and again is not asked for again, whatever else is read"
hot() { dd if="$device" bs=1M count=2 iflag=direct status=none | md5sum; }
expected=$(head -c 2M base.raw | md5sum)
for ((start = 10; start < 200; start += 4)); do
    dd if="$device" of=/dev/null bs=1M skip="$start" count=4 iflag=direct status=none
    expect_equal "what is in use" "$expected" "$(hot)"
    # Time to begin anew.
    sleep 0.2
done
# hot_reads: how often the origin was asked for some of it.
hot_reads() {
    local offset count=0
    while read -r offset; do if ((16#$offset < 2 << 20)); then count=$((count + 1)); fi; done \
        < <(sed -n 's/.* Read id=[0-9]* offset=0x\([0-9a-f]*\) .*/\1/p' reads.log)
    echo "$count"
}
asked=$(hot_reads)
((asked <= 40)) || fail "what is in use was asked for $asked times"
(($(mebibytes disk.qed disk.qed.older) <= 34)) || fail "$(mebibytes disk.qed disk.qed.older) MiB were kept of 32"

step "--keep-limit: killed while it lets go, again and again; and without its origin"
for ((round = 0; round < 4; round++)); do
    dd if="$device" bs=1M iflag=direct status=none 2>/dev/null | cmp - base.raw &
    reader=$!
    sleep "0.$((round * 2 + 1))"
    kill_server
    expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
    wait "$reader"
done
expect_status 0 cmp "$device" base.raw
(($(mebibytes disk.qed disk.qed.older) <= 34)) || fail "$(mebibytes disk.qed disk.qed.older) MiB were kept of 32"
expect_equal "what is in use" "$expected" "$(hot)"
origin_dies
wait_until 20 eval '[[ $(qed-ublk status --json 0 | jq -r ".\"base-state\"") == away ]]'
expect_equal "what is in use, without the origin" "$expected" "$(hot)"
origin --filter=log file base.raw logfile=reads.log
qed-ublk del "$device"
expect_no_devices
is_marked_clean disk.qed || fail "the image is not clean"
expect_undamaged disk.qed
expect_status 0 qed-ublk compare --base-allow '*' -f qed -F raw disk.qed base.raw

step "--keep-limit: the image goes on keeping after a restart, and does not where somebody else has written to it"
device=$("${bounded[@]}" disk.qed)
expect_status 0 cmp "$device" base.raw
qed-ublk del "$device"
device=$(qed-ublk add --base-allow '*' disk.qed)
printf mine | dd of="$device" oflag=direct bs=512 count=1 conv=sync status=none
qed-ublk del "$device"
expect_refusal 2 'disk.qed: may have something that its base has not' "${bounded[@]}" disk.qed
expect_equal "what somebody has written" mine \
    "$(qed-ublk convert --base-allow '*' -f qed -O raw disk.qed - | head -c 4)"
expect_undamaged disk.qed
