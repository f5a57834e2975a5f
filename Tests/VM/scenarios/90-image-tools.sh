# The image tools, ours and QEMU's, beside a device that is being served: who may do what with its image and the files behind
# it, that the disk and its image have the same bytes, and that an end under load loses no request.
# kernels: 6.12
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data

step "an overlay over an overlay over a raw base, with data in each"
truncate -s 32M base.raw
expect_status 0 qemu-io -f raw -c 'write -q -P 1 0 8M' base.raw
qed-ublk create middle.qed --backing base.raw --backing-format raw
expect_status 0 qed-ublk io middle.qed 'write -P 2 4M 1M' 'write -P 2 20M 64k'
qed-ublk create top.qed 48M --backing middle.qed --backing-format qed
device=$(qed-ublk add top.qed)
server=$(server_of 0)
xfs_io -d -c 'pwrite -q -S 3 5m 4k' -c 'pwrite -q -S 3 40m 1m' -c fsync "$device"

# qemu_refused COMMAND...: QEMU says that it does not get the lock.
qemu_refused() {
    local status=0 output
    output=$("$@" 2>&1) || status=$?
    if ((status == 0)) || [[ $output != *'Failed to get'*lock* ]]; then fail "QEMU was not refused ($status, $output): $*"; fi
}

step "QEMU gets neither the image nor what is behind it for writing, and reads the image with -U only"
qemu_refused qemu-io -f qed -c 'write 0 4k' top.qed
qemu_refused qemu-io -r -f qed -c 'read 0 4k' top.qed
qemu_refused qemu-img info top.qed
qemu_refused qemu-img check -f qed top.qed
qemu_refused qemu-img resize -q -f qed top.qed 64M
qemu_refused qemu-img create -q -f qed top.qed 1M
expect_output '^virtual size: 48 MiB' qemu-img info -U top.qed
expect_status 0 qemu-io -r -U -f qed -c 'read -q -P 2 4M 1M' top.qed
qemu_refused qemu-io -f qed -c 'write 0 4k' middle.qed
qemu_refused qemu-io -f raw -c 'write 0 4k' base.raw
qemu_refused qemu-img commit -f qed middle.qed
expect_status 0 qemu-io -r -f qed -c 'read -q -P 1 0 4M' middle.qed
expect_status 0 qemu-img check -f qed middle.qed

step "nor do our own tools, and they say which device has it"
held="in use by /dev/ublkb0 \(served by process $server\)"
before=$(fingerprint middle.qed base.raw)
for command in 'check' 'check -r all' 'compact' 'flatten' 'commit' 'map' 'measure'; do
    # An image that cannot be checked has the status of qemu-img.
    if [[ $command == check* ]]; then status=1; else status=3; fi
    # shellcheck disable=SC2086 # a command and its options
    expect_refusal "$status" "^qed-ublk: top.qed: $held" qed-ublk $command top.qed
done
expect_refusal 3 "^qed-ublk: (/.*/)?top.qed: $held" qed-ublk add top.qed
expect_refusal 3 "^qed-ublk: (/.*/)?top.qed: $held" qed-ublk add --foreground --read-only top.qed
expect_refusal 3 "^qed-ublk: top.qed: $held" qed-ublk resize top.qed 64M
expect_refusal 3 "^qed-ublk: top.qed: $held" qed-ublk create --force top.qed 1M
expect_refusal 3 "^qed-ublk: top.qed: $held" qed-ublk io top.qed 'read 0 4k'
expect_refusal 3 "^qed-ublk: top.qed: $held" qed-ublk convert top.qed copy
expect_refusal 2 "^qed-ublk: top.qed: $held" qed-ublk compare -f raw -F qed "$device" top.qed
expect_refusal 3 "^qed-ublk: (/.*/)?middle.qed: $held" qed-ublk add middle.qed
expect_refusal 3 "^qed-ublk: middle.qed: $held" qed-ublk io middle.qed 'write 0 4k'
expect_refusal 3 "^qed-ublk: middle.qed: $held" qed-ublk commit middle.qed
expect_refusal 3 "^qed-ublk: base.raw: $held" qed-ublk io -f raw base.raw 'write 0 4k'
expect_refusal 3 "^qed-ublk: base.raw: $held" qed-ublk resize -f raw base.raw 64M
[[ ! -e copy ]] || fail "a refused convert left a file"
expect_status 0 qed-ublk io middle.qed 'read -P 2 4M 1M'
expect_status 0 qed-ublk check middle.qed
expect_equal "the files behind it" "$before" "$(fingerprint middle.qed base.raw)"
# Headers are read without locks.
expect_output '^need check: ' qed-ublk info top.qed
expect_equal "the files of the chain" 'top.qed middle.qed base.raw' \
    "$(qed-ublk info --backing-chain --json top.qed | jq -r '.[].filename' | paste -sd ' ')"

step "with -U everything that only reads works, and sees what has been synced"
sync
expect_status 0 qed-ublk compare -U -f raw -F qed "$device" top.qed
for command in 'map' 'measure' 'check'; do expect_status 0 qed-ublk $command -U middle.qed; done
expect_status 0 qed-ublk map -U top.qed
expect_status 0 qed-ublk io -U top.qed 'read -P 3 40M 1M'
expect_status 0 qed-ublk bench -U -c 100 top.qed
expect_status 0 qed-ublk convert -U top.qed shared.raw
expect_status 0 cmp shared.raw "$device"
expect_status 0 qemu-img convert -U -f qed -O raw top.qed shared-by-qemu.raw
expect_status 0 cmp shared-by-qemu.raw "$device"
expect_equal "the device" live "$(qed-ublk list --json | jq -r '.[].state')"

step "a program that only wants to know, with -U, does not keep the device from its image"
qemu_holds 48 -r -U -f qed top.qed
xfs_io -d -c 'pwrite -q -S 4 0 64k' -c fsync "$device"
qed-ublk del "$device"
device=$(qed-ublk add top.qed)
expect_equal "what the server has open of its starter's files" '' "$(find "/proc/$(server_of 0)/fd" -lname '*/hold')"
exec 7>&-
wait
qed-ublk del "$device"
expect_no_devices

step "while QEMU has a file of the chain the sentence names that file and QEMU"
for file in top.qed middle.qed base.raw; do
    if [[ $file == *.raw ]]; then format=raw; else format=qed; fi
    if [[ $file == top.qed ]]; then size_mib=48; else size_mib=32; fi
    qemu_holds "$size_mib" -f "$format" "$file"
    expect_refusal 3 "^qed-ublk: (/.*/)?$file: in use by qemu-io \(process $holder\)" qed-ublk add top.qed
    expect_refusal 3 "^qed-ublk: (/.*/)?$file: in use by qemu-io \(process $holder\)" qed-ublk add --read-only top.qed
    expect_refusal 3 "^qed-ublk: $file: in use by qemu-io \(process $holder\)" qed-ublk convert top.qed copy
    exec 7>&-
    wait
done
expect_no_devices

step "a copy of the disk, of its image by either program: the same bytes"
device=$(qed-ublk add top.qed)
expect_status 0 dd if="$device" of=disk.raw bs=1M conv=sparse status=none
qed-ublk del "$device"
expect_status 0 qed-ublk convert --verify top.qed ours.raw
expect_status 0 qemu-img convert -f qed -O raw top.qed qemu.raw
expect_status 0 cmp disk.raw ours.raw
expect_status 0 cmp disk.raw qemu.raw
expect_status 0 qed-ublk convert -O qed top.qed copy.qed
device=$(qed-ublk add copy.qed)
expect_status 0 cmp disk.raw "$device"
expect_status 0 qed-ublk compare -f raw -F raw "$device" disk.raw
# A device is as good a source and target as a file.
expect_status 0 qed-ublk convert -f raw -O qed "$device" from-device.qed
truncate -s 48M zeros
expect_status 0 qed-ublk convert -n -f raw -O raw zeros "$device"
expect_status 0 cmp zeros "$device"
expect_status 0 qed-ublk convert -n -f qed -O raw top.qed "$device"
expect_status 0 cmp disk.raw "$device"
qed-ublk del "$device"
expect_status 0 qed-ublk compare copy.qed from-device.qed
expect_sound top.qed middle.qed copy.qed from-device.qed

step "grown while it was away, and served at its new size"
expect_status 0 qed-ublk resize top.qed +16M
device=$(qed-ublk add top.qed)
expect_equal "its size" $((64 << 20)) "$(blockdev --getsize64 "$device")"
expect_equal "zeros in what it gained" $((16 << 20)) "$(tail -c 16M "$device" | tr -dc '\0' | wc -c)"
expect_status 0 cmp -n $((48 << 20)) disk.raw "$device"
qed-ublk del "$device"
expect_sound top.qed

step "requests under way when the device is taken away are done or refused, and the image is sound"
for turn in 1 2 3; do
    device=$(qed-ublk add top.qed)
    fio --name=load --filename="$device" --rw=randwrite --bs=4k --size=64M --direct=1 --ioengine=io_uring --iodepth=32 \
        --time_based --runtime=60 --randseed="$turn" >load 2>&1 &
    load=$!
    # Or it would make a file of that name.
    wait_until 60 is_open "$device"
    sleep 1
    qed-ublk del --force "$device"
    wait "$load" || true
    expect_no_devices
    expect_sound top.qed
done
