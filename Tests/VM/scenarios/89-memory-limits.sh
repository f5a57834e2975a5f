# A process in a control group with little memory writes a file on the device, more than fits; then the server is in
# that group too. Nothing stands still, and every byte is there.
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
