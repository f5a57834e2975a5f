# An image on a disk that zeroes space when it is told to: with Linux 6.17 what is reserved counts as written there, as the
# file system shows; before, and on other disks, it does not. Either way every block is found again, also after a kill and
# where the disk becomes full.
# kernels: 6.12
# vm: --memory 3072 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/fio-verify.bash
source lib.sh
source devices.bash
source fio-verify.bash

# on_disk FILE_SYSTEM CAN
on_disk() {
    step "$1, on a disk that $( (($2)) && echo can || echo cannot)"
    expect_status 0 "mkfs.$1" -q /dev/sda
    mount /dev/sda /mnt
    image=/mnt/image.qed
    qed-ublk create "$image" 256M
    device=$(qed-ublk add "$image")
    expect_status 0 xfs_io -d -c 'pwrite -q -S 120 0 4k' -c fsync "$device"
    # Of the first chunk, 8 MiB. Later ones are not zeroed where that took long.
    unwritten=$(filefrag -v "$image" | awk '/unwritten/ && $2 + 0 < 2048 { count++ } END { print count + 0 }')
    if [[ $2 == 1 && $(uname -r) == 7.* ]]; then
        expect_equal "extents that are reserved only" 0 "$unwritten"
    else
        ((unwritten > 0)) || fail "nothing is reserved: $(filefrag -v "$image")"
    fi
    expect_equal "the first cluster" "$(printf 'x%.0s' {1..4096})" "$(head -c 64k "$device" | tr -d '\0')"

    expect_status 0 run_fio "$device" 512 --do_verify=0
    kill_server
    expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
    expect_status 0 run_fio "$device" 512 --verify_only=1

    # There is space for less than a chunk, and then for nothing: what this scenario itself writes is elsewhere.
    fallocate -l $(($(stat -f -c '%a * %S' /mnt) - (4 << 20))) /mnt/ballast
    expect_status 1 dd if=/dev/urandom of="$device" bs=1M seek=192 count=64 oflag=direct
    expect_status 1 dd if=/dev/zero of=/mnt/rest bs=64k oflag=direct
    expect_status 1 dd if=/dev/zero of=/mnt/rest bs=1k oflag=append conv=notrunc
    expect_status 0 run_fio "$device" 512 --verify_only=1
    rm -f /mnt/ballast /mnt/rest
    expect_status 0 dd if=/dev/urandom of="$device" bs=1M seek=192 count=64 oflag=direct
    qed-ublk del 0
    expect_no_devices
    expect_sound "$image"
    umount /mnt
    wipefs -qa /dev/sda
}

modprobe sd_mod
for can in 1 0; do
    modprobe scsi_debug dev_size_mb=600 lbpu=1 lbpws=$can lbpws10=0 lbprz=1 delay=0 ndelay=0
    wait_until 20 test -b /dev/sda
    on_disk ext4 $can
    if ((can)); then on_disk xfs $can; fi
    modprobe -r scsi_debug
done
