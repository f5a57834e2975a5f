# Without copies between the disk's requests and the image: fio finds what it wrote, on a plain image and on an overlay,
# between discards, with buffers that begin anywhere in a page, and over servers that are killed or leave. What cannot
# go without a copy goes with one, and nobody notices.
# kernels: 7
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data

# verify OPTION...: fio writes to 32 MiB of the device from an offset, with checksums, and reads them back.
verify() {
    local status=0
    fio --name=verify --filename=/dev/ublkb0 --ioengine=io_uring --direct=1 --size=32M --verify=crc32c \
        --verify_fatal=1 --verify_state_save=0 --randseed=7 --output=fio.log "$@" || status=$?
    ((status == 0)) || { cat fio.log >&2 && fail "fio ended with status $status: $*"; }
}

# remove_and_compare CHECK: the device goes; its image passes the check, and QEMU reads in it what the device read.
remove_and_compare() {
    dd if=/dev/ublkb0 of=device.raw bs=1M iflag=direct status=none
    qed-ublk del 0
    expect_no_devices
    "$1" image.qed
    expect_output identical qemu-img compare -f qed -F raw image.qed device.raw
    rm image.qed device.raw
}

zero_copy() { qed-ublk list --json | jq '.[0]."zero-copy"'; }

# copies COMMAND...: how often the server copies data of requests while the command runs.
copies() {
    local server tracer
    server=$(server_of 0)
    strace -f -q -e trace=pread64,pwrite64 -o trace -p "$server" &
    tracer=$!
    wait_until 20 eval "grep -q 'TracerPid:[[:space:]]*$tracer' /proc/$server/status"
    "$@" >&2
    kill -INT "$tracer"
    wait "$tracer" || true
    grep -c 'p\(read\|write\)64(' trace || true
}

step "a plain image: requests of all sizes, on four queues"
qed-ublk create image.qed 256M
qed-ublk add -q 4 image.qed
expect_equal "what list says without the option" true "$(zero_copy)"
verify --rw=randwrite --bsrange=4k-256k --blockalign=4k --iodepth=32 --fsync=64 --io_size=24M
block=$(blockdev --getss /dev/ublkb0)
verify --offset=64M --rw=randrw --rwmixwrite=70 --bssplit="$block/40:4k/40:16k/20" --blockalign="$block" --iodepth=8 \
    --io_size=2M
# Larger than a request can be.
verify --offset=128M --rw=write --bs=1M --iodepth=8 --io_size=32M

step "allocated clusters are read and overwritten without copies; holes are not"
expect_equal "copies" 0 "$(copies verify --offset=128M --rw=randwrite --bs=16k --iodepth=16 --io_size=8M)"
dd if=/dev/ublkb0 of=zeros bs=64k skip=3200 count=4 iflag=direct status=none
expect_equal "a hole" 0 "$(tr -d '\0' <zeros | wc -c)"
(($(copies dd if=/dev/ublkb0 of=/dev/null bs=64k skip=3200 count=4 iflag=direct status=none) > 0)) ||
    fail "reads of a hole without a copy: the trace shows nothing"

step "memory for copies comes with the load, and goes"
memory_kib() { awk '/^Anonymous:/ { print $2 }' "/proc/$(server_of 0)/smaps_rollup"; }
is_back() { (($(memory_kib) <= before + 256)); }
before=$(memory_kib)
expect_status 0 fio --name=holes --filename=/dev/ublkb0 --ioengine=io_uring --direct=1 --offset=200M --rw=randread --bs=64k \
    --size=40M --iodepth=64 --output=fio.log
echo "          $before KiB, then $(memory_kib)"
wait_until 60 is_back

step "buffers that begin anywhere in a page"
verify --offset=64M --rw=randrw --bsrange=4k-64k --blockalign=4k --iodepth=8 --iomem_align=512 --io_size=8M
xfs_io -c 'pwrite -q -S 3 210m 3m' -c 'fsync' -c 'pwrite -q -S 4 215043k 5' -c 'fsync' /dev/ublkb0
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/ublkb0 of=fives bs=1M skip=210 count=1 status=none
expect_equal "bytes written through the page cache" 5 "$(tr -dc '\004' <fives | wc -c)"

step "QEMU reads the same"
remove_and_compare expect_sound

step "an overlay: copies on write, with discards beside them"
head -c 96M /dev/urandom >base.raw
before=$(fingerprint base.raw)
qed-ublk create --backing base.raw --backing-format raw image.qed 256M
qed-ublk add --zero-copy on -q 4 image.qed
expect_status 0 cmp -n $((96 << 20)) /dev/ublkb0 base.raw
(for turn in {1..20}; do
    blkdiscard -o $(((128 + turn) << 20)) -l $((turn << 16)) /dev/ublkb0 || echo "$turn" >>errors
done) &
trimmer=$!
verify --rw=randrw --rwmixwrite=60 --bsrange=4k-128k --blockalign=4k --iodepth=32 --fsync=50 --io_size=16M
verify --offset=64M --rw=randrw --bs=64k --iodepth=16 --io_size=8M
wait "$trimmer"
[[ ! -e errors ]] || fail "discards failed"
expect_equal "the base" "$before" "$(fingerprint base.raw)"

step "the server is killed under it, twice, and leaves once; the device keeps to zero copy"
fio --name=verify --filename=/dev/ublkb0 --ioengine=io_uring --direct=1 --rw=randwrite --bsrange=4k-64k \
    --blockalign=4k --iodepth=16 --size=128M --io_size=40M --rate_iops=400 --verify=crc32c --verify_fatal=1 \
    --verify_state_save=0 --output=fio.log &
writer=$!
for turn in {1..3}; do
    sleep 0.4
    server=$(server_of 0)
    kill_supervisors
    if ((turn < 3)); then kill -KILL "$server"; else kill -TERM "$server"; fi
    wait_until 40 process_is_gone "$server"
    expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
    expect_equal "what list says" true "$(zero_copy)"
done
status=0
wait "$writer" || status=$?
((status == 0)) || { cat fio.log >&2 && fail "fio ended with status $status"; }
remove_and_compare expect_undamaged

step "a file system, on an image in a tmpfs"
mkdir memory && mount -t tmpfs none memory
qed-ublk create memory/image.qed 192M
qed-ublk add memory/image.qed
expect_equal "what list says without the option" false "$(zero_copy)"
qed-ublk del 0
qed-ublk add --zero-copy on -q 2 memory/image.qed
expect_status 0 mkfs.ext4 -q /dev/ublkb0
mount -o discard /dev/ublkb0 /mnt
cp -a /usr/lib/modules /mnt/first
cp -a /usr/lib/modules /mnt/second
rm -r /mnt/first
cp -a /usr/lib/modules /mnt/third
umount /mnt
qed-ublk del 0
expect_sound memory/image.qed
qed-ublk add --zero-copy off memory/image.qed
expect_equal "what list says" false "$(zero_copy)"
expect_status 0 e2fsck -fn /dev/ublkb0
mount /dev/ublkb0 /mnt
for copy in second third; do expect_status 0 diff -rq /usr/lib/modules "/mnt/$copy"; done
umount /mnt
qed-ublk del 0
expect_no_devices
