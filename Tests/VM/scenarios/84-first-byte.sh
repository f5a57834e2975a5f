# A device over a base that is far away: how many round trips pass before its first byte is there, and how where the holes of the
# base are is known all the same, also of an origin that takes one connection at a time. The list of a device's snapshots asks no
# origin.
# vm: --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/origins.bash
source lib.sh
source devices.bash
source origins.bash
cd /data
make_base 8

add=(qed-ublk add -q 1 --no-partscan --base-allow '*')
first_byte() { dd if="$device" bs=4k count=1 iflag=direct status=none | cmp - <(dd if=base.raw bs=4k count=1 status=none); }
# What the origin was asked for since the device was added.
asked() { tail -n +"$((seen + 1))" asked.log; }
# begins ARGUMENT...: a device over an origin that notes what it is asked for.
begins() {
    origin --filter=log "$@" logfile=asked.log
    qed-ublk create -q --force --base "$address" disk.qed
    wait_until 20 grep -q Disconnect asked.log
    seen=$(wc -l <asked.log)
    device=$("${add[@]}" disk.qed)
    first_byte
}
# Writes to a part of the next cluster of the base, in a hole of it. For wait_until: whether that has asked for holes.
place=100
asks_for_holes() {
    dd if=/dev/zero of="$device" bs=512 count=1 seek=$((place++ << 11)) oflag=direct status=none
    (($(asked | grep -c ' Extents ') > 0))
}
reads() { asked | grep -c ' Read '; }
knows_holes() {
    wait_until 20 asks_for_holes
    before=$(reads)
    for _ in {1..8}; do asks_for_holes; done
    expect_equal "reads of holes" "$before" "$(reads)"
    expect_equal "what the log says of the origin" "" "$(said_of_base || true)"
    expect_status 0 cmp "$device" base.raw
}

step "add makes one connection before the first byte; another one tells holes, and stays alone"
begins file base.raw
expect_equal "connections before the first read" 1 "$(asked | sed '/ Read /q' | grep -c ' Connect ')"
knows_holes
expect_equal "connections that have ended" 1 "$(asked | grep -c ' Disconnect ')"

step "what a device lies over is listed without its origin"
expect_status 0 qed-ublk snapshot "$device" monday.qed
origin_dies
expect_equal "the list" "[[\"disk.qed\",209715200],[\"monday.qed\",209715200],[\"$address\",209715200]]" \
    "$(timeout 20 qed-ublk snapshots --json "$device" | jq -c 'map([(.filename | sub("^/data/"; "")), ."virtual-size"])')"
origin file base.raw
qed-ublk del "$device"
origin_dies
rm monday.qed

step "an origin that takes one connection at a time, and ends others"
begins --filter=limit file base.raw limit=1
knows_holes
qed-ublk del "$device"
origin_dies

step "one that has others wait, as qemu-nbd does"
qemu-nbd --fork -r -t -e 1 -f raw -k /run/origin base.raw
qed-ublk create -q --force --base "$address" disk.qed
device=$("${add[@]}" disk.qed)
first_byte
# Until the one connection is exchanged.
sleep 4
expect_status 0 cmp "$device" base.raw
expect_equal "what the log says of the origin" "" "$(said_of_base || true)"
qed-ublk del "$device"
pkill -x qemu-nbd
wait_until 20 eval '! pidof qemu-nbd >/dev/null'
rm disk.qed

step "over TCP, from a machine that is half a second away: four round trips"
another_machine
cable delay 1ms
far_origin file base.raw
qed-ublk create -q --base "nbd://$far_host/" disk.qed
# Milliseconds from the command to the byte, the better of two.
milliseconds() {
    local began best=999999 took
    for _ in 1 2; do
        began=${EPOCHREALTIME/[.,]/}
        device=$("${add[@]}" disk.qed)
        first_byte
        took=$(((${EPOCHREALTIME/[.,]/} - began) / 1000))
        if ((took < best)); then best=$took; fi
        qed-ublk del "$device"
    done
    echo "$best"
}
near=$(milliseconds)
cable delay 250ms
far=$(milliseconds)
echo "the first byte after $near ms, and from half a second away after $far ms"
expect_equal "round trips" 4 "$(((far - near + 250) / 500))"
expect_no_devices
