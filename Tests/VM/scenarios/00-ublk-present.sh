# The machine is what the other scenarios take for granted: a kernel with ublk, and the tools. The smallest disk comes and
# goes.
# vm: --file .build/qed-ublk-null --file .build/qed-ublk-unprivileged
source lib.sh

step "the ublk driver is loaded"
expect_output '^ublk_drv ' lsmod
[[ -c /dev/ublk-control ]] || fail "no /dev/ublk-control"

step "the tools run"
expect_output '^fio-' fio --version
expect_output 'mke2fs' mkfs.ext4 -V
expect_output 'mkfs.xfs' mkfs.xfs -V
expect_output 'qemu-img version' qemu-img --version
expect_output 'qemu-nbd' qemu-nbd --version
expect_output '^jq-' jq --version

step "QEMU makes a QED image and finds it sound"
expect_status 0 qemu-img create -q -f qed /data/image.qed 64M
expect_status 0 qemu-io -f qed -c 'write -P 0x5a 1M 1M' /data/image.qed
expect_output 'No errors were found' qemu-img check -f qed /data/image.qed

step "fio writes and verifies on the data disk"
expect_status 0 fio --name=check --filename=/data/fio --size=4M --rw=randwrite --bs=4k --ioengine=io_uring --direct=1 \
    --verify=crc32c --do_verify=1
rm /data/image.qed /data/fio

step "file systems can be made and mounted on a RAM disk"
expect_status 0 modprobe brd rd_nr=1 rd_size=409600
for type in ext4 xfs; do
    expect_status 0 "mkfs.$type" -q /dev/ram0
    expect_status 0 mount -t "$type" /dev/ram0 /mnt
    expect_output "$type" findmnt -n /mnt
    expect_status 0 umount /mnt
    expect_status 0 wipefs -qa /dev/ram0
done

step "a disk that keeps nothing is served, with a queue for each processor, and goes with its server"
qed-ublk-null --queues 2 --depth 64 >null.out 2>&1 &
server=$!
timeout 30 bash -c 'until grep -q /dev/ublkb null.out; do sleep 0.05; done' || fail "$(<null.out)"
device=$(<null.out)
expect_equal "queues of the disk" 2 "$(find "/sys/block/${device#/dev/}/mq" -mindepth 1 -maxdepth 1 | wc -l)"
for load in randread randwrite; do
    expect_status 0 fio --name=null --filename="$device" --rw="$load" --bs=4k --direct=1 --ioengine=io_uring --iodepth=32 \
        --runtime=1 --time_based --output-format=json --output=null.json
    echo "$load: $(jq '.jobs[0] | .read.iops + .write.iops | floor' null.json) requests a second"
done
kill -TERM "$server"
wait "$server" || fail "status $? of the server that was told to end"
[[ ! -e $device ]] || fail "$device is still there"

step "a device of a user without rights has neither recovery nor zero copy, and is not his to remove: docs/security.md"
chmod 666 /dev/ublk-control
as_nobody() { setpriv --reuid 1000 --regid 1000 --clear-groups "$@"; }
zero_copy="ADD_DEV: Invalid argument"
if [[ $VM_KERNEL == 6.12 ]]; then zero_copy="taken away,DEL_DEV: Permission denied"; fi
expect_equal "what the driver says" "recovery: taken away,DEL_DEV: Permission denied,zero copy: $zero_copy" \
    "$(as_nobody qed-ublk-unprivileged | paste -sd ,)"
# They stay: even root has to name them by nodes, and this is the end of the machine.
qed-ublk create /data/nobody.qed 64M
chmod 666 /data/nobody.qed
expect_status 5 as_nobody qed-ublk add /data/nobody.qed
chmod 600 /dev/ublk-control
