# What doctor says of a machine and of its devices: what hangs with a device that waits for its server, without hanging itself;
# and what lets no device be added, in the words in which add refuses it.
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
qed-ublk create outer.qed 256M
qed-ublk create other.qed 16M

# said SUBJECT: what doctor has found of it, as a refusal says it; within some seconds, whatever hangs.
said() {
    { timeout 60 qed-ublk doctor --json || true; } >doctor.json
    jq -r ".[] | select(.subject == \"$1\" and .verdict != \"good\") | \"qed-ublk: \\(.sentence); \\(.remedy)\"" doctor.json
}

step "what hangs: a file system on a volume, one in a file on that, and the device of an image there"
modprobe loop
modprobe dm-mod
export DM_DISABLE_UDEV=1
device=$(qed-ublk add outer.qed)
dmsetup create volume --table "0 $(blockdev --getsz "$device") linear $device 0"
expect_status 0 mkfs.ext4 -q /dev/mapper/volume
mount /dev/mapper/volume /mnt
truncate -s 32M /mnt/file
loop=$(losetup -f --show /mnt/file)
expect_status 0 mkfs.ext4 -q "$loop"
mkdir inside
mount "$loop" inside
# Its directory has to be read, should anybody look for it by its name.
mv /mnt/file /mnt/another
qed-ublk create /mnt/inner.qed 16M
inner=$(qed-ublk add /mnt/inner.qed)
expect_equal "what doctor says while all is well" '' "$(said mounts)$(said images)"
sync
kill_server
echo 3 >/proc/sys/vm/drop_caches
find /mnt inside -ls >found 2>&1 &
finder=$!
touch /mnt/new inside/new &
hung="what is mounted at /mnt (on /dev/dm-0), /data/inside (on $loop) hangs, since $device waits for a server"
expect_equal "what hangs" "qed-ublk: $hung; qed-ublk recover 0" "$(said mounts)"
expect_equal "whose image does" "qed-ublk: the image of $inner lies on $device, which waits for a server; qed-ublk recover 0" \
    "$(said images)"
expect_output 'warning +mounts +what is mounted at /mnt ' bash -c 'qed-ublk doctor || (($? == 1))'
[[ -d /proc/$finder ]] || fail "nothing hung"
qed-ublk recover 0
wait
expect_equal "what doctor says afterwards" '' "$(said mounts)$(said images)"

step "what hangs: swap, and what another namespace alone has mounted"
qed-ublk del "$inner"
umount inside
losetup -d "$loop"
umount /mnt
expect_status 0 mkswap /dev/mapper/volume
swapon /dev/mapper/volume
other=$(qed-ublk add other.qed)
expect_status 0 mkfs.ext4 -q "$other"
unshare -m bash -c "mount $other /mnt && exec sleep 1000" &
holder=$!
wait_until 20 grep -q "$other" "/proc/$holder/mountinfo"
kill_servers
hung="what is mounted at /mnt (as sleep, process $holder, sees it) hangs, since $other waits for a server"
expect_equal "what hangs" "qed-ublk: $hung; qed-ublk recover ${other##*b}" "$(said mounts)"
hung="what was swapped out to /dev/mapper/volume is out of reach, since $device waits for a server"
expect_equal "what is swap" "qed-ublk: $hung; qed-ublk recover 0" "$(said swap)"
qed-ublk recover --all
kill "$holder"
wait
swapoff /dev/mapper/volume
dmsetup remove volume
qed-ublk del --all
expect_no_devices

step "a device that was not to wait: what is mounted from it fails"
device=$(qed-ublk add --no-recovery other.qed)
mount "$device" /mnt
kill_server
wait_until 40 eval '[[ ! -e /dev/ublkb0 ]]'
expect_equal "what fails" "$(said mounts)" \
    "qed-ublk: what is mounted at /mnt fails, since $device has lost its server for good; unmount that; then qed-ublk del 0"
umount /mnt
qed-ublk del 0
expect_no_devices

# refused STATUS PATTERN SUBJECT WAY: by add, and doctor says the same.
refused() {
    # shellcheck disable=SC2086
    expect_refusal "$1" "$2" qed-ublk add $4 other.qed
    expect_equal "what doctor says" "$(</tmp/errors)" "$(said "$3")"
    expect_no_devices
}

step "what lets no device be added is refused in doctor's words"
for way in '' --foreground; do
    echo 2 >/proc/sys/kernel/io_uring_disabled
    refused 1 "^qed-ublk: this machine lets no program use io_uring; 'sysctl kernel" io_uring "$way"
    echo 0 >/proc/sys/kernel/io_uring_disabled
    rmmod ublk_drv
    echo >/proc/sys/kernel/modprobe
    refused 6 "^qed-ublk: this kernel has no ublk; run 'modprobe ublk_drv'" driver "$way"
    echo /sbin/modprobe >/proc/sys/kernel/modprobe
    modprobe ublk_drv
done
chown 65534 /run/qed-ublk
expect_refusal 5 '^qed-ublk: cannot use the directory /run/qed-ublk: it belongs to another user' qed-ublk add other.qed
expect_equal "what doctor says" "$(</tmp/errors)" "$(said directory)"
chown 0 /run/qed-ublk

step "a server that its control group leaves no memory: add says so, in doctor's words"
findmnt /sys/fs/cgroup >/dev/null || mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/tiny
echo 32M >/sys/fs/cgroup/tiny/memory.max
# The kernel shows who it kills as it shows its own faults.
read -r level _ </proc/sys/kernel/printk
echo 1 >/proc/sys/kernel/printk
in_tiny='echo $$ >/sys/fs/cgroup/tiny/cgroup.procs && "$@"'
# Its buffers are in memory from the start: 64 MiB, so that of this group's processes it is the one that the kernel ends.
expect_refusal 1 '^qed-ublk: the server was killed while it made the device: the control group may have 32 MiB' \
    bash -c "$in_tiny" bash qed-ublk add --zero-copy off -q 2 -d 64 other.qed
echo "$level" >/proc/sys/kernel/printk
words=$(</tmp/errors)
expect_output "^warning +memory +${words#*device: }\$" bash -c "$in_tiny"' || (($? == 1))' bash qed-ublk doctor
# What it had begun to make.
if [[ -e /sys/class/ublk-char/ublkc0 ]]; then qed-ublk del 0; fi
expect_no_devices
expect_sound other.qed
