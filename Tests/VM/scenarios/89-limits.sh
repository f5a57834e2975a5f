# What limits devices and their servers (docs/limits.md). A process in a control group with little memory writes a file on the
# device, more than fits; then the server is in that group too: nothing stands still, and every byte is there. Fifty servers in
# a group with as much as is said to be enough for them; the bandwidth of a disk, and that of a server; its priorities.
# FILE_MIB and ROUNDS say how much.
# kernels: 6.12
# vm: --memory 1024 --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
FILE_MIB=${FILE_MIB:-96} ROUNDS=${ROUNDS:-1}
cd /data

# numbers MIB: so much text, no two lines of which are the same.
numbers() { seq 100000000 $((100000000 + $1 * 104857)); }

group=/sys/fs/cgroup/small
findmnt /sys/fs/cgroup >/dev/null || mount -t cgroup2 cgroup2 /sys/fs/cgroup
# With both controllers the kernel counts, and writes back, the dirty pages of a group by themselves.
echo '+memory +io' >/sys/fs/cgroup/cgroup.subtree_control
mkdir "$group"

# limit MIB: above that the group waits for its memory to be freed. At twice as much a process would be killed, which says
# nothing of the disk: with pages that are all dirty, and nothing being written yet, the kernel does that on any disk.
limit() {
    echo "$((2 * $1))M" >"$group/memory.max"
    echo "$1M" >"$group/memory.high"
}

for who in "" " and the server"; do
    step "a writer$who in a control group with little memory"
    rm -f image.qed
    qed-ublk create image.qed 2G
    device=$(qed-ublk add image.qed)
    expect_status 0 mkfs.ext4 -q "$device"
    mount "$device" /mnt
    limit 48
    if [[ -n $who ]]; then
        # The buffers of its requests take up to 32 MiB, and cannot be swapped out.
        limit 80
        server_of 0 >"$group/cgroup.procs"
    fi
    for ((round = 1; round <= ROUNDS; round++)); do
        (
            echo "$BASHPID" >"$group/cgroup.procs"
            timeout 3000 dd of=/mnt/file bs=1M iflag=fullblock conv=fsync status=none < <(numbers "$FILE_MIB")
        ) || fail "the writer$who: $(<"$group/memory.events")"
        echo 3 >/proc/sys/vm/drop_caches
        cmp /mnt/file <(numbers "$FILE_MIB") || fail "the file has other contents"
    done
    paste -sd ' ' "$group/memory.events" | sed 's/^/          /'
    umount /mnt
    expect_status 0 e2fsck -fn "$device"
    qed-ublk del "$device"
    expect_no_devices
    expect_sound image.qed
done

# milliseconds COMMAND...: how long it takes.
milliseconds() {
    local start
    start=$(date +%s%N)
    "$@"
    echo $((($(date +%s%N) - start) / 1000000))
}
# write_8_mib DISK [GROUP]: from within the group.
write_8_mib() {
    (
        if [[ -n ${2:-} ]]; then echo "$BASHPID" >"$2/cgroup.procs"; fi
        exec dd if=/dev/zero of="$1" bs=1M count=8 oflag=direct conv=notrunc status=none
    )
}
# expect_limited WHAT MILLISECONDS: of 8 MiB at 4 MiB a second.
expect_limited() { (($2 > 1500)) || fail "$1: $2 ms"; }
number() { lsblk -dno MAJ:MIN "$1" | tr -d ' '; }

step "io.max of a device holds for whoever uses it, by group; that of the image's disk for its server"
rm image.qed
qed-ublk create image.qed 256M
device=$(qed-ublk add image.qed)
echo max >"$group/memory.high"
echo "$(number "$device") wbps=4194304" >"$group/io.max"
expect_limited "a writer in the group" "$(milliseconds write_8_mib "$device" "$group")"
echo "$(number "$device") wbps=max" >"$group/io.max"
disk=$(findmnt -no SOURCE /data)
echo "$(number "$disk") wbps=4194304" >"$group/io.max"
server_of 0 >"$group/cgroup.procs"
expect_limited "a writer, whose device's server is in the group" "$(milliseconds write_8_mib "$device")"
expect_output "^$(number "$disk") .*wbytes=[1-9]" cat "$group/io.stat"
echo "$(number "$disk") wbps=max" >"$group/io.max"
qed-ublk del "$device"

step "nice and ionice of who adds the device are the server's"
device=$(nice -n 7 ionice -c 2 -n 6 qed-ublk add image.qed)
server=$(server_of 0)
expect_equal "nice of its threads" 7 "$(ps -L -o ni= -p "$server" | sort -u | tr -d ' ')"
expect_equal "ionice of its threads" "best-effort: prio 6" \
    "$(for thread in /proc/"$server"/task/*; do ionice -p "${thread##*/}"; done | sort -u)"
qed-ublk del "$device"
expect_no_devices

step "fifty servers in one group"
many=/sys/fs/cgroup/many
mkdir $many
# docs/limits.md says how much: the I/O buffers, and 12 MiB beside them.
each=$((16 * 128 / 1024 + 12))
echo $((50 * each))M >$many/memory.max
for ((index = 0; index < 50; index++)); do
    qed-ublk create "many$index.qed" 64M
    (echo "$BASHPID" >$many/cgroup.procs && exec qed-ublk add --foreground --queues 1 --depth 16 "many$index.qed") \
        >"many$index.path" 2>>many.log &
    wait_until 20 grep -q . "many$index.path"
done
echo "          $(($(<$many/memory.current) >> 20)) MiB before they are used"
for ((index = 0; index < 50; index++)); do
    expect_status 0 fio --name=verify --filename="$(<"many$index.path")" --rw=randwrite --bs=4k --size=1M --direct=1 \
        --verify=crc32c --iodepth=16 --ioengine=io_uring
done
echo "          $(($(<$many/memory.current) >> 20)) MiB, at most $(($(<$many/memory.peak) >> 20)) MiB"
expect_output '^oom_kill 0$' cat $many/memory.events
qed-ublk list -n -O device | xargs qed-ublk del
wait
expect_no_devices
