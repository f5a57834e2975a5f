# A device comes back with the files that it was made of, or not at all: on a file system that gets another number with each
# mount, when another file has taken the image's place, when the record is another device's. A log is missed where it must
# exist, and not believed after a power cut, though it lay on a disk.
# vm: --disk 3G --file Tests/VM/scenarios/devices.bash
# kernels: 7
source lib.sh
source devices.bash
modprobe -a loop btrfs
cd /data

# Bytes of the value 7 in the first 4 MiB of the device.
count_sevens() { dd if="$1" bs=1M count=4 iflag=direct status=none | tr -dc '\007' | wc -c; }

if ((VM_BOOT == 1)); then
    step "an image on btrfs, a kill, and a remount that gives the file system another device number"
    mkdir /one /two
    for name in one two; do
        truncate -s 512M $name.fs
        mkfs.btrfs -q $name.fs
    done
    mount -o loop one.fs /one
    before=$(stat -c %d /one)
    qed-ublk create /one/waits.qed 64M
    qed-ublk create /one/ends.qed 64M
    for name in waits ends; do
        options=()
        if [[ $name == ends ]]; then options=(--no-recovery); fi
        device=$(qed-ublk add "${options[@]}" /one/$name.qed)
        xfs_io -d -c 'pwrite -q -b 1m -S 7 0 4m' "$device"
    done
    kill_servers
    wait_until 40 eval '[[ ! -e /dev/ublkb1 ]]'
    wait_until 40 umount /one
    mount -o loop two.fs /two
    mount -o loop one.fs /one
    [[ $(stat -c %d /one) != "$before" ]] || fail "the device number is the same, so this proves nothing"
    content=$(fingerprint /one/waits.qed /one/ends.qed)
    expect_refusal 3 'belongs to /dev/ublkb0, which waits' qed-ublk resize /one/waits.qed 128M
    expect_refusal 3 'has left writes that are not in the image yet' qed-ublk resize /one/ends.qed 128M
    expect_refusal 3 'has left writes that are not in the image yet' qed-ublk create --force /one/ends.qed 128M
    expect_equal "the images" "$content" "$(fingerprint /one/waits.qed /one/ends.qed)"
    expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
    expect_equal "bytes that were answered" $((4 << 20)) "$(count_sevens /dev/ublkb0)"

    step "a log that is somewhere else is missed"
    mkdir /run/elsewhere
    # The other log is that of device 0.
    for log in /run/qed-ublk/image-*.log; do mv "$log" /run/elsewhere; done
    expect_refusal 3 'its log is gone; look for the log' qed-ublk add --id 5 /one/ends.qed
    mv /run/elsewhere/* /run/qed-ublk
    device=$(qed-ublk add --id 5 /one/ends.qed)
    expect_equal "bytes that were answered" $((4 << 20)) "$(count_sevens "$device")"
    for number in 5 1 0; do qed-ublk del $number; done
    expect_sound /one/waits.qed /one/ends.qed
    umount /one
    umount /two
    rm one.fs two.fs
    expect_no_devices

    step "another file in the image's place, under a mounted file system"
    qed-ublk create image.qed 64M
    qed-ublk create backup.qed 64M
    device=$(qed-ublk add image.qed)
    mkfs.ext4 -q "$device"
    mount "$device" /mnt
    head -c 5000000 /dev/urandom >/mnt/file
    sync
    sum=$(md5sum </mnt/file)
    kill_server
    expect_refusal 3 'belongs to /dev/ublkb0, which waits' qed-ublk create --force image.qed 64M
    expect_refusal 3 'belongs to /dev/ublkb0, which waits' qed-ublk convert --force -O qed backup.qed image.qed
    expect_refusal 3 'belongs to /dev/ublkb0, which waits' qed-ublk io image.qed 'write 0 4k'
    mv image.qed aside.qed
    mv backup.qed image.qed
    content=$(fingerprint image.qed)
    for command in "recover 0" "recover --all"; do
        # shellcheck disable=SC2086
        expect_refusal 2 'image.qed: is not the file that /dev/ublkb0 was made of' qed-ublk $command
    done
    for command in recover add; do
        expect_refusal 3 'put that file back in its place' qed-ublk $command image.qed
    done
    expect_equal "the other file" "$content" "$(fingerprint image.qed)"
    mv image.qed backup.qed
    mv aside.qed image.qed
    expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
    echo 3 >/proc/sys/vm/drop_caches
    expect_equal "the file" "$sum" "$(md5sum </mnt/file)"

    step "an image that was left well belongs to its device as well"
    server=$(server_of 0)
    kill_supervisors
    kill -TERM "$server"
    wait_until 40 process_is_gone "$server"
    expect_refusal 3 'belongs to /dev/ublkb0, which waits' qed-ublk resize image.qed 128M
    expect_refusal 1 'belongs to /dev/ublkb0, which waits' qed-ublk check -r all image.qed
    qed-ublk recover 0
    expect_equal "the file" "$sum" "$(md5sum </mnt/file)"
    umount /mnt
    qed-ublk del 0
    expect_no_devices

    step "the backing file of a device that waits"
    truncate -s 64M base.raw
    qed-ublk create -b base.raw -F raw overlay.qed 2>/dev/null ||
        qed-ublk create --backing base.raw --backing-format raw overlay.qed
    qed-ublk add overlay.qed
    kill_server
    cp base.raw other.raw
    mv base.raw aside.raw
    mv other.raw base.raw
    expect_refusal 2 'base.raw: is not the file that /dev/ublkb0 was made of' qed-ublk recover 0
    mv aside.raw base.raw
    expect_refusal 3 'belongs to /dev/ublkb0, which waits' qed-ublk convert --force -f raw backup.qed base.raw
    qed-ublk create --backing base.raw --backing-format raw second.qed
    expect_refusal 3 'base.raw: belongs to /dev/ublkb0, which waits' qed-ublk commit second.qed
    qed-ublk recover 0
    qed-ublk del 0
    expect_no_devices

    step "a record whose device is gone, and another one that has its number"
    qed-ublk add image.qed
    cp /run/qed-ublk/ublk0.json record
    qed-ublk del 0
    export QED_UBLK_RUNTIME_DIR=/run/another
    qed-ublk add --id 0 backup.qed
    xfs_io -d -c 'pwrite -q -b 1m -S 7 0 4m' /dev/ublkb0
    kill_server
    unset QED_UBLK_RUNTIME_DIR
    cp record /run/qed-ublk/ublk0.json
    expect_refusal 4 . qed-ublk recover 0
    expect_equal "recovered" '' "$(qed-ublk recover --all)"
    for device in 0 --all; do
        cp record /run/qed-ublk/ublk0.json
        if [[ $device == 0 ]]; then
            expect_refusal 4 'that of an earlier device' qed-ublk del 0
        else
            qed-ublk del --all
        fi
        [[ ! -e /run/qed-ublk/ublk0.json ]] || fail "del $device left the stale record"
        [[ -b /dev/ublkb0 ]] || fail "with a stale record, del $device took another program's device away"
    done
    export QED_UBLK_RUNTIME_DIR=/run/another
    qed-ublk recover 0
    expect_equal "bytes that were answered" $((4 << 20)) "$(count_sevens /dev/ublkb0)"
    qed-ublk del 0
    unset QED_UBLK_RUNTIME_DIR
    expect_no_devices

    step "the log on a disk, and a power cut"
    export QED_UBLK_RUNTIME_DIR=/data/run
    qed-ublk create cut.qed 64M
    qed-ublk add cut.qed
    expect_output 'is on a disk, so the server may have to wait' cat /data/run/ublk0.log
    xfs_io -d -c 'pwrite -q -b 1m -S 7 0 4m' /dev/ublkb0
    ls /data/run/image-*.log >/dev/null
    sync -f /data
    power_cut
fi

step "after it the log is still there, and nobody believes it"
export QED_UBLK_RUNTIME_DIR=/data/run
old=$(ls /data/run/image-*.log)
[[ -s $old ]] || fail "there is no log, so this proves nothing"
touch /data/run/image-00000000000000000000000000000000.log
# A log of that boot of another image.
cp "$old" /data/run/image-11111111111111111111111111111111.log
qed-ublk add cut.qed
if grep 'unwritten changes' /data/run/ublk0.log; then fail "the log of another boot was replayed"; fi
[[ ! -e /data/run/image-11111111111111111111111111111111.log ]] || fail "an old log stays for ever"
[[ -e /data/run/image-00000000000000000000000000000000.log ]] || fail "a file that is no log was removed"
qed-ublk del 0
expect_sound cut.qed
