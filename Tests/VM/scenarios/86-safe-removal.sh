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
