# Reads, writes, zeroes, discards and flushes of threads on all processors meet in the same sectors, over four queues, and
# every read returns what was current at some moment while it ran: of a plain image, of an overlay, and while servers are
# killed. A test that loses writes, or returns old data, is noticed. With ext4 below, a write may be done twice before it is
# answered: io_uring first tries a direct write without waiting, and ext4 may give that up when a part is written. XFS gives
# up before, so there it is refused (--strict).
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file .build/qed-ublk-linearize
source lib.sh
source devices.bash
cd /data

# linearize [OPTION]...: shows its last line.
linearize() {
    local status=0
    qed-ublk-linearize "$device" "$@" >linearize.log 2>&1 || status=$?
    tail -n 1 linearize.log
    ((status == 0)) || fail "status $status: $(<linearize.log)"
}

head -c 24M /dev/zero | tr '\0' '\252' >base.raw
for kind in plain overlay; do
    step "$kind: four queues"
    rm -f image.qed
    case $kind in
        plain) qed-ublk create image.qed 32M && block=512 ;;
        overlay) qed-ublk create --backing base.raw --backing-format raw image.qed 32M && block=4096 ;;
    esac
    device=$(qed-ublk add -q 4 --block-size "$block" image.qed)
    expect_equal "queues of the disk" 4 "$(find /sys/block/ublkb0/mq -mindepth 1 -maxdepth 1 | wc -l)"
    linearize --seconds 6 --seed "${SEED:-1}"

    step "$kind: while the server is killed, three times"
    # The program has to know before the first kill, and until the last server's successor serves.
    qed-ublk-linearize "$device" --seconds 600 --seed "${SEED:-2}" --operations 80 >killed.log 2>&1 &
    load=$!
    for _ in 1 2 3; do
        sleep 0.7
        kill -USR1 "$load"
        kill_server
        expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
        kill -USR2 "$load"
    done
    kill -TERM "$load"
    status=0
    wait "$load" || status=$?
    tail -n 1 killed.log
    ((status == 0)) || fail "status $status: $(<killed.log)"
    qed-ublk del "$device"
    expect_no_devices
    expect_undamaged image.qed
done

step "overlay, with XFS below: no write is done twice"
# A disk whose sectors are whole, as a real one's are. A RAM disk copies to and from a page without a lock: two writes that meet
# there may leave a part of each in one sector.
modprobe null_blk nr_devices=1 gb=1 memory_backed=1 discard=1
mkfs.xfs -q /dev/nullb0
mount /dev/nullb0 /mnt
cp base.raw /mnt
qed-ublk create --backing base.raw --backing-format raw /mnt/image.qed 32M
device=$(qed-ublk add -q 4 --block-size 4096 /mnt/image.qed)
linearize --strict --seconds 6 --seed "${SEED:-3}"
qed-ublk del "$device"
umount /mnt

step "the test notices writes that are lost and reads that are old"
device=$(qed-ublk add image.qed)
for fault in lost-writes stale-reads; do
    status=0
    qed-ublk-linearize "$device" --seconds 20 --inject "$fault" >fault.log 2>&1 || status=$?
    ((status == 1)) || fail "$fault: status $status: $(<fault.log)"
    expect_output 'sector [0-9]+ was read as [0-9a-f]+ .*; written: ' cat fault.log
done
qed-ublk del "$device"
