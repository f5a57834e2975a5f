# The file system under the image is full, and the disk under it fails: the writer is told, reads and the rest go on, the
# image stays sound, and everything works again when the fault is gone; after a failed sync, when the image has been
# opened again.
# kernels: 6.12
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
export DM_DISABLE_UDEV=1
modprobe -a loop dm-flakey
mkdir /tmp/below

# fails_with SENTENCE COMMAND...: the command fails, and says so.
fails_with() {
    local sentence=$1 status=0
    shift
    "$@" >/dev/null 2>/tmp/errors || status=$?
    ((status != 0)) || fail "succeeded: $*"
    grep -q "$sentence" /tmp/errors || fail "$*: $(</tmp/errors)"
}

# write_blocks VALUE OFFSET BYTES: past the page cache; xfs_io tells of errors, but not with its status.
write_blocks() {
    expect_equal "what is said of a write" '' "$(xfs_io -d -c "pwrite -q -b 1m -S $1 $2 $3" "$device" 2>&1 || true)"
}
expect_blocks() {
    local found
    found=$(dd if="$device" bs=256k iflag=direct,skip_bytes,count_bytes skip="$2" count="$3" status=none |
        tr -dc "\\$(printf %03o "$1")" | wc -c)
    expect_equal "bytes with the value $1 at $2" "$3" "$found"
}
flush() { expect_equal "what is said of a flush" '' "$(xfs_io -c fsync "$device" 2>&1 || true)"; }

step "the file system under the image is full: whoever needs space is told so"
truncate -s 128M /data/small
expect_status 0 mkfs.ext4 -q /data/small
mount -o loop /data/small /tmp/below
cd /tmp/below
fallocate -l 60M ballast
qed-ublk create image.qed 1G
device=$(qed-ublk add image.qed)
write_blocks 1 0 $((4 << 20))
flush
fails_with 'No space left on device' dd if=/dev/zero of="$device" bs=1M seek=16 count=200 oflag=direct
used=$(($(stat -c %s image.qed) >> 20)) free=$(($(stat -f -c '%f * %S' . | sed 's/^/(/; s/$/)/') >> 20))
echo "          the image has $used MiB, the file system $free MiB left"
fails_with 'No space left on device\|Input/output error' dd if=/dev/zero of="$device" bs=1M seek=600 count=4 conv=fsync

step "what exists can be read, overwritten and flushed"
expect_blocks 1 0 $((4 << 20))
write_blocks 2 0 $((2 << 20))
flush
expect_blocks 2 0 $((2 << 20))
expect_output '^/dev/ublkb0 +live ' qed-ublk list

step "there is space again: it goes on by itself"
rm ballast
write_blocks 3 $((800 << 20)) $((8 << 20))
flush
expect_blocks 3 $((800 << 20)) $((8 << 20))
qed-ublk del 0
expect_no_devices
expect_sound image.qed
device=$(qed-ublk add image.qed)
expect_blocks 2 0 $((2 << 20))
expect_blocks 1 $((2 << 20)) $((2 << 20))
expect_blocks 3 $((800 << 20)) $((8 << 20))
qed-ublk del 0
cd /data
umount /tmp/below
expect_status 0 e2fsck -fn /data/small

# The disk under the image becomes the given target of the device mapper.
become() {
    dmsetup suspend --noflush --nolockfs below
    echo "0 $sectors $1" | dmsetup load below
    dmsetup resume below
}
# No journal: such a file system would not survive a failed flush itself.
truncate -s 256M /data/disk
loop=$(losetup -f --show --direct-io=on /data/disk)
sectors=$(blockdev --getsz "$loop")
echo "0 $sectors linear $loop 0" | dmsetup create below
expect_status 0 mkfs.ext4 -q -O ^has_journal /dev/mapper/below
mount /dev/mapper/below /tmp/below
cd /tmp/below
qed-ublk create image.qed 1G
device=$(qed-ublk add image.qed)
write_blocks 1 0 $((4 << 20))
flush
# Or the server may be just about that when the disk fails, and that would be a sync that failed.
wait_until 30 is_marked_clean image.qed
flush

step "the disk fails reads: the reader is told, and later the data is there"
become error
fails_with 'Input/output error' dd if="$device" of=/dev/null bs=64k count=1 iflag=direct
become "linear $loop 0"
expect_blocks 1 0 $((4 << 20))

step "the disk fails writes: the writer is told, reads go on, later writes succeed"
become "flakey $loop 0 0 3600 1 error_writes"
fails_with 'Input/output error' dd if=/dev/zero of="$device" bs=64k count=1 oflag=direct
expect_blocks 1 $((1 << 20)) $((1 << 20))
become "linear $loop 0"
write_blocks 2 0 $((1 << 20))
expect_blocks 2 0 $((1 << 20))

value=2
for how in kill term del; do
    step "the disk fails a flush: nothing is written or flushed any more until the image has been opened again ($how)"
    value=$((value + 1))
    write_blocks $value 0 $((1 << 20))
    become "flakey $loop 0 0 3600 1 error_writes"
    fails_with 'Input/output error' xfs_io -c fsync "$device"
    become "linear $loop 0"
    # The data that the flush was about can be lost by now, and only its writer knows that.
    fails_with 'Input/output error' xfs_io -c fsync "$device"
    fails_with 'Input/output error' dd if=/dev/zero of="$device" bs=64k count=1 oflag=direct
    expect_blocks 1 $((1 << 20)) $((1 << 20))
    server=$(server_of 0)
    wait_until 20 eval 'qed-ublk list | grep -q "^/dev/ublkb0 *failed "'
    expect_output "image.qed: a sync failed \(Input/output error\), .* kill $server, and 'qed-ublk recover 0'" \
        cat /run/qed-ublk/ublk0.log
    expect_equal "how often the log says it" 1 "$(grep -c 'a sync failed' /run/qed-ublk/ublk0.log)"
    kill_supervisors
    case $how in
        kill)
            kill -KILL "$server"
            wait_until 60 process_is_gone "$server"
            expect_output '^/dev/ublkb0$' qed-ublk recover 0
            ;;
        term)
            # In use, so it waits; its server says that it could not leave the image as it should be.
            hold_open "$device"
            kill -TERM "$server"
            wait_until 60 process_is_gone "$server"
            grep -q 'the last writes did not reach the disk' /run/qed-ublk/ublk0.log || fail "the log does not say it"
            expect_output '^/dev/ublkb0 +waiting ' qed-ublk list
            expect_output '^/dev/ublkb0$' qed-ublk recover 0
            kill "$user"
            wait "$user" || true
            ;;
        del)
            expect_refusal 1 'the last writes did not reach the disk \(Input/output error\); the image will be checked' \
                qed-ublk del 0
            # The device is gone all the same.
            expect_equal "what list shows" '[]' "$(qed-ublk list --json)"
            expect_output '^/dev/ublkb0$' qed-ublk add image.qed
            ;;
    esac
    expect_output '^/dev/ublkb0 +live ' qed-ublk list
    flush
    write_blocks $value 0 $((1 << 20))
    flush
    expect_blocks $value 0 $((1 << 20))
done
qed-ublk del 0
expect_no_devices
expect_undamaged image.qed
