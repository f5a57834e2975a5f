# An overlay whose base another machine has, behind a network that is slow and loses packets: what is read and written, an origin
# that is killed, a cable that is pulled, and a server that is killed while it fetches. The same on every kernel.
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/fio-verify.bash
# vm: --file Tests/VM/scenarios/origins.bash
source lib.sh
source devices.bash
source fio-verify.bash
source origins.bash
cd /data
make_base 20
another_machine
cable delay 10ms loss 1%
mkdir exports
mv base.raw exports/
base=exports/base.raw
far_origin file dir=exports
address="nbd://$far_host/base.raw"
add=(qed-ublk add --copy-on-read --base-allow "nbd://$far_host/*")
head -c 4M /dev/urandom >own

step "one of its exports is the base; another name, another host and another port are refused"
expect_refusal 1 "nbd://$far_host/other.raw: cannot be used as a base" qed-ublk create --base "nbd://$far_host/other.raw" disk.qed
expect_refusal 1 'cannot be used as a base: .*refused' qed-ublk create --base "nbd://$far_host:1/base.raw" disk.qed
[[ ! -e disk.qed ]] || fail "an image was left behind"
qed-ublk create --base "$address" disk.qed
expect_refusal 2 'a base elsewhere, which an image may name only where --base-allow or' \
    qed-ublk add --base-allow 'nbd://10.84.0.3/*' disk.qed

step "fio writes, and finds what it has written, beside an origin that is killed and comes back"
device=$("${add[@]}" disk.qed)
origin_comes_and_goes 2 0.5 far_origin file dir=exports
run_fio "$device" 512
origin_stays
run_fio "$device" 512 --verify_only=1
qed-ublk del "$device"
expect_sound disk.qed
expect_status 0 qed-ublk check disk.qed
rm disk.qed

# reader_waits PLACE, reader_is_answered PLACE: two MiB that only the base has are asked for, and nobody is there to give them;
# somebody is again.
reader_waits() {
    dd if="$device" of=late bs=1M skip="$1" count=2 iflag=direct status=none &
    reader=$!
    sleep 1
    [[ -d /proc/$reader ]] || fail "what only the base has was read without it"
}
reader_is_answered() {
    wait "$reader"
    expect_status 0 cmp late <(dd if="$base" bs=1M skip="$1" count=2 status=none)
    wait_until 30 eval '[[ $(said_of_base) == *"is back" ]]'
}
# local_data_is_used PLACE: MiB 120 of the disk, which the image has, is read, and what fits clusters is written elsewhere.
local_data_is_used() {
    timeout 20 dd if="$device" bs=1M skip=120 count=4 iflag=direct status=none | cmp - own
    timeout 20 dd if=own of="$device" bs=1M seek="$1" oflag=direct conv=fsync status=none
    timeout 20 dd if="$device" bs=1M skip="$1" count=4 iflag=direct status=none | cmp - own
    dd if=own of=expected bs=1M seek="$1" conv=notrunc status=none
}

step "a file system of the base is mounted, read and written"
qed-ublk create --base "$address" disk.qed
device=$("${add[@]}" disk.qed)
mount "$device" /mnt
expect_status 0 cmp /mnt/text <(seq 200000)
seq 100000 >/mnt/monday
umount /mnt
mount -o ro "$device" /mnt
expect_status 0 cmp /mnt/monday <(seq 100000)
umount /mnt
qed-ublk del "$device"
expect_sound disk.qed
rm disk.qed

step "the origin is killed: what the image has is used, what only the base has is waited for, and comes when it is back"
qed-ublk create --base "$address" disk.qed
device=$("${add[@]}" disk.qed)
cp "$base" expected
dd if=own of="$device" bs=1M seek=120 oflag=direct status=none
dd if=own of=expected bs=1M seek=120 conv=notrunc status=none
origin_dies
reader_waits 8
local_data_is_used 130
wait_until 20 eval '[[ $(said_of_base) == "is away" ]]'
far_origin file dir=exports
reader_is_answered 8

step "the cable is pulled, so that nobody says anything: the same"
cable loss 100%
reader_waits 16
local_data_is_used 140
wait_until 30 eval '[[ $(said_of_base) == "is away is back is away" ]]'
local_data_is_used 150
expect_equal "what status says" away "$(qed-ublk status --json "$device" | jq -r '."base-state"')"
cable delay 10ms loss 1%
reader_is_answered 16

step "the server is killed while it fetches from an origin that is further away; the next one goes on, and all is there"
cable delay 100ms loss 1%
before=$(stat -c %b disk.qed)
dd if="$device" of=late bs=4M skip=7 count=15 iflag=direct status=none &
reader=$!
# Some of it is the image's, and the rest on its way.
wait_until 20 eval '(($(stat -c %b disk.qed) > '"$before"'))'
kill_server
[[ -d /proc/$reader ]] || fail "all was fetched before the server was killed"
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
# The rest only has to be right.
cable delay 1ms
wait "$reader"
expect_status 0 cmp late <(dd if="$base" bs=4M skip=7 count=15 status=none)
# In large pieces: those that the page cache reads ahead would be as many round trips.
dd if="$device" bs=4M iflag=direct status=none | cmp - expected
origin_dies
echo 3 >/proc/sys/vm/drop_caches
expect_status 0 cmp "$device" expected
qed-ublk del "$device"
expect_no_devices
far_origin file dir=exports
expect_undamaged disk.qed
expect_status 0 qed-ublk compare --base-allow '*' -f qed -F raw disk.qed expected
