# What a device keeps of its base has a bound (add --keep-limit): beyond it what was kept first goes, and what is in use stays.
# The same on every kernel.
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
# What somebody has made an overlay of stays, and is told of.
qed-ublk create -b disk.qed.older -F qed mine.qed
file=$(stat -c %i disk.qed.older)
expect_status 0 cmp "$device" base.raw
wait_until 20 grep -q 'keeps no more: .*disk.qed.older: .*mine.qed lies over it' /run/qed-ublk/ublk0.log
expect_status 0 cmp "$device" base.raw
expect_equal "the file that has an overlay" "$file" "$(stat -c %i disk.qed.older)"
expect_status 0 qed-ublk compare --base-allow '*' -f qed -F raw mine.qed base.raw
rm mine.qed
wait_until 30 eval '[[ $(stat -c %i disk.qed.older) != "$file" ]]'

step "--keep-limit: what is read again and again is not asked for again, whatever else is read"
hot() { dd if="$device" bs=1M count=2 iflag=direct status=none | md5sum; }
expected=$(head -c 2M base.raw | md5sum)
for ((start = 10; start < 200; start += 8)); do
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
expect_status 0 qed-ublk convert --base-allow '*' -f qed -O raw disk.qed disk.raw
expect_equal "what somebody has written" mine "$(head -c 4 disk.raw)"
rm disk.raw
expect_undamaged disk.qed
rm disk.qed disk.qed.older

step "cache: one command for a base's disk, its clones, and its end; what fails leaves nothing"
caches=/var/cache/qed-ublk
expect_refusal 64 'takes the address of an NBD export' qed-ublk cache create debian --base base.raw
expect_refusal 64 'limit must be 16M or more' qed-ublk cache create debian --base "$address" --limit 1M
expect_refusal 4 'debian: no such cache: there is no device of that name' qed-ublk cache drop debian
expect_refusal 1 '/run/none' qed-ublk cache create debian --base 'nbd+unix:///?socket=/run/none'
expect_equal "what is left" "" "$(ls -A "$caches" 2>/dev/null)"
expect_no_devices
device=$(qed-ublk cache create debian --base "$address")
udevadm settle
expect_refusal 3 'in use by .dev.ublkb0' qed-ublk cache create debian --base "$address"
expect_refusal 3 'lies over nbd.*origin; drop it first' qed-ublk cache create debian --base 'nbd+unix:///b?socket=/run/origin'
for number in 1 2; do
    qed-ublk create -b /dev/qed/debian -F raw "clone$number.qed"
    qed-ublk add --backing-devices "clone$number.qed"
done
expect_status 0 cmp /dev/ublkb1 base.raw
asked=$(reads)
expect_status 0 cmp /dev/ublkb2 base.raw
expect_equal "how often the origin was asked for a second clone" "$asked" "$(reads)"
expect_equal "what is said of it" 'debian /dev/ublkb0 null 2 nbd+unix:///?socket=/run/origin' \
    "$(qed-ublk cache list --json | jq -r '.[] | "\(.name) \(.device) \(.limit) \(.clones) \(.base)"')"
qed-ublk cache list | grep -Eq '^debian +/dev/ublkb0 +[0-9.]+ MiB +- +2 +nbd' || fail "$(qed-ublk cache list)"
expect_refusal 3 'ublkb0' qed-ublk cache drop debian
[[ -e $caches/debian.qed ]] || fail "a cache that has clones lost its image"
expect_refusal 4 'ublkb1: was not added with' qed-ublk cache warm 1
qed-ublk cache warm debian >/dev/null
qed-ublk cache verify debian | grep -Eq '^/dev/ublkb0: all [1-9][0-9]+ bytes' || fail "$(qed-ublk cache verify debian)"
# The machine starts again: it goes on with what it has.
qed-ublk del 1 2 0
asked=$(reads)
expect_equal "the device" "$device" "$(qed-ublk cache create debian --base "$address")"
expect_status 0 cmp "$device" base.raw
(($(reads) <= asked + 20)) || fail "after a restart the origin was asked $(($(reads) - asked)) times"
# The base has changed under it.
origin_dies
cp base.raw other.raw
dd if=/dev/urandom of=other.raw bs=1M seek=1 count=100 conv=notrunc status=none
origin file other.raw
wait_until 30 eval '[[ $(qed-ublk status --json 0 | jq -r ".\"base-state\"") == there ]]'
expect_refusal 1 'is not what its base has, from byte [1-9][0-9]* on' qed-ublk cache verify debian
qed-ublk cache drop debian
expect_equal "what is left" "" "$(ls -A "$caches")"
expect_no_devices
device=$(qed-ublk cache create small --base "$address" --limit 16M --image /data/small.qed)
expect_status 0 cmp "$device" other.raw
expect_refusal 1 'keeps no more at once than --keep-limit says' qed-ublk cache warm small
(($(mebibytes small.qed small.qed.older) <= 18)) || fail "$(mebibytes small.qed small.qed.older) MiB were kept of 16"
qed-ublk cache verify small >/dev/null
qed-ublk del "$device"
expect_refusal 4 'no such cache' qed-ublk cache drop small
expect_equal "the device" "$device" "$(qed-ublk cache create small --base "$address" --limit 16M --image /data/small.qed)"
qed-ublk cache drop small
[[ ! -e small.qed && ! -e small.qed.older ]] || fail "a cache that was dropped has left files"
# Another cache has its image by the name of the older file.
other=$(qed-ublk cache create other --base "$address" --image /data/small.qed.older)
device=$(qed-ublk cache create small --base "$address" --limit 16M --image /data/small.qed)
expect_status 0 cmp "$device" other.raw
wait_until 20 grep -q 'keeps no more: .*small.qed.older: in use' /run/qed-ublk/ublk1.log
expect_status 0 cmp "$device" other.raw
qed-ublk cache drop small
expect_status 0 cmp "$other" other.raw
[[ -e small.qed.older ]] || fail "another cache lost its image"
qed-ublk cache drop other
expect_no_devices
