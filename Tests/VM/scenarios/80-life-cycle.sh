# Devices come and go, in good and in bad ways: signals, kills, interrupted adds, several at once. Nothing that was synced is
# lost, no image is damaged, and nothing stays behind. 82-many has many in a row.
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
qed-ublk create image.qed 64M

step "nothing is looked for in the directory in which a command is started: that can be on a disk that waits for its server"
strace -f -o trace -e trace=%file qed-ublk list >/dev/null
expect_output '"/sys/class/ublk-char"|"/run/qed-ublk"' cat trace
if grep -E '\((AT_FDCWD, )?"(\./)?[A-Za-z0-9_-]' trace; then fail "the paths above start there"; fi

step "SIGTERM to the server of an unused device removes it"
device=$(qed-ublk add image.qed)
server=$(server_of 0)
expect_equal "the server's name" qed-ublk "$(<"/proc/$server/comm")"
xfs_io -c 'pwrite -q -S 7 1m 4k' "$device"
kill -TERM "$server"
wait_until 20 process_is_gone "$server"
expect_no_devices
expect_sound image.qed
expect_status 0 qemu-io -f qed -c 'read -q -P 7 1m 4k' image.qed

step "what nobody flushes is written back within seconds and the image marked as clean, though no request comes any more"
device=$(qed-ublk add image.qed)
# write_once VALUE MIB: into a new cluster there, and the image is not marked as clean. Where that took five seconds, within
# which it is not to be, once more, into the next one.
write_once() {
    local attempt started
    for attempt in 0 1 2 3 4; do
        started=$SECONDS
        xfs_io -d -c "pwrite -q -S $1 $((($2 << 20) + (attempt << 16))) 4k" "$device"
        if ! is_marked_clean image.qed; then return; fi
        if ((SECONDS - started < 5)); then fail "it is marked as clean before it can be"; fi
    done
    fail "no look at it within five seconds"
}
write_once 8 2
wait_until 20 is_marked_clean image.qed
write_once 9 3
kill_server
qed-ublk recover 0
wait_until 20 is_marked_clean image.qed
qed-ublk del 0
expect_sound image.qed
expect_status 0 qemu-io -f qed -c 'read -q -P 8 2m 4k' -c 'read -q -P 9 3m 4k' image.qed

step "without recovery, SIGTERM while it is mounted is refused, and the device lives on"
device=$(qed-ublk add --no-recovery image.qed)
server=$(server_of 0)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
kill -TERM "$server"
wait_until 20 grep -q "/dev/ublkb0 is in use, mounted at /mnt; unmount it first" /run/qed-ublk/ublk0.log
cp -a /usr/lib/modules /mnt/
sync -f /mnt
expect_output '^/dev/ublkb0 +live ' qed-ublk list
umount /mnt
kill -TERM "$server"
wait_until 20 process_is_gone "$server"
expect_no_devices
expect_sound image.qed

step "add --foreground prints the path, and Ctrl-C removes the device"
env --default-signal=INT qed-ublk add --no-recovery --foreground image.qed >output 2>errors &
server=$!
wait_until 20 grep -q . output
expect_equal "what it prints" /dev/ublkb0 "$(<output)"
expect_equal "the server, as list has it" "$server" "$(server_of 0)"
mount /dev/ublkb0 /mnt
kill -INT "$server"
wait_until 20 grep -q "/dev/ublkb0 is in use" errors
expect_status 0 diff -r /usr/lib/modules /mnt/modules
umount /mnt
kill -INT "$server"
status=0
wait "$server" || status=$?
expect_equal "its status" 0 "$status"
expect_equal "all that it printed" /dev/ublkb0 "$(<output)"
expect_no_devices
expect_sound image.qed

step "del ends a server in the foreground too"
rm output
qed-ublk add --foreground image.qed >output 2>errors &
server=$!
wait_until 20 grep -q . output
qed-ublk del image.qed
wait "$server"
expect_no_devices

# The server dies at once, and the disk with it: what was synced has to be there.
kill_server_and_disk() {
    local server
    server=$(server_of 0)
    kill -KILL "$server"
    wait_until 40 process_is_gone "$server"
    wait_until 40 eval '[[ ! -e /dev/ublkb0 ]]'
}

step "kill -9 of the server, the disk in use by nobody"
rm image.qed
qed-ublk create image.qed 64M
device=$(qed-ublk add --no-recovery image.qed)
xfs_io -d -c 'pwrite -q -b 1m -S 7 0 4m' -c fsync -c 'pwrite -q -S 8 8m 1m' "$device"
kill_server_and_disk
expect_output '^/dev/ublkb0 +dead .* /data/image.qed$' qed-ublk list
expect_equal "what del prints" '' "$(qed-ublk del "$device" 2>&1)"
expect_no_devices
device=$(qed-ublk add --no-recovery image.qed)
expect_equal "bytes that were synced" $((4 << 20)) "$(head -c 4M "$device" | tr -dc '\007' | wc -c)"
qed-ublk del "$device"
expect_sound image.qed

step "kill -9 of the server under a mounted file system"
device=$(qed-ublk add --no-recovery image.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
cp -a /usr/lib/modules /mnt/
sync -f /mnt
(while echo more >>/mnt/more; do :; done) 2>/dev/null &
sleep 0.5
kill_server_and_disk
wait
# Nothing can be saved by waiting for the file system.
expect_equal "what del prints" \
    'qed-ublk: /dev/ublkb0 is gone, but still mounted or open: unmount it, or close it' "$(qed-ublk del image.qed 2>&1)"
expect_no_devices
umount /mnt
# As QEMU's repair finds it: a crash leaves unused clusters at most, which it cannot give back.
cp image.qed copy.qed
qemu-img check -r all --output=json copy.qed >found || true
expect_equal "what QEMU finds" '[0,null,null]' "$(jq -c '[."check-errors", .corruptions, ."corruptions-fixed"]' found)"
for image in copy.qed image.qed; do
    device=$(qed-ublk add --no-recovery "$image")
    mount "$device" /mnt
    expect_status 0 diff -r /usr/lib/modules /mnt/modules
    umount /mnt
    expect_status 0 e2fsck -fn "$device"
    qed-ublk del "$device"
done
rm copy.qed
# Here the space that the dead server had reserved was given back, which QEMU cannot.
expect_sound image.qed

step "an image whose server was killed can be added before its dead device is deleted"
device=$(qed-ublk add --no-recovery image.qed)
kill_server_and_disk
expect_equal "the next device" /dev/ublkb1 "$(qed-ublk add --no-recovery image.qed)"
expect_equal "what list shows" '["dead","live"]' "$(qed-ublk list --json | jq -c '[.[].state]')"
qed-ublk del 0
expect_output '^/dev/ublkb1 +live ' qed-ublk list
qed-ublk del 1
expect_no_devices

step "a disk that a program has open is refused, but a short look at it is not"
device=$(qed-ublk add image.qed)
hold_open "$device"
expect_refusal 3 "^qed-ublk: /dev/ublkb0 is in use by sleep \(process $user\); close it first" qed-ublk del "$device"
(sleep 0.7 && kill "$user") &
qed-ublk del "$device"
wait
expect_no_devices
device=$(qed-ublk add image.qed)
hold_open "$device"
qed-ublk del --force "$device"
expect_no_devices
expect_sound image.qed
kill "$user"
wait

step "add is killed half way, early and late"
for delay in 0.02 0.1 0.2 0.25 0.3 0.35 0.4 0.45 0.5 0.6; do
    : >output
    qed-ublk add image.qed >output 2>&1 &
    add=$!
    sleep "$delay"
    kill -KILL "$add" 2>/dev/null || true
    # If it had not told of its device there is none soon. If it had, it can have been killed while it ended, and then the
    # device was promised and may stay.
    wait "$add" 2>/dev/null || true
    if grep -q ublkb output; then
        wait_until 60 eval 'qed-ublk del "$(<output)"; no_processes'
    else
        wait_until 60 no_processes
    fi
    expect_no_devices
done
expect_sound image.qed

step "add cannot tell anybody"
expect_refusal 1 'cannot write to standard output: No space left on device' bash -c 'exec qed-ublk add image.qed >/dev/full'
expect_refusal 1 'cannot write to standard output: Bad file descriptor' bash -c 'exec qed-ublk add image.qed >&-'
status=0
{ (sleep 0.2 && exec qed-ublk add image.qed) || echo $? >status; } | true
grep -qE '^(1|141)$' status || fail "status $(<status)"
wait_until 20 no_processes
expect_no_devices
# Nothing at all is open, as in some supervisors: what is opened first must not be taken for standard output.
before=$(fingerprint image.qed)
for how in '' --foreground; do
    # shellcheck disable=SC2086
    expect_status 1 bash -c "exec qed-ublk add $how image.qed <&- >&- 2>&-"
    wait_until 20 no_processes
    expect_no_devices
done
expect_equal "the image" "$before" "$(fingerprint image.qed)"
expect_sound image.qed

step "many at once: one image is served once, others beside it"
for number in 1 2 3 4; do qed-ublk create "number$number.qed" 8M; done
for number in 1 2 3 4; do
    for image in image "number$number"; do
        (
            status=0
            qed-ublk add "$image.qed" >"output-$image-$number" 2>/dev/null || status=$?
            echo "$status" >"status-$image-$number"
        ) &
    done
done
wait
expect_equal "adds of one image" '0 3 3 3' "$(sort -n status-image-* | paste -sd ' ')"
expect_equal "adds of others" '0 0 0 0' "$(cat status-number* | paste -sd ' ')"
expect_equal "their devices" '/dev/ublkb0 /dev/ublkb1 /dev/ublkb2 /dev/ublkb3 /dev/ublkb4' \
    "$(cat output-* | sort | paste -sd ' ')"
for id in 0 1 2 3 4; do
    for attempt in 1 2; do
        (qed-ublk del "$id" 2>/dev/null && touch "deleted-$id") || true &
    done
done
wait
for id in 0 1 2 3 4; do
    [[ -e deleted-$id ]] || fail "neither del of $id succeeded"
done
expect_no_devices

step "add --snapshot: the image stays as it is, and what was written goes with the device"
qed-ublk create thrown.qed 64M
device=$(qed-ublk add thrown.qed)
mkfs.ext4 -q "$device"
qed-ublk del "$device"
before=$(sha256sum thrown.qed)
mkdir -p temporary
export TMPDIR=$PWD/temporary
for ending in del kill force; do
    device=$(qed-ublk add --snapshot thrown.qed)
    expect_equal "overlays" 1 "$(find temporary -name '*.qed' -perm 600 | wc -l)"
    mount "$device" /mnt
    echo "$ending" >/mnt/file
    if [[ $ending == kill ]]; then
        kill_server
        qed-ublk recover 0
        expect_equal "what is there" kill "$(cat /mnt/file)"
    fi
    if [[ $ending == force ]]; then qed-ublk del --force 0; fi
    umount /mnt
    if [[ $ending != force ]]; then qed-ublk del 0; fi
    expect_no_devices
    expect_equal "overlays" 0 "$(find temporary -name '*.qed' | wc -l)"
    expect_equal "the image" "$before" "$(sha256sum thrown.qed)"
done
expect_status 2 qed-ublk add --snapshot /bin/bash
expect_status 4 qed-ublk add --snapshot none.qed
expect_equal "overlays" 0 "$(find temporary -name '*.qed' | wc -l)"
unset TMPDIR
