# What keeps a server from waiting for its own disk: its threads run where their queue's requests come from, or where there
# is a processor to spare, their buffers are in memory and locked, the kernel knows that it cleans memory through them, and
# no mount of its disk is in its hands. However it was started; and where something of that is not permitted it says so and
# serves all the same.
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
qed-ublk create image.qed 64M

# Everything that a server must have, however it was started.
expect_protected() {
    local server thread flags memory
    server=$(server_of 0)
    step "$1: process $server"
    for thread in /proc/"$server"/task/*; do
        # The ninth field, behind the name: PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE are what PR_SET_IO_FLUSHER sets.
        flags=$(sed 's/.*) //' "$thread/stat" | cut -d ' ' -f 7)
        (((flags & 0x180000) == 0x180000)) || fail "thread ${thread##*/} is no I/O flusher: $flags"
    done
    memory=$(qed-ublk list --json | jq -c '.[].memory')
    expect_equal "I/O buffers, at most" $((32 << 20)) "$(jq '."io-buffers"' <<<"$memory")"
    # All of them are in memory where the driver copies; the reserve of a device without copies is its own.
    buffers=$(qed-ublk list --json | jq '.[] | if ."zero-copy" then 0 else .memory."io-buffers" end')
    jq -e --argjson buffers "$buffers" '.locked >= $buffers and .resident >= .locked' <<<"$memory" >/dev/null ||
        fail "memory: $memory"
    # What it takes beside the buffers, of its own: the program's file is shared with all others. And the log of changes, 2 MiB.
    own=$(awk -v buffers="$buffers" '/^Anonymous:/ { print $2 + 2048 - buffers / 1024 }' "/proc/$server/smaps_rollup")
    echo "memory: $memory, beside the buffers $own KiB of its own"
    if ((own > 6144)); then
        # Where it is: mappings of half a megabyte and more.
        awk '/^[0-9a-f]+-/ { name = $1 " " $6 } /^Private_Dirty:/ && $2 > 500 { print name, $2, "KiB" }' "/proc/$server/smaps"
        fail "$own KiB beside the I/O buffers"
    fi
    # All of its program, and of the libraries, whether it has run or not: that may lie in memory that is swapped out.
    missing=$(awk '/^[0-9a-f]+-/ { name = $6; what = $0 } /^Size:/ { size = $2 }
        /^Rss:/ && name ~ /^\// && name !~ /^\/(run|dev)\// && $2 < size { print what, $2, "of", size, "KiB" }' \
        "/proc/$server/smaps")
    [[ -z $missing ]] || fail "of its program only these are in memory: $missing"
    [[ $(readlink "/proc/$server/ns/mnt") != "$(readlink /proc/self/ns/mnt)" ]] || fail "it shares the mount namespace"
}

# The different sets of processors that the server's threads may run on.
processors_of_threads() {
    sed -n 's/^Cpus_allowed_list:\t//p' "/proc/$(server_of 0)"/task/*/status | sort -u | paste -sd ' '
}

# no_own_mount: for wait_until; the server's namespace has no mount of its disk.
no_own_mount() { ! grep -q ublkb0 "/proc/$(server_of 0)/mountinfo"; }

# As systemd has it: mounts are shared.
mount --make-rshared /

step "add: as many queues as processors, up to four"
device=$(qed-ublk add image.qed)
expect_equal "queues" 4 "$(qed-ublk list --json | jq '.[].queues')"
columns='live +64 MiB +4 +64 +0 +[0-9]+ +512 +direct +[01] +128 KiB +32 MiB +[0-9.]+ MiB +[0-9.]+ MiB +- +- +-'
expect_output "^/dev/ublkb0 +$columns +/data/image.qed\$" qed-ublk list -v
expect_protected "add"

step "mounted, killed, recovered, unmounted, removed: nothing hangs and nothing is busy"
expect_status 0 mkfs.ext4 -q "$device"
mount "$device" /mnt
cp -a /usr/lib/modules /mnt/
wait_until 20 no_own_mount
kill_server
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
expect_protected "recover"
wait_until 20 no_own_mount
expect_status 0 diff -rq /usr/lib/modules /mnt/modules
timeout 60 umount /mnt
expect_status 0 e2fsck -fn "$device"
timeout 60 qed-ublk del "$device"
expect_no_devices

step "the namespace in which the disk was mounted ends; a server that is killed then waits for nobody"
# As in a container, which ends with its last process but the server, and its mounts with it.
unshare --mount --propagation private bash -c 'mount --make-rshared / && device=$(qed-ublk add image.qed) &&
    mount "$device" /mnt && touch /mnt/file && sleep 3'
server=$(server_of 0)
[[ $(readlink "/proc/$server/ns/mnt") != "$(readlink /proc/self/ns/mnt)" ]] || fail "it shares the mount namespace"
kill_server
qed-ublk recover 0
timeout 60 qed-ublk del "$device"
expect_no_devices

step "the namespace in which add was called ends: neither its server nor its supervisor keeps the disk mounted there"
# use_in_namespace IMAGE: of its own.
use_in_namespace() {
    device=$(qed-ublk add "$1") && mkfs.ext4 -q "$device" && mount "$device" /mnt
}
export -f use_in_namespace
unshare --mount --propagation private bash -c 'mount --make-rshared / && use_in_namespace image.qed'
wait_until 20 qed-ublk del 0
expect_no_devices
# Nor do those that come after, and they find what was mounted there beside the disk, as the image's file.
mkdir -p lower
unshare --mount --propagation private bash -c 'mount --make-rshared / && mount -t tmpfs tmpfs lower &&
    qed-ublk create lower/image.qed 64M && use_in_namespace lower/image.qed'
kill_only_server
wait_until 20 eval 'qed-ublk list | grep -q live'
expect_protected "the second server of a namespace that has ended"
dd if=/dev/urandom of=/dev/ublkb0 bs=1M count=8 oflag=direct status=none
wait_until 20 qed-ublk del 0
expect_no_devices

step "another file system that is unmounted outside is gone for the server too"
truncate -s 16M other
modprobe loop
expect_status 0 mkfs.ext4 -q other
mount -o loop other /mnt
device=$(qed-ublk add image.qed)
umount /mnt
wait_until 20 eval '! losetup -a | grep -q other'
qed-ublk del "$device"

qed-ublk add --foreground image.qed >output 2>errors &
wait_until 20 grep -q . output
expect_protected "add --foreground"
expect_equal "what it complains of" '' "$(grep -i warn errors || true)"
qed-ublk del 0
wait
device=$(qed-ublk add image.qed)
kill_only_server
wait_until 20 eval 'qed-ublk list | grep -q live'
expect_protected "the second server of a supervisor"
qed-ublk del 0
wait_until 20 no_processes
expect_no_devices

step "without the rights: it warns, and serves"
device=$(setpriv --bounding-set -ipc_lock,-sys_resource bash -c 'ulimit -l 64; exec qed-ublk add image.qed')
for reason in 'may wait for its own disk when memory is short: .*PR_SET_IO_FLUSHER needs CAP_SYS_RESOURCE' \
    'may lock 64 KiB, and what it cannot lock may be swapped out.*CAP_IPC_LOCK' 'the I/O buffers may be swapped out: '; do
    expect_output "$reason" cat /run/qed-ublk/ublk0.log
done
expect_equal "warnings" 3 "$(grep -c warning /run/qed-ublk/ublk0.log)"
expect_equal "locked" 0 "$(qed-ublk list --json | jq '.[].memory.locked')"
expect_status 0 fio --name=verify --filename="$device" --rw=randwrite --bs=4k --size=4M --direct=1 --verify=crc32c
qed-ublk del "$device"

step "a queue of several processors is bound to them, one of a single processor is not"
device=$(qed-ublk add -q 2 image.qed)
expect_equal "sets of processors" 3 "$(processors_of_threads | wc -w)"
for queue in 0 1; do
    # As the kernel writes it, "0, 2", and as a status file does, "0,2".
    processors=$(tr -d ' ' <"/sys/block/ublkb0/mq/$queue/cpu_list" | sed -E 's/^0,1$/0-1/; s/^2,3$/2-3/; s/^1,2$/1-2/')
    expect_output "(^| )$processors( |\$)" processors_of_threads
done
qed-ublk del "$device"
device=$(qed-ublk add -q 4 image.qed)
expect_equal "processors of its threads" 0-3 "$(processors_of_threads)"
qed-ublk del "$device"

step "on one processor there is one queue; more of them run where they may"
device=$(taskset -c 2 qed-ublk add image.qed)
expect_equal "queues" 1 "$(qed-ublk list --json | jq '.[].queues')"
qed-ublk del "$device"
device=$(taskset -c 2 qed-ublk add -q 2 image.qed)
expect_equal "queues" 2 "$(qed-ublk list --json | jq '.[].queues')"
expect_equal "processors of its threads" 2 "$(processors_of_threads)"
expect_output 'queue [0-9] may not run where its requests come from' cat /run/qed-ublk/ublk0.log
expect_status 0 fio --name=verify --filename="$device" --rw=randwrite --bs=4k --size=4M --direct=1 --verify=crc32c \
    --numjobs=4 --offset_increment=4M
qed-ublk del "$device"
expect_no_devices
expect_sound image.qed
