# The same disk image has the same partitions whatever file system it lies on: on btrfs, on tmpfs and on a disk with sectors of
# 4096 bytes too the device has blocks of 512, unless the image's partition table was made for others. Writes of single
# sectors, many at once and neighbours in the same 4096 bytes, over servers that are killed. The nodes of the partitions
# are there when add returns.
# kernels: 7
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
modprobe loop
modprobe btrfs
fdisk() { sfdisk -q --no-reread --no-tell-kernel "$@"; }

step "disk images: partitioned for 512, and for 4096, with a file system in each"
truncate -s 96M small.raw
printf 'label: gpt\nstart=2048, size=65536\nstart=67584, size=65536\n' | fdisk small.raw
mkfs.ext4 -q -F -E offset=$((2048 * 512)) small.raw 32M
qemu-img convert -f raw -O qed small.raw small.qed
# sfdisk takes the size of blocks from a device.
truncate -s 96M large.raw
loop=$(losetup --show -f -b 4096 large.raw)
printf 'label: gpt\nstart=256, size=8192\n' | fdisk "$loop"
losetup -d "$loop"
qemu-img convert -f raw -O qed large.raw large.qed

step "three places whose direct I/O takes 4096 bytes"
truncate -s 400M btrfs.disk
mkfs.btrfs -q btrfs.disk
mkdir btrfs memory sectors
mount -o loop btrfs.disk btrfs
mount -t tmpfs none memory
truncate -s 400M sectors.disk
loop=$(losetup --show -f -b 4096 sectors.disk)
expect_equal "sectors of the disk" 4096 "$(blockdev --getss "$loop")"
mkfs.ext4 -q "$loop"
mount "$loop" sectors

# block_and_access: what list says of the device.
block_and_access() { qed-ublk list --json | jq -c '.[0] | [."block-size", ."direct-io"]'; }

# The first bytes of the sectors of 4096 bytes at 64 MiB.
sectors_at() {
    dd if=/dev/ublkb0 bs=512 skip=$((64 << 11)) count=8 iflag=direct status=none |
        od -An -v -tx1 -w512 | cut -c 2-3 | paste -sd ' '
}

for place in btrfs memory sectors; do
    step "$place: partitions made for 512 are there, at once"
    cp small.qed large.qed "$place"
    expect_output '^block size: 512 \(the usual size\)$' qed-ublk info "$place/small.qed"
    expect_output '^access: buffered \(direct I/O on its file takes multiples of 4096 bytes, so only with --block-size 4096\)$' \
        qed-ublk info "$place/small.qed"
    device=$(qed-ublk add -q 4 "$place/small.qed")
    [[ -b ${device}p1 && -b ${device}p2 ]] || fail "no nodes of partitions when add returns: $(ls /dev/ublkb*)"
    expect_equal "blocks and access" '[512,false]' "$(block_and_access)"
    expect_output ' 512 +buffered +0 ' qed-ublk list -v
    expect_equal "logical block" 512 "$(blockdev --getss "$device")"
    expect_equal "physical block" 4096 "$(blockdev --getpbsz "$device")"
    expect_equal "start of the first" 2048 "$(</sys/class/block/ublkb0p1/start)"
    expect_status 0 e2fsck -fn "${device}p1"

    step "$place: sectors on their own"
    for sector in 1 3 4 6; do
        xfs_io -d -c "pwrite -q -b 512 -S $sector $(((64 << 20) + sector * 512)) 512" "$device"
    done
    expect_equal "sectors" "00 01 00 03 04 00 06 00" "$(sectors_at)"
    # Every job has each fourth sector; their requests meet in the same 4096 bytes of the file. A job does not write to a sector
    # twice at once: which of the two is last there is nobody's to say.
    options=(--filename="${device}p2" --ioengine=io_uring --direct=1 --rw=randwrite --bs=512 --iodepth=8 --verify=crc32c
        --verify_fatal=1 --verify_state_save=0 --output=fio.log --blockalign=2048 --size=1M --io_size=128k
        --serialize_overlap=1)
    jobs=()
    for job in 0 1 2 3; do jobs+=(--name="job$job" --offset=$((job * 512))); done
    expect_status 0 fio "${options[@]}" "${jobs[@]}"

    step "$place: the machine has few dirty pages to give, which are the disk's and the image's"
    ratios=("$(</proc/sys/vm/dirty_background_ratio)" "$(</proc/sys/vm/dirty_ratio)")
    echo $((1 << 20)) >/proc/sys/vm/dirty_background_bytes
    echo $((2 << 20)) >/proc/sys/vm/dirty_bytes
    expect_status 0 timeout 300 dd if=/dev/urandom of="${device}p2" bs=64k seek=320 count=128 conv=fsync status=none
    echo "${ratios[1]}" >/proc/sys/vm/dirty_ratio
    echo "${ratios[0]}" >/proc/sys/vm/dirty_background_ratio

    step "$place: the server is killed under it, and the next one goes on"
    fio --name=verify --filename="${device}p2" --ioengine=io_uring --direct=1 --rw=randwrite --bs=512 --iodepth=8 --offset=16M \
        --size=4M --io_size=1M --rate_iops=700 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output=fio.log &
    writer=$!
    for turn in 1 2; do
        sleep 0.5
        kill_server
        expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
        [[ -b ${device}p1 && -b ${device}p2 ]] || fail "no nodes of partitions when recover returns"
        expect_equal "blocks and access" '[512,false]' "$(block_and_access)"
    done
    status=0
    wait "$writer" || status=$?
    ((status == 0)) || { cat fio.log >&2 && fail "fio ended with status $status"; }
    expect_equal "sectors" "00 01 00 03 04 00 06 00" "$(sectors_at)"
    dd if="$device" of=device.raw bs=1M iflag=direct status=none
    qed-ublk del 0
    expect_no_devices
    expect_undamaged "$place/small.qed"
    expect_output identical qemu-img compare -f qed -F raw "$place/small.qed" device.raw

    step "$place: blocks of 4096 past the page cache, asked for"
    device=$(qed-ublk add -b 4096 "$place/small.qed")
    expect_equal "blocks and access" '[4096,true]' "$(block_and_access)"
    expect_equal "sectors" "00" \
        "$(dd if="$device" bs=4096 skip=16384 count=1 iflag=direct status=none | od -An -v -tx1 -N1 | tr -d ' ')"
    expect_status 0 fio --name=verify --filename="$device" --ioengine=io_uring --direct=1 --rw=randwrite --bs=4k \
        --offset=64M --size=4M --iodepth=8 --verify=crc32c --verify_fatal=1 --verify_state_save=0 --output=fio.log
    kill_server
    expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
    expect_equal "blocks and access" '[4096,true]' "$(block_and_access)"
    qed-ublk del 0
    expect_sound "$place/small.qed"

    step "$place: the commands on files"
    expect_status 0 qed-ublk io "$place/small.qed" 'write -P 9 33554944 512' 'read -P 9 33554944 512' 'flush'
    expect_refusal 64 'direct I/O on .*small.qed takes multiples of 4096 bytes' qed-ublk bench -t none -s 512 "$place/small.qed"
    expect_status 0 qed-ublk bench -t none -c 100 -s 4096 "$place/small.qed"
    expect_status 0 qed-ublk check "$place/small.qed"
    expect_status 0 qed-ublk resize "$place/small.qed" $(((96 << 20) + 512))
    # Not of whole blocks of 4096 any more.
    expect_output '^access: buffered \(direct I/O on its file takes multiples of 4096 bytes\)$' qed-ublk info "$place/small.qed"
    expect_refusal 2 'is no multiple of the block size 4096' qed-ublk add -b 4096 "$place/small.qed"
    expect_sound "$place/small.qed"

    step "$place: a partition table made for 4096 gets that"
    expect_output "^block size: 4096 \(the image's partition table was made for them\)$" qed-ublk info "$place/large.qed"
    device=$(qed-ublk add "$place/large.qed")
    expect_equal "blocks and access" '[4096,true]' "$(block_and_access)"
    [[ -b ${device}p1 ]] || fail "no node of the partition when add returns"
    expect_equal "start of the first, in sectors of 512" 2048 "$(</sys/class/block/ublkb0p1/start)"
    qed-ublk del 0
done
expect_no_devices

step "the nodes of partitions are there when add returns, again and again"
for turn in {1..20}; do
    device=$(qed-ublk add small.qed)
    [[ -b ${device}p1 && -b ${device}p2 ]] || fail "turn $turn: $(echo /dev/ublkb*)"
    qed-ublk del 0
done
expect_no_devices
