# What doctor says of a machine that lets no device be added: the words in which add refuses it.
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data
qed-ublk create other.qed 16M

# said SUBJECT: what doctor has found of it, as a refusal says it; within some seconds, whatever hangs.
said() {
    { timeout 60 qed-ublk doctor --json || true; } >doctor.json
    jq -r ".[] | select(.subject == \"$1\" and .verdict != \"good\") | \"qed-ublk: \\(.sentence); \\(.remedy)\"" doctor.json
}

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
echo 16M >/sys/fs/cgroup/tiny/memory.max
# The kernel shows who it kills as it shows its own faults.
read -r level _ </proc/sys/kernel/printk
echo 1 >/proc/sys/kernel/printk
in_tiny='echo $$ >/sys/fs/cgroup/tiny/cgroup.procs && "$@"'
# Its buffers are in memory from the start.
expect_refusal 1 '^qed-ublk: the server was killed while it made the device: the control group may have 16 MiB' \
    bash -c "$in_tiny" bash qed-ublk add --zero-copy off -q 2 -d 64 other.qed
echo "$level" >/proc/sys/kernel/printk
words=$(</tmp/errors)
expect_output "^warning +memory +${words#*device: }\$" bash -c "$in_tiny"' || (($? == 1))' bash qed-ublk doctor
# What it had begun to make.
if [[ -e /sys/class/ublk-char/ublkc0 ]]; then qed-ublk del 0; fi
expect_no_devices
expect_sound other.qed
