# The machine is what the other scenarios take for granted: a kernel with ublk, and the tools.
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
