# A device in use is not removed by mistake, and what was written to it is not lost when it is removed by force: the kernel
# fails whatever a device with recovery is asked to write after it was told to stop, so all of that is written before.
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
qed-ublk create image.qed 512M

step "dirty pages of the device, closed by nobody: a del without force names the holder, one with force writes them back"
device=$(qed-ublk add image.qed)
exec 7<>"$device"
head -c 32M /dev/zero | tr '\0' '\7' >&7
expect_refusal 3 "/dev/ublkb0 is in use by bash \(process $$\)" qed-ublk del 0
qed-ublk del --force 0
exec 7>&-
expect_no_devices
device=$(qed-ublk add -r image.qed)
expect_equal "bytes that were dirty" $((32 << 20)) "$(head -c 32M "$device" | tr -dc '\007' | wc -c)"
qed-ublk del 0
expect_sound image.qed

step "killed while it has dirty pages of its own disk written back: nothing waits for a server that is gone"
echo $((1 << 30)) >/proc/sys/vm/dirty_background_bytes
head -c 4M /dev/urandom >piece
for _ in {1..32}; do cat piece; done >pieces
device=$(qed-ublk add image.qed)
exec 7<>"$device"
cat pieces >&7
unwritten_kib() { awk '/^(Dirty|Writeback):/ { sum += $2 } END { print sum }' /proc/meminfo; }
(($(unwritten_kib) > 100 << 10)) || fail "only $(unwritten_kib) KiB are dirty"
server=$(server_of 0)
# The server's writes wait for the image's file system meanwhile: it is killed in the midst of them, however fast the machine is.
fsfreeze -f /data
kill_supervisors
kill -TERM "$server"
wait_until 20 eval '(($(awk "/^Writeback:/ { print \$2 }" /proc/meminfo) > 0))'
kill -KILL "$server"
fsfreeze -u /data
(($(unwritten_kib) > 16 << 10)) || fail "all of it was written before"
wait_until 60 process_is_gone "$server"
expect_equal "what recover prints" "$device" "$(timeout 60 qed-ublk recover 0)"
exec 7>&-
wait_until 60 eval 'qed-ublk del 0 2>/dev/null'
wait_until 20 no_processes
expect_no_devices
device=$(qed-ublk add -r image.qed)
expect_status 0 cmp -n $((128 << 20)) pieces "$device"
qed-ublk del 0
rm piece pieces
expect_sound image.qed

step "killed while the kernel reads its partition table: who waits for that is named, and force does not wait with it"
device=$(qed-ublk add image.qed)
for end in recover force; do
    server=$(server_of 0)
    kill_supervisors
    kill -STOP "$server"
    blockdev --rereadpt "$device" &
    reader=$!
    wait_until 20 eval '(($(cat /sys/block/ublkb0/inflight | tr -s " " "+")0 > 0))'
    kill -KILL "$server"
    wait_until 60 process_is_gone "$server"
    expect_refusal 3 "/dev/ublkb0 is in use by blockdev \(process $reader\); .*--force" qed-ublk del 0
    if [[ $end == recover ]]; then
        expect_equal "what recover prints" "$device" "$(timeout 60 qed-ublk recover 0)"
        # Not in a shell of its own, whose child it is not.
        wait "$reader" || fail "the reader of the partition table: $?"
    else
        expect_status 0 timeout 60 qed-ublk del --force 0
        wait "$reader" || true
    fi
done
wait_until 20 no_processes
expect_no_devices
expect_sound image.qed

step "what cannot be written back is said: the device goes, and del fails"
mkdir -p small
mount -t tmpfs -o size=16m tmpfs small
qed-ublk create small/image.qed 64M
device=$(qed-ublk add small/image.qed)
exec 7<>"$device"
head -c 32M /dev/zero | tr '\0' '\7' >&7
expect_refusal 1 'is lost: /dev/ublkb0 cannot be written back|did not reach the disk' qed-ublk del --force 0
exec 7>&-
wait_until 20 no_processes
# Its log stays, for whoever wants to know more.
expect_output 'cannot be written back|did not reach the disk' cat /run/qed-ublk/ublk0.log
rm /run/qed-ublk/ublk0.log
expect_no_devices
umount small

for filesystem in ext4 xfs; do
    step "dirty pages of a mounted $filesystem"
    device=$(qed-ublk add image.qed)
    if [[ $filesystem == xfs ]]; then force=-f; else force=-F; fi
    expect_status 0 "mkfs.$filesystem" -q $force "$device"
    mount "$device" /mnt
    sync -f /mnt
    cp -a /usr/lib/modules /mnt/modules
    expect_refusal 3 '/dev/ublkb0 is in use, mounted at /mnt; unmount it first' qed-ublk del 0
    qed-ublk del --force 0
    umount /mnt
    expect_no_devices
    device=$(qed-ublk add image.qed)
    mount "$device" /mnt
    expect_status 0 diff -rq /usr/lib/modules /mnt/modules
    umount /mnt
    qed-ublk del 0
    expect_sound image.qed
done

# What each of the following has written and nobody has synced.
head -c 24M /dev/urandom >random

# expect_random NODE: the image has it, in the file system that is on that node once it is device 0 again.
expect_random() {
    local node=$1
    qed-ublk add parts.qed
    wait_until 20 test -b "$node"
    mount "$node" /mnt
    expect_status 0 cmp random /mnt/random
    umount /mnt
    qed-ublk del 0
    expect_sound parts.qed
}

step "a partition in use: open, under another name too, as swap, or mounted"
qed-ublk create parts.qed 320M
device=$(qed-ublk add parts.qed)
expect_status 0 sfdisk -q "$device" <<<$'size=160M\n,'
wait_until 20 test -b /dev/ublkb0p2
hold_open /dev/ublkb0p1
expect_refusal 3 '/dev/ublkb0 is in use by sleep \(process' qed-ublk del 0
kill "$user"
wait
IFS=: read -r major minor </sys/class/block/ublkb0p1/dev
busybox mknod /data/other b "$major" "$minor"
hold_open /data/other
expect_refusal 3 '/dev/ublkb0 is in use by sleep \(process' qed-ublk del 0
kill "$user"
wait
expect_status 0 busybox mkswap /dev/ublkb0p2
expect_status 0 busybox swapon /dev/ublkb0p2
expect_refusal 3 '/dev/ublkb0 is in use as swap; use swapoff first' qed-ublk del 0
busybox swapoff /dev/ublkb0p2
for filesystem in ext4 btrfs; do
    if [[ $filesystem == ext4 ]]; then force=-F; else force=-f; fi
    expect_status 0 "mkfs.$filesystem" -q $force /dev/ublkb0p1
    mount /dev/ublkb0p1 /mnt
    sync -f /mnt
    cp random /mnt/random
    expect_refusal 3 '/dev/ublkb0 is in use, mounted at /mnt; unmount it first' qed-ublk del 0
    qed-ublk del --force 0
    umount /mnt
    expect_no_devices
    expect_random /dev/ublkb0p1
    device=$(qed-ublk add parts.qed)
    wait_until 20 test -b /dev/ublkb0p1
done

step "a device on top of the disk, or of a partition"
modprobe -a loop dm-mod
export DM_DISABLE_UDEV=1
for kind in loop linear; do
    if [[ $kind == loop ]]; then
        top=$(losetup -f --show "$device")
        holder=${top#/dev/}
    else
        echo "0 $(blockdev --getsz /dev/ublkb0p1) linear /dev/ublkb0p1 0" | dmsetup create top
        top=/dev/mapper/top
        holder=dm-0
    fi
    expect_refusal 3 "/dev/ublkb0 is in use by $holder; remove that first" qed-ublk del 0
    expect_status 0 mkfs.ext4 -q -F "$top"
    mount "$top" /mnt
    sync -f /mnt
    cp random /mnt/random
    expect_refusal 3 "/dev/ublkb0 is in use, mounted at /mnt through $holder; unmount it" qed-ublk del 0
    kill_server
    expect_refusal 3 "/dev/ublkb0 is in use, mounted at /mnt through $holder; unmount it.*qed-ublk recover 0" qed-ublk del 0
    qed-ublk recover 0
    cmp random /mnt/random
    cp random /mnt/again
    qed-ublk del --force 0
    umount /mnt
    if [[ $kind == loop ]]; then losetup -d "$top"; else dmsetup remove top; fi
    expect_no_devices
    if [[ $kind == linear ]]; then expect_random /dev/ublkb0p1; else expect_random /dev/ublkb0; fi
    # The file system on the whole disk has taken the place of the partitions.
    device=$(qed-ublk add parts.qed)
    if [[ $kind == loop ]]; then expect_status 0 sfdisk -q --wipe always "$device" <<<$'size=160M\n,'; fi
    wait_until 20 test -b /dev/ublkb0p1
done
qed-ublk del 0

step "a device that waits, with a partition mounted or open, is in use as well"
device=$(qed-ublk add parts.qed)
wait_until 20 test -b /dev/ublkb0p1
mount /dev/ublkb0p1 /mnt
kill_server
expect_refusal 3 '/dev/ublkb0 is in use, mounted at /mnt; unmount it first, or give it a server' qed-ublk del 0
qed-ublk recover 0
umount /mnt
hold_open /dev/ublkb0p2
kill_server
expect_refusal 3 '/dev/ublkb0 is in use by sleep \(process [0-9]+\); close it first, or give it a server' qed-ublk del 0
kill "$user"
wait
qed-ublk del 0
expect_no_devices
expect_undamaged parts.qed

step "a link of the administrator's: it goes with the device, however that ends, and nobody else's file or link is touched"
qed-ublk create linked.qed 64M
mkdir here
echo mine >here/file
ln -s file here/mine
ln -s /dev/ublkb7 here/link
for place in here/file here/mine here none/link; do
    if [[ $place == none/link ]]; then said='4 none/link: '; else said="3 $place: exists already"; fi
    expect_refusal "${said%% *}" "${said#* }" qed-ublk add --symlink "$place" linked.qed
    expect_no_devices
done
expect_equal "what was there" "mine file" "$(<here/file) $(readlink here/mine)"
for options in '' --untrusted --no-recovery; do
    # shellcheck disable=SC2086  # None, or one.
    device=$(qed-ublk add $options --symlink here/link linked.qed)
    expect_equal "where it leads" "$device" "$(readlink here/link)"
    expect_equal "what list says" "/data/here/link" "$(qed-ublk list -n -O symlink)"
    expect_refusal 3 'here/link: exists already' qed-ublk add --symlink here/link image.qed
    if [[ $options == --no-recovery ]]; then
        kill_servers
        wait_until 40 eval '[[ ! -e $device ]]'
        expect_equal "where it leads" "$device" "$(readlink here/link)"
        expect_refusal 3 'is the link of /dev/ublkb0; give another' qed-ublk add --id 5 --symlink here/link linked.qed
        expect_status 0 qed-ublk del 0
    else
        kill_server
        expect_refusal 3 'has the link /data/here/link; leave out --symlink' \
            qed-ublk add $options --symlink here/other linked.qed
        expect_equal "what add prints" "$device" "$(qed-ublk add $options --symlink here/link linked.qed)"
        expect_equal "where it leads" "$device" "$(readlink here/link)"
    fi
    # With its server, and without.
    if [[ $options == '' ]]; then kill_server; fi
    if [[ $options != --no-recovery ]]; then expect_status 0 qed-ublk del here/link; fi
    expect_no_devices
    [[ ! -L here/link ]] || fail "the link stays"
done
qed-ublk add --symlink here/link linked.qed
ln -sf file here/link
expect_status 0 qed-ublk del 0
expect_equal "what somebody has put in its place" file "$(readlink here/link)"
rm -r here linked.qed

step "removal while data is being written back: a second del says so"
device=$(qed-ublk add image.qed)
dd if=/dev/urandom of="$device" bs=1M count=200 status=none &
writer=$!
# Or it would make a file of that name.
wait_until 60 is_open "$device"
sleep 0.3
qed-ublk del --force 0 &
first=$!
sleep 0.5
status=0
qed-ublk del 0 2>errors || status=$?
# Either it came while the first one was at work, or after it.
case $status in
3) grep -qE '/dev/ublkb0 is being removed, for [0-9]+ seconds by now; wait for that|is in use' errors || fail "$(<errors)" ;;
0 | 4) ;;
*) fail "status $status: $(<errors)" ;;
esac
wait "$first"
wait "$writer" || true
wait_until 20 no_processes
expect_no_devices
expect_undamaged image.qed

step "several dels at once: one removes it, and the others find it gone or say what is going on"
for ((round = 1; round <= 10; round++)); do
    qed-ublk add image.qed >/dev/null
    dels=()
    : >errors
    for ((number = 0; number < 6; number++)); do
        { sleep "0.$((number * round % 10))" && exec qed-ublk del 0 2>>errors; } &
        dels+=("$!")
    done
    for del in "${dels[@]}"; do
        status=0
        wait "$del" || status=$?
        [[ $status =~ ^[034]$ ]] || fail "round $round, status $status: $(<errors)"
    done
    expect_no_devices
done

step "del --all removes what is not in use, and says what is"
for number in 1 2 3; do
    qed-ublk create "number$number.qed" 16M
    qed-ublk add "number$number.qed"
done
hold_open /dev/ublkb1
expect_refusal 3 '/dev/ublkb1 is in use by sleep' qed-ublk del --all
expect_output '^/dev/ublkb1 +live ' qed-ublk list
kill "$user"
wait
qed-ublk del --all
expect_no_devices
expect_equal "with nothing to remove" '' "$(qed-ublk del --all 2>&1)"

step "del --lazy: at once, or when the last user has gone; meanwhile it works, and another del has its way"
device=$(qed-ublk add image.qed)
expect_equal "of an unused one" '' "$(qed-ublk del --lazy "$device" 2>&1)"
expect_no_devices
device=$(qed-ublk add image.qed)
mkfs.ext4 -q "$device"
mount "$device" /mnt
expect_output '^qed-ublk: /dev/ublkb0 is in use, mounted at /mnt; unmount it first; it goes when that has ended$' \
    qed-ublk del --lazy "$device"
expect_output '^/dev/ublkb0 +leaving ' qed-ublk list
echo works >/mnt/file && sync -f /mnt
expect_refusal 3 'in use, mounted at /mnt' qed-ublk del "$device"
expect_status 0 qed-ublk del --lazy "$device"
# Its next server knows of it.
kill_server
qed-ublk recover 0
expect_output '^/dev/ublkb0 +leaving ' qed-ublk list
expect_equal "what is there" works "$(cat /mnt/file)"
umount /mnt
wait_until 30 no_processes
expect_no_devices
expect_sound image.qed
device=$(qed-ublk add image.qed)
mount "$device" /mnt
expect_status 0 qed-ublk del --lazy "$device"
expect_status 0 qed-ublk del --force "$device"
umount /mnt
expect_no_devices
