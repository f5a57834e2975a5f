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
# Nor is it dead for somebody who may not ask the kernel.
expect_output '^/dev/ublkb0 +waiting .* /data/image.qed$' setpriv --reuid 1000 --regid 1000 --clear-groups qed-ublk list
expect_equal "the process of a server that is dead" null "$(server_of 0)"
expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
expect_output '^/dev/ublkb0 +live ' qed-ublk list
# Not one byte was flushed before the kill.
expect_equal "bytes that were answered" $((4 << 20)) \
    "$(dd if="$device" bs=1M count=4 iflag=direct status=none | tr -dc "\007" | wc -c)"
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
kill_supervisors
kill -TERM "$server"
wait_until 40 process_is_gone "$server"
expect_output '^/dev/ublkb0 +waiting ' qed-ublk list
expect_equal "what doctor says to do" 'qed-ublk recover 0' \
    "$(qed-ublk doctor --json | jq -r '.[] | select(.subject == "devices") | .remedy')"
expect_undamaged image.qed
expect_refusal 3 '/dev/ublkb0 is in use.*qed-ublk recover 0' qed-ublk del image.qed
# Adding the image again goes on with its device.
expect_equal "what add prints" /dev/ublkb0 "$(qed-ublk add image.qed)"
wait "$writer"
[[ ! -e errors ]] || fail "$(<errors)"
expect_status 0 diff -rq /usr/lib/modules /mnt/modules

step "SIGTERM while requests keep coming: no answer is lost, and the kernel survives it"
# Linux 6.12 died of the first one when the rings were closed by the threads that had fetched their tags.
qed-ublk create busy.qed 64M
busy=$(qed-ublk add busy.qed)
number=${busy##*b}
fio --name=busy --filename="$busy" --direct=1 --rw=randrw --bs=4k --ioengine=io_uring --iodepth=32 --time_based --runtime=600 \
    --output=fio.log &
writer=$!
# A disk that nobody uses yet would go with its server.
is_being_read() { (($(qed-ublk stats --json "$busy" | jq .requests.reads) > 0)); }
wait_until 60 is_being_read
for _ in 1 2 3; do
    sleep 0.5
    server=$(server_of "$number")
    kill_supervisors
    kill -TERM "$server"
    wait_until 40 process_is_gone "$server"
    expect_undamaged busy.qed
    expect_equal "what recover prints" "$busy" "$(qed-ublk recover "$number")"
done
kill -INT "$writer"
wait "$writer" || true
expect_output 'err= 0' cat fio.log
qed-ublk del busy.qed

step "an image that was written to meanwhile is refused, and so is one of another size"
server=$(server_of 0)
kill_supervisors
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
expect_refusal 1 '/dev/ublkc0' qed-ublk recover 0
mv /dev/hidden /dev/ublkc0
if [[ $VM_KERNEL == 6.12 ]]; then
    for _ in 1 2; do expect_refusal 1 'may crash if another one tries.*qed-ublk del --force 0' qed-ublk recover 0; done
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
kill_supervisors
# shellcheck disable=SC2086
kill -KILL $pids
for pid in $pids; do wait_until 20 process_is_gone "$pid"; done
expect_equal "what recover prints" '/dev/ublkb0 /dev/ublkb1 /dev/ublkb2' "$(qed-ublk recover --all | paste -sd ' ')"
expect_equal "recovered once more" '' "$(qed-ublk recover --all)"
for number in 1 2 3; do qed-ublk del "number$number.qed"; done
expect_no_devices

step "an image on another one's disk: recover needs no order of theirs, and del goes from the top down"
qed-ublk create outer.qed 128M
qed-ublk add --id 5 outer.qed
expect_status 0 mkfs.ext4 -q -F /dev/ublkb5
mount /dev/ublkb5 /mnt
qed-ublk create /mnt/inner.qed 32M
qed-ublk add --id 1 /mnt/inner.qed
kill_servers
expect_equal "what recover prints" '/dev/ublkb5 /dev/ublkb1' "$(timeout 100 qed-ublk recover --all | paste -sd ' ')"
head -c 8M /dev/urandom >random
# Not synced, neither here nor there.
dd if=random of=/dev/ublkb1 bs=1M status=none
expect_refusal 3 '/dev/ublkb5 is in use, mounted at /mnt; unmount it first' qed-ublk del --all
expect_output '^/dev/ublkb5 +live ' qed-ublk list
[[ ! -e /dev/ublkb1 ]] || fail "what lies on it was not removed before"
qed-ublk add --id 1 /mnt/inner.qed
dd if=random of=/dev/ublkb1 bs=1M seek=8 status=none
qed-ublk del --all --force
umount /mnt
expect_no_devices
qed-ublk add --id 5 outer.qed
mount /dev/ublkb5 /mnt
expect_sound /mnt/inner.qed
qed-ublk add --id 1 /mnt/inner.qed
for half in 0 8; do expect_status 0 cmp -n $((8 << 20)) -i "0:$((half << 20))" random /dev/ublkb1; done
qed-ublk del 1
umount /mnt
qed-ublk del 5
expect_no_devices

step "a server that left, and whose successor is killed in its takeover: the next one finds nothing strange about the image"
# An old driver refuses, or is spared, the next takeover: see above.
if [[ $VM_KERNEL != 6.12 ]]; then
    for after in 0.5 1 1.8; do
        device=$(qed-ublk add image.qed)
        exec 7<"$device"
        server=$(server_of 0)
        kill_supervisors
        kill -TERM "$server"
        wait_until 40 process_is_gone "$server"
        strace -f -o /dev/null -e trace=io_uring_enter -e inject=io_uring_enter:delay_enter=100000 \
            qed-ublk recover 0 >/dev/null 2>&1 &
        recovery=$!
        sleep "$after"
        kill_servers
        { wait "$recovery" || true; } 2>/dev/null
        expect_equal "killed after $after s: what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
        exec 7<&-
        qed-ublk del 0
        expect_no_devices
    done
fi

step "del while a server takes the device over: one of them is first, and what del says is true"
for pause in 0 0.2 0.5; do
    qed-ublk add image.qed
    kill_server
    status=0
    qed-ublk recover 0 >/dev/null 2>errors &
    recovery=$!
    sleep "$pause"
    qed-ublk del 0 || status=$?
    wait "$recovery" || grep -qE 'no such device|does not wait|ended before|at work on it' errors || fail "recover: $(<errors)"
    expect_equal "after $pause s: the status of del" 0 "$status"
    wait_until 20 no_processes
    expect_no_devices
done

step "a device without a record: list shows it, recover says why there is none, del takes it away"
device=$(qed-ublk add image.qed)
xfs_io -d -c 'pwrite -q -b 1m -S 9 100m 4m' "$device"
kill_server
rm /run/qed-ublk/ublk0.json
expect_output '^/dev/ublkb0 +orphan .* [?]$' qed-ublk list
expect_equal "its image" null "$(qed-ublk list --json | jq '.[0].image')"
expect_refusal 4 '/dev/ublkb0 has no server, and no record of its image' qed-ublk recover 0
qed-ublk del --all
hold_open "$device"
expect_refusal 3 '/dev/ublkb0 is in use by sleep' qed-ublk del 0
kill "$user"
wait
qed-ublk del 0
expect_no_devices
# What had been answered was in the log.
device=$(qed-ublk add image.qed)
expect_equal "bytes that were answered" $((4 << 20)) \
    "$(dd if="$device" bs=1M skip=100 count=4 iflag=direct status=none | tr -dc "\011" | wc -c)"
# One that is served, by whom nobody knows, is not taken from its server.
server=$(server_of 0)
mv /run/qed-ublk/ublk0.json record
expect_refusal 3 "/dev/ublkb0 is served by qed-ublk \\(process $server\\).*'kill $server'" qed-ublk del 0
mv record /run/qed-ublk/ublk0.json
qed-ublk del 0
expect_no_devices

step "--no-recovery: the disk ends with its server"
device=$(qed-ublk add --no-recovery image.qed)
kill_server
wait_until 40 eval '[[ ! -e /dev/ublkb0 ]]'
expect_output '^/dev/ublkb0 +dead ' qed-ublk list
expect_refusal 4 'does not wait for a server' qed-ublk recover 0
qed-ublk del 0
expect_no_devices

step "whoever kills a server gets another one, of the supervisor; del ends both processes"
device=$(qed-ublk add image.qed)
mount "$device" /mnt
for turn in 1 2 3; do
    kill_only_server
    wait_until 20 eval 'qed-ublk list | grep -q live'
    expect_status 0 diff -rq /usr/lib/modules /mnt/modules
done
umount /mnt
qed-ublk del 0
expect_equal "processes after del" '' "$(traces_of_devices)"
expect_no_devices

step "--no-supervise: nobody gives it another one; who recovers it says whether there is a supervisor from then on"
device=$(qed-ublk add --no-supervise image.qed)
expect_status 0 no_supervisors
kill -KILL "$(server_of 0)"
wait_until 20 no_processes
expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover --no-supervise 0)"
expect_status 0 no_supervisors
kill_server
expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
wait_until 20 eval '! no_supervisors'
qed-ublk del 0
expect_no_devices

step "a supervisor goes on after an upgrade, by recover or by itself, and starts the program that is installed by then"
install -m 755 /payload/qed-ublk /usr/bin/qed-ublk
device=$(/usr/bin/qed-ublk add image.qed)
mount "$device" /mnt
server=$(server_of 0)
kill "$server"
expect_equal "what recover prints, at once" /dev/ublkb0 "$(qed-ublk recover 0)"
for signal in KILL TERM; do
    server=$(server_of 0)
    install -m 755 /payload/qed-ublk /usr/bin/qed-ublk.new
    mv /usr/bin/qed-ublk.new /usr/bin/qed-ublk
    kill -"$signal" "$server"
    wait_until 20 process_is_gone "$server"
    wait_until 40 eval 'qed-ublk list | grep -q live'
    expect_equal "the new server's program" /usr/bin/qed-ublk "$(readlink "/proc/$(server_of 0)/exe")"
    expect_output 'serving /data/image.qed as /dev/ublkb0' cat /run/qed-ublk/ublk0.log.1
done
umount /mnt
qed-ublk del 0
wait_until 20 no_processes
expect_no_devices

step "a supervisor gives up where every server dies, and says so in the device's log"
device=$(qed-ublk add image.qed)
for turn in 1 2 3 4 5; do
    kill_only_server
    if ((turn < 5)); then wait_until 40 eval 'qed-ublk list | grep -q live'; fi
done
wait_until 40 no_processes
expect_output 'the server of /dev/ublkb0 dies again and again, so it gets no other; the device waits for .qed-ublk recover' \
    cat /run/qed-ublk/ublk0.log
qed-ublk del 0
expect_no_devices

step "SIGTERM to the supervisor of an unused device removes it"
qed-ublk add image.qed
supervisor=$(ps -o pid=,args= -C qed-ublk | awk '/supervise/ { print $1 }')
kill -TERM "$supervisor"
wait_until 20 no_processes
expect_no_devices

step "where it was added: that file system can be unmounted, whatever the server was given relatively"
mkdir -p usb images
mount -t tmpfs usb usb
qed-ublk create images/overlay.qed --backing /data/image.qed --backing-format qed
device=$(cd usb && qed-ublk add --backing-dir ../ ../images/overlay.qed)
for pid in $(traces_of_devices | sed -n 's/^process //p'); do
    expect_equal "directory of process $pid" / "$(readlink "/proc/$pid/cwd")"
done
umount usb
expect_equal "descriptors beyond the image's directory" '' "$(find /proc/[0-9]*/fd -lname '/data/usb*')"
kill_only_server
wait_until 20 eval 'qed-ublk list | grep -q live'
qed-ublk del images/overlay.qed
mount -t tmpfs usb usb
(cd usb && exec qed-ublk add --foreground ../images/overlay.qed 5<. 6>file >/tmp/output 2>/tmp/errors) &
wait_until 20 grep -q . /tmp/output
umount usb
qed-ublk del 0
wait
expect_no_devices

step "recovered from its own mounted file system, and killed: nothing waits for its own disk"
device=$(qed-ublk add image.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
cp -a /usr/lib/modules /mnt/modules
install -m 755 /payload/qed-ublk /mnt/qed-ublk
# Opened by now: what is new to the kernel would wait for the disk.
exec 8</mnt/qed-ublk
kill_server
(cd /mnt && timeout 60 qed-ublk recover 0)
kill_server
expect_equal "what recover prints" /dev/ublkb0 "$(cd /mnt && timeout 60 qed-ublk recover 0)"
sync -f /mnt
kill_server
# shellcheck disable=SC2094  # Nothing but add reads or writes here: the files are only open.
(cd /mnt && exec qed-ublk add --foreground /data/image.qed >/tmp/output 2>/tmp/errors 5<. 6<qed-ublk) &
wait_until 40 grep -q . /tmp/output
kill_server
wait
# What lies there and would be used all the time is refused.
expect_refusal 64 "the server's standard input lies on /dev/ublkb0" bash -c 'exec qed-ublk add -f /data/image.qed <&8'
exec 8<&-
qed-ublk recover 0
expect_status 0 diff -rq /usr/lib/modules /mnt/modules
umount /mnt
expect_status 0 e2fsck -fn "$device"
qed-ublk del 0
expect_no_devices
