# The unit of packaging/ under the real systemd, here as the manager of a user who is root: process 1 is the test's. A server
# that dies is started again and recovers; a restart puts another program under a mounted file system.
# kernels: 6.12
# vm: --file Tests/VM/scenarios/devices.bash --file packaging/qed-ublk@.service
# vm: --file packaging/qed-ublk-users@.service --file packaging/qed-ublk-users.socket
source lib.sh
source devices.bash
cd /data

# What systemd and its units find on a machine that it has booted, and targets for the unit to be wanted by.
mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || mountpoint -q /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/tests /run/systemd/system /etc/systemd/user
echo $$ >/sys/fs/cgroup/tests/cgroup.procs
export XDG_RUNTIME_DIR=/run
for target in basic shutdown multi-user; do printf '[Unit]\nDescription=%s\n' $target >/etc/systemd/user/$target.target; done
mount --make-rshared /
/usr/lib/systemd/systemd --user --unit=multi-user.target --log-target=console >manager.log 2>&1 &
wait_until 60 systemctl --user is-system-running

# state_of UNIT: "active running", "failed failed"...
state_of() { systemctl --user show --property ActiveState --property SubState --value "$1" | paste -sd ' '; }
is_in_state() { [[ $(state_of "$unit") == "$1" ]]; }
# Another server than this process has the device.
has_another_server() { [[ $(server_of 0) =~ ^[0-9]+$ && $(server_of 0) != "$1" ]]; }

step "as the documentation says: installed, enabled, started; then the device is usable"
qed-ublk create disk.qed 256M
install -m 755 /payload/qed-ublk /usr/bin/qed-ublk
install -m 644 /payload/qed-ublk{@.service,-users@.service,-users.socket} /etc/systemd/user/
mkdir /etc/systemd/user/qed-ublk@.service.d
printf '[Service]\nStandardError=append:/data/unit.log\n' >/etc/systemd/user/qed-ublk@.service.d/log.conf
explain_failure() {
    tail -n 30 unit.log manager.log
    systemctl --user list-units --all --no-pager 'qed-ublk*' || true
}
systemctl --user daemon-reload
unit=$(systemd-escape --path --template=qed-ublk@.service /data/disk.qed)
systemctl --user enable --now "$unit"
expect_status 0 mkfs.ext4 -q /dev/ublkb0
expect_output 'Status: "serving /data/disk.qed as /dev/ublkb0"' systemctl --user status --no-pager "$unit"
mount /dev/ublkb0 /mnt
cp -a /usr/lib/modules /mnt/modules

step "killed three times, while a program writes: it recovers by itself"
(cp -a /usr/lib/modules /mnt/again && sync -f /mnt || echo "cp: $?" >errors) &
writer=$!
for _ in 1 2 3; do
    server=$(server_of 0)
    kill -KILL "$server"
    wait_until 120 has_another_server "$server"
    sleep 0.3
done
wait "$writer"
[[ ! -e errors ]] || fail "$(<errors)"
expect_status 0 diff -rq /usr/lib/modules /mnt/modules
expect_status 0 diff -rq /usr/lib/modules /mnt/again

step "an upgrade: another program is installed, and the unit restarted, with the file system mounted"
server=$(server_of 0)
install -m 755 /payload/qed-ublk /usr/bin/qed-ublk.new
mv /usr/bin/qed-ublk.new /usr/bin/qed-ublk
expect_output '\(deleted\)$' readlink "/proc/$server/exe"
systemctl --user restart "$unit"
expect_equal "the server's program" /usr/bin/qed-ublk "$(readlink "/proc/$(server_of 0)/exe")"
expect_status 0 diff -rq /usr/lib/modules /mnt/again

step "SIGTERM from somebody else, while it is mounted: leaving the device is no success, and another server is started"
server=$(server_of 0)
kill -TERM "$server"
wait_until 120 has_another_server "$server"
# Its server is in the record before it serves, and stopped by then it would have left nothing.
wait_until 120 is_in_state "active running"

step "stopped while it is mounted, and started: the device waits meanwhile, and the unit says so"
systemctl --user stop "$unit"
expect_equal "the unit" "failed failed" "$(state_of "$unit")"
expect_equal "its status" 7 "$(systemctl --user show --property ExecMainStatus --value "$unit")"
expect_output '^/dev/ublkb0 +waiting ' qed-ublk list
expect_undamaged disk.qed
systemctl --user start "$unit"
rm -r /mnt/again
umount /mnt
expect_status 0 e2fsck -fn /dev/ublkb0

step "stopped when nobody uses it: the device is removed"
systemctl --user stop "$unit"
expect_equal "the unit" "inactive dead" "$(state_of "$unit")"
expect_no_devices
expect_sound disk.qed

step "del removes the device, and the unit ends; it is not started again"
systemctl --user start "$unit"
qed-ublk del 0
wait_until 20 is_in_state "inactive dead"
expect_no_devices

step "a file that is no image, and none at all: the unit fails at once, and says with which status"
echo "no image" >text.qed
for case in text.qed=2 none.qed=4; do
    unit=$(systemd-escape --path --template=qed-ublk@.service "/data/${case%=*}")
    expect_status 1 systemctl --user start "$unit"
    wait_until 20 is_in_state "failed failed"
    expect_equal "$unit: status, and attempts to start it again" "${case#*=} 0" \
        "$(systemctl --user show --property ExecMainStatus --property NRestarts "$unit" | sort | sed 's/.*=//' | paste -sd ' ')"
done
expect_no_devices
