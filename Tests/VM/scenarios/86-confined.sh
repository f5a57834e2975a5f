# A server of an untrusted image has no rights: code that gets into it can open nothing, make no socket and no ring, start no
# program. All the same its device is flushed, killed, recovered, left and removed like any other.
# vm: --cpus 2 --file Tests/VM/scenarios/devices.bash --file .build/qed-ublk-intruder
source lib.sh
source devices.bash
cd /data

# A system call that is not on the list kills the server, and its users wait: that is said, and nobody waits.
watch_for_kills() {
    while sleep 1; do
        if dmesg | grep 'type=1326.*comm="\(qed-ublk\|memory\)'; then reboot -f; fi
    done
}
watch_for_kills &
watcher=$!

# expect_confined WHEN [PROCESS]: the server's threads have no right left. Workers of its rings are the kernel's own.
expect_confined() {
    local server thread
    server=${2:-$(server_of 0)}
    step "$1: process $server"
    for thread in /proc/"$server"/task/*; do
        [[ $(<"$thread/comm") != iou-* ]] || continue
        expect_equal "what $(<"$thread/comm") may do" \
            "65534 65534 65534 65534 / 65534 65534 65534 65534 / $(printf '%.0s0000000000000000 / ' 1 2 3 4)1 / 2" \
            "$(awk '/^(Uid|Gid|CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs|Seccomp):/ { $1 = ""; print substr($0, 2) }' \
                "$thread/status" | paste -sd / | sed 's,/, / ,g')"
        expect_equal "groups of $(<"$thread/comm")" "" "$(sed -n 's/^Groups:\s*//p' "$thread/status" | tr -d ' ')"
    done
    expect_equal "its brokers" 1 "$(pgrep -cf '^@ed-ublk broker 0')"
}

step "served without rights, a device works"
qed-ublk create image.qed 256M
device=$(qed-ublk add --untrusted image.qed)
expect_confined "add"
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
cp -a /usr/lib/modules /mnt/
expect_status 0 fio --name=verify --directory=/mnt --rw=randwrite --bs=4k --size=16M --direct=1 --verify=crc32c --iodepth=16 \
    --ioengine=io_uring
expect_status 0 fstrim /mnt
for command in stats status; do expect_status 0 qed-ublk "$command" "$device"; done
expect_status 0 qed-ublk list -v
if [[ $VM_KERNEL != 6.12 ]]; then
    expect_output 'Disk resized' qed-ublk resize "$device" +64M
    expect_equal "the size of the disk" $((320 << 20)) "$(blockdev --getsize64 "$device")"
    expect_status 0 resize2fs "$device"
fi
sync -f /mnt
expect_refusal 3 'in use' qed-ublk del "$device"
expect_refusal 1 'may name no other file, and would lie over the snapshot' qed-ublk snapshot "$device" snapshot.qed
expect_refusal 1 'was added with --untrusted, so its server can change no file' qed-ublk commit "$device"

step "killed and recovered, it is confined again"
kill_server
wait_until 20 eval '! pgrep -f "broker 0"'
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
expect_confined "recover"
expect_status 0 diff -rq /usr/lib/modules /mnt/modules
expect_status 0 qed-ublk del --lazy "$device"
umount /mnt
wait_until 30 eval '! [[ -e /sys/block/ublkb0 ]]'
wait_until 20 no_processes
expect_no_devices
expect_equal "what is left" "" "$(ls /run/qed-ublk)"
expect_sound image.qed

step "told to end while its disk is in use it leaves it to the next server"
device=$(qed-ublk add --untrusted image.qed)
mount "$device" /mnt
kill_supervisors
kill "$(server_of 0)"
wait_until 20 no_processes
expect_output 'waiting' qed-ublk list
expect_equal "the log of the image" "" "$(find /run/qed-ublk -name 'image-*')"
expect_equal "how it was left" "$(stat -c %s image.qed)" "$(jq .left_image.size /run/qed-ublk/ublk0.json)"
qed-ublk recover 0
expect_confined "recover"
umount /mnt
expect_status 0 e2fsck -fn "$device"
expect_status 0 qed-ublk del "$device"
wait_until 20 no_processes
expect_no_devices
expect_equal "what is left" "" "$(ls /run/qed-ublk)"

step "an overlay over a file in a directory that is named"
qed-ublk create overlay.qed --backing image.qed --backing-format qed
device=$(qed-ublk add --untrusted --backing-dir /data overlay.qed)
expect_confined "add"
expect_status 0 e2fsck -fn "$device"
mount "$device" /mnt
expect_status 0 dd if=/dev/urandom of=/mnt/large bs=1M count=100 conv=fsync status=none
sum=$(md5sum /mnt/large)
kill_server
qed-ublk recover 0
rm -r /mnt/modules
expect_status 0 fstrim /mnt
echo 3 >/proc/sys/vm/drop_caches
expect_equal "the file" "$sum" "$(md5sum /mnt/large)"
umount /mnt
expect_status 0 qed-ublk del "$device"
expect_sound overlay.qed

step "a snapshot of it is taken between two servers, and nobody notices but that it takes a moment"
rm -f disk.qed
qed-ublk create disk.qed 256M
device=$(qed-ublk add --untrusted --backing-dir /data disk.qed)
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
cp -a /usr/lib/modules /mnt/
server=$(server_of 0)
expect_equal "what snapshot prints" /data/monday.qed "$(timeout 60 qed-ublk snapshot --fsfreeze /mnt "$device" monday.qed)"
[[ $(server_of 0) != "$server" ]] || fail "the same server"
expect_confined "snapshot"
expect_equal "the chain" "disk.qed monday.qed" "$(chain)"
expect_status 0 diff -rq /usr/lib/modules /mnt/modules
rm -r /mnt/modules
clone=$(qed-ublk add --untrusted --backing-dir /data "$(qed-ublk fork "$device" tuesday.qed clone.qed)")
expect_equal "the chain" "disk.qed tuesday.qed monday.qed" "$(chain)"
qed-ublk del "$clone"
expect_refusal 3 'exists already' qed-ublk snapshot "$device" monday.qed
expect_refusal 1 'is on another file system' qed-ublk snapshot "$device" /run/elsewhere.qed
expect_equal "what snapshot prints" /data/disk.qed "$(timeout 60 qed-ublk snapshot "$device" --overlay next.qed)"
expect_equal "the image" /data/next.qed "$(qed-ublk list --json | jq -r '.[0].image')"
expect_refusal 1 'its server can change no file' qed-ublk commit "$device"

step "killed in the middle of it the supervisor's server goes on, from before or after it"
for turn in 1 2 3 4 5 6; do
    echo "$turn" >/mnt/turn
    sync -f /mnt
    timeout -s KILL "$((RANDOM % 2)).$((RANDOM % 10))" qed-ublk snapshot "$device" "turn$turn.qed" >output 2>&1 || true
    wait_until 40 eval 'qed-ublk list | grep -q live'
    echo 3 >/proc/sys/vm/drop_caches
    expect_equal "what is there" "$turn" "$(timeout 60 cat /mnt/turn)"
    echo "          $(grep -q qed output && echo taken || echo killed), over $(qed-ublk snapshots --json 0 | jq length) files"
done
umount /mnt
expect_status 0 e2fsck -fn "$device"
qed-ublk del 0
wait_until 20 no_processes
expect_no_devices
expect_equal "what is left" "" "$(ls /run/qed-ublk)"
device=$(qed-ublk add --no-partscan -r monday.qed)
mount -o ro,noload "$device" /mnt
expect_status 0 diff -rq /usr/lib/modules /mnt/modules
umount /mnt
qed-ublk del 0

step "without its broker it serves, and says what it cannot do"
device=$(qed-ublk add --untrusted image.qed)
pkill -KILL -f 'broker 0'
expect_status 0 e2fsck -fn "$device"
expect_refusal 1 'broker.*is gone' qed-ublk del "$device"
kill_server
qed-ublk recover 0
expect_status 0 qed-ublk del --force "$device"
expect_no_devices

step "in the foreground"
qed-ublk add --foreground --untrusted image.qed >output 2>errors &
server=$!
wait_until 20 grep -q . output
expect_confined "add --foreground"
kill "$server"
wait "$server"
expect_equal "what it complains of" '' "$(grep -i warn errors || true)"
expect_no_devices

step "a server that cannot give up its rights serves nothing: some were taken from it, it is not root, or the kernel leaves them"
lacks='has to be root and to have CAP_SETUID and CAP_SETGID'
for kind in setuid setgid; do
    expect_refusal 5 "$lacks" setpriv --bounding-set -$kind qed-ublk add --untrusted image.qed
done
expect_refusal 5 "$lacks" setpriv --reuid 1000 --regid 1000 --clear-groups --inh-caps +all --ambient-caps +all \
    qed-ublk add --untrusted image.qed
expect_refusal 1 'its thread .* has kept capabilities' setpriv --securebits +no_setuid_fixup qed-ublk add --untrusted image.qed
wait_until 20 no_processes
expect_no_devices
expect_equal "what is left" "" "$(ls -A /run/qed-ublk)"
expect_sound image.qed
# What it could pass on is no right of its own, and it lets go of that, too.
device=$(setpriv --inh-caps +all qed-ublk add --untrusted image.qed)
expect_confined "add, with capabilities to pass on"
kill_server
expect_refusal 5 "$lacks" setpriv --bounding-set -setuid qed-ublk recover 0
expect_output 'waiting' qed-ublk list
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
expect_confined "recover"
expect_status 0 qed-ublk del "$device"
wait_until 20 no_processes
expect_no_devices

step "the rights are gone before a table of the image is read"
export DM_DISABLE_UDEV=1
modprobe -a loop dm-mod
truncate -s 200M below
expect_status 0 mkfs.ext4 -q below
loop=$(losetup --find --show below)
expect_status 0 dmsetup create below --table "0 $(blockdev --getsz "$loop") linear $loop 0"
mkdir /tmp/below
mount -o noatime /dev/mapper/below /tmp/below
qed-ublk create /tmp/below/image.qed 64M
# The disk below stands still: only the image's header is in memory, and whoever reads a table waits.
halt_disk() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
    head -c 4096 /tmp/below/image.qed >/dev/null
    dmsetup suspend --nolockfs --noflush below
}
waits_without_rights() {
    server=$(pgrep -f '^qed-ublk serve ') && [[ $(sed -n 's/^Seccomp:\s*//p' "/proc/$server/status") == 2 ]]
}
for command in "add --untrusted /tmp/below/image.qed" "recover 0"; do
    # A kernel that does not survive a takeover that is cut short has it read before: docs/security.md.
    if [[ $command == recover* && $VM_KERNEL == 6.12 ]]; then break; fi
    halt_disk
    # shellcheck disable=SC2086  # It is words.
    qed-ublk $command >output 2>errors &
    adding=$!
    wait_until 30 waits_without_rights
    expect_confined "${command%% *}, while it waits for a table" "$server"
    sleep 1
    expect_equal "what it has printed" '' "$(cat output errors)"
    dmsetup resume below
    wait "$adding" || fail "$command: $(<errors)"
    expect_equal "what $command prints" /dev/ublkb0 "$(<output)"
    expect_status 0 xfs_io -d -c 'pwrite -q -S 7 0 1m' /dev/ublkb0
    if [[ $command == add* ]]; then kill_server; fi
done
if [[ $VM_KERNEL == 6.12 ]]; then qed-ublk recover 0; fi
qed-ublk del 0
expect_no_devices
expect_sound /tmp/below/image.qed

step "killed before it has read a table: add says so, and what was made of the device can be removed"
halt_disk
qed-ublk add --untrusted /tmp/below/image.qed >output 2>errors &
adding=$!
wait_until 30 waits_without_rights
kill_supervisors
kill -KILL "$server"
dmsetup resume below
status=0
wait "$adding" || status=$?
expect_equal "the status of add, and what it prints" "1 " "$status $(<output)"
expect_output 'the server died while it made the device' cat errors
expect_status 0 qed-ublk del 0
wait_until 20 no_processes
expect_no_devices
expect_sound /tmp/below/image.qed

step "a table that cannot be read is told of, and nothing is left"
become() { dmsetup load below --table "$1" && dmsetup resume below; }
halt_disk
become "0 $(blockdev --getsz "$loop") error"
expect_refusal 1 'below/image.qed: .*Input/output error' qed-ublk add --untrusted /tmp/below/image.qed
expect_no_devices
expect_equal "what is left" "" "$(ls -A /run/qed-ublk)"
dmsetup suspend --nolockfs --noflush below
become "0 $(blockdev --getsz "$loop") linear $loop 0"
expect_equal "what add prints" /dev/ublkb0 "$(qed-ublk add --untrusted /tmp/below/image.qed)"
qed-ublk del 0
umount /tmp/below
dmsetup remove below
losetup -d "$loop"

kill "$watcher"
step "code that gets into it"
device=$(qed-ublk add --untrusted --no-supervise image.qed)
# attempt CALL: what comes of it in the first thread, and in that of a queue; a server that was killed gets a successor.
attempt() {
    local place thread
    for place in main queue; do
        thread=$(server_of 0)
        if [[ $place == queue ]]; then thread=$(grep -l '^qed-ublk' /proc/"$thread"/task/*/comm | cut -d / -f 5 | tail -1); fi
        timeout 20 qed-ublk-intruder "$thread" "$1"
        qed-ublk recover --no-supervise 0 >/dev/null 2>&1 || true
    done | paste -sd ' '
}
expect_output '^[0-9]+ [0-9]+$' attempt nothing
expect_equal "opening a file" "-13 -13" "$(attempt open)"
for call in socket execute fork ring kill code root remove; do expect_equal "$call" "killed killed" "$(attempt $call)"; done
expect_status 0 e2fsck -fn "$device"
qed-ublk del "$device"
wait_until 20 no_processes
expect_no_devices
expect_sound image.qed
