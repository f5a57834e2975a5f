# A server dies or leaves, and its device waits for the next one: what each command says and does then. 84-kills kills
# many.
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data

step "kill -9 with the device idle: list says that it waits, recover brings it back"
qed-ublk create image.qed 512M
device=$(qed-ublk add image.qed)
xfs_io -d -c 'pwrite -q -b 1m -S 7 0 4m' "$device"
kill_server
expect_output '^/dev/ublkb0 +waiting .* /data/image.qed$' qed-ublk list
expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
expect_output '^/dev/ublkb0 +live ' qed-ublk list
# Not one byte was flushed before the kill.
expect_equal "bytes that were answered" $((4 << 20)) "$(dd if="$device" bs=1M count=4 iflag=direct status=none | tr -dc "\007" | wc -c)"
expect_refusal 3 '/dev/ublkb0 has a server, and needs no other' qed-ublk recover 0
qed-ublk del 0
expect_no_devices
expect_sound image.qed

step "SIGTERM under a mounted file system leaves it to the next server; the image is clean meanwhile"
rm image.qed
qed-ublk create image.qed 256M
device=$(qed-ublk add image.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
(cp -a /usr/lib/modules /mnt/modules || echo "cp: $?" >errors) &
writer=$!
sleep 0.3
server=$(server_of 0)
kill -TERM "$server"
wait_until 40 process_is_gone "$server"
expect_output '^/dev/ublkb0 +waiting ' qed-ublk list
expect_undamaged image.qed
expect_refusal 3 '/dev/ublkb0 is in use.*qed-ublk recover 0' qed-ublk del image.qed
# Adding the image again goes on with its device.
expect_equal "what add prints" /dev/ublkb0 "$(qed-ublk add image.qed)"
wait "$writer"
[[ ! -e errors ]] || fail "$(<errors)"
expect_status 0 diff -rq /usr/lib/modules /mnt/modules

step "an image that was written to meanwhile is refused, and so is one of another size"
server=$(server_of 0)
kill -TERM "$server"
wait_until 40 process_is_gone "$server"
cp --sparse=always -p image.qed copy.qed
sleep 0.1
expect_status 0 qemu-io -f qed -c 'write -q 200m 4k' image.qed
expect_refusal 2 'another program has written to it while its device waited' qed-ublk recover 0
cp -p copy.qed image.qed
expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
expect_status 0 diff -rq /usr/lib/modules /mnt/modules

step "del --force of a device that waits, mounted: it goes"
sync -f /mnt
kill_server
expect_refusal 3 '/dev/ublkb0 is in use, mounted at /mnt; unmount it first, or give it a server again' qed-ublk del 0
qed-ublk del --force 0
umount /mnt
expect_no_devices
# What had been answered went into the image.
device=$(qed-ublk add image.qed)
mount "$device" /mnt
expect_status 0 diff -rq /usr/lib/modules /mnt/modules
umount /mnt
qed-ublk del 0
expect_no_devices

step "a takeover that fails half way can be done again, or is refused where the kernel would not survive that"
device=$(qed-ublk add image.qed)
mount "$device" /mnt
kill_server
mv /dev/ublkc0 /dev/hidden
expect_refusal 4 '/dev/ublkc0' qed-ublk recover 0
mv /dev/hidden /dev/ublkc0
if [[ $VM_KERNEL == 6.12 ]]; then
    for attempt in 1 2; do expect_refusal 1 'may crash if another one tries.*qed-ublk del --force 0' qed-ublk recover 0; done
    expect_refusal 1 'may crash if another one tries' qed-ublk recover --all
    qed-ublk del --force 0
    umount /mnt
    expect_no_devices
    device=$(qed-ublk add image.qed)
    mount "$device" /mnt
else
    expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
fi
expect_status 0 diff -rq /usr/lib/modules /mnt/modules
umount /mnt
qed-ublk del 0
expect_no_devices

# With some queues served and others not, the second START_USER_RECOVERY is what the kernel does not survive.
if [[ $VM_KERNEL == 6.12 ]]; then
    step "a server killed while it takes over its queues"
    # The kill has to meet a moment; how soon that comes depends on the machine.
    refusals=0
    for after in 0.7 1 0.4 1.3 0.85 1.6 2 2.5; do
        qed-ublk add image.qed >/dev/null
        kill_server
        # A step of it every 300 ms: the command, the processors of queue 0, its fetches and the processors of queue 1, ...
        strace -f -o /dev/null -e trace=io_uring_enter -e inject=io_uring_enter:delay_enter=300000 \
            qed-ublk recover 0 >/dev/null 2>&1 &
        recovery=$!
        while read -r line </run/qed-ublk/ublk0.json && [[ $line != *'"being_taken_over":true'* ]]; do :; done
        sleep "$after"
        kill_servers
        { wait "$recovery" || true; } 2>/dev/null
        if ! qed-ublk recover 0 >/dev/null 2>errors; then
            refusals=$((refusals + 1))
            expect_output 'may crash if another one tries' cat errors
        fi
        qed-ublk del --force 0
        expect_no_devices
        expect_undamaged image.qed
        if ((refusals)); then break; fi
    done
    ((refusals > 0)) || fail "no server was killed at the moment that was meant"
fi

step "several devices at once"
for number in 1 2 3; do
    qed-ublk create "number$number.qed" 16M
    qed-ublk add "number$number.qed"
done
pids=$(qed-ublk list --json | jq -r '.[].pid')
# shellcheck disable=SC2086
kill -KILL $pids
for pid in $pids; do wait_until 20 process_is_gone "$pid"; done
expect_equal "what recover prints" '/dev/ublkb0 /dev/ublkb1 /dev/ublkb2' "$(qed-ublk recover --all | paste -sd ' ')"
expect_equal "recovered once more" '' "$(qed-ublk recover --all)"
for number in 1 2 3; do qed-ublk del "number$number.qed"; done
expect_no_devices

step "--no-recovery: the disk ends with its server"
device=$(qed-ublk add --no-recovery image.qed)
kill_server
wait_until 40 eval '[[ ! -e /dev/ublkb0 ]]'
expect_output '^/dev/ublkb0 +dead ' qed-ublk list
expect_refusal 4 'does not wait for a server' qed-ublk recover 0
qed-ublk del 0
expect_no_devices

step "--supervise: whoever kills the server gets another one; del ends both processes"
device=$(qed-ublk add --supervise image.qed)
mount "$device" /mnt
for turn in 1 2 3; do
    server=$(server_of 0)
    kill -KILL "$server"
    wait_until 20 process_is_gone "$server"
    wait_until 20 eval 'qed-ublk list | grep -q live'
    expect_status 0 diff -rq /usr/lib/modules /mnt/modules
done
umount /mnt
qed-ublk del 0
wait_until 20 no_processes
expect_no_devices

step "SIGTERM to the supervisor of an unused device removes it"
qed-ublk add --supervise image.qed
supervisor=$(ps -o pid=,args= -C qed-ublk | awk '/supervise/ { print $1 }')
kill -TERM "$supervisor"
wait_until 20 no_processes
expect_no_devices
