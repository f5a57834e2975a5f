# What the unit's settings take from a server, and that they take nothing that its disks need: images and backing files on
# whatever is mounted, on block devices and on mounts of nobody else's, everybody's processes that use a disk, and the locks by
# which servers and commands exclude each other.
# vm: --init debian --memory 3072 --timeout 900 --file .build/qed-ublk.deb --file docs/boot.md
source lib.sh
# The package's own.
rm -f /payload/qed-ublk
hash -r
export DEBIAN_FRONTEND=noninteractive

explain_failure() {
    journalctl -b -u 'qed-ublk@*' --no-pager -o short-monotonic | tail -n 30
    cat "/proc/$(server_of_unit one)/mountinfo"
}
server_of_unit() { systemctl show --property MainPID --value "qed-ublk@$1"; }
state_of_unit() { systemctl show --property ActiveState --value "qed-ublk@$1"; }
# unit NAME IMAGE [OPTION...]: started.
unit() {
    printf 'IMAGE=%s\nOPTIONS=%s\n' "$2" "${*:3}" >"/etc/qed-ublk/$1.conf"
    systemctl daemon-reload
    expect_status 0 systemctl start "qed-ublk@$1"
}
# stopped NAME: without a device that would wait for another server.
stopped() {
    expect_status 0 systemctl stop "qed-ublk@$1"
    expect_equal "the unit $1" inactive "$(state_of_unit "$1")"
}
# Its server's namespace, if it has one, has nothing at a place.
has_no_mount() {
    local process
    process=/proc/$(server_of_unit "$1")
    [[ $(readlink "$process/ns/mnt") == "$(readlink /proc/1/ns/mnt)" ]] || ! grep -q " $2 " "$process/mountinfo"
}

step "rated no higher than docs/security.md says, and nothing in it that systemd does not know"
expect_status 0 apt-get install --yes --no-install-recommends /payload/qed-ublk.deb
expect_status 0 systemd-analyze security --no-pager --threshold=27 qed-ublk@any
expect_equal "what systemd says of the unit" "" \
    "$(systemd-analyze verify /usr/lib/systemd/system/qed-ublk@.service 2>&1 | grep qed-ublk || true)"

step "a server has no network and no device but disks, and cannot change the kernel's settings; locks are the machine's"
mkdir -p /srv/images /etc/qed-ublk
for name in one other; do qed-ublk create /srv/images/$name.qed 64M; done
chown 1000:1001 /srv/images/one.qed
chmod 640 /srv/images/one.qed
unit one /srv/images/one.qed
server=$(server_of_unit one)
inside() { nsenter --target "$server" --mount "$@"; }
[[ $(readlink "/proc/$server/ns/net") != "$(readlink /proc/1/ns/net)" ]] || fail "it is in the machine's network"
for file in /proc/sys/kernel/panic /sys/kernel/mm/ksm/run; do expect_status 1 inside tee "$file" </dev/null; done
expect_status 1 inside mkdir /sys/fs/cgroup/another
[[ /sys/class/ublk-char/ublkc0/dev -ef /proc/$server/root/sys/class/ublk-char/ublkc0/dev ]] || fail "it has another /sys"

step "what is mounted after its start it sees, and no longer when it is unmounted; the file system is not kept"
truncate -s 64M /srv/disk.raw
loop=$(losetup --find --show /srv/disk.raw)
mkfs.ext4 -q "$loop"
mkdir /srv/later
mount "$loop" /srv/later
touch /srv/later/file
expect_status 0 inside test -e /srv/later/file
qed-ublk create /srv/later/inner.qed 16M
unit inner /srv/later/inner.qed
mkfs.ext4 -q /dev/qed/inner
mkdir /srv/inner
mount /dev/qed/inner /srv/inner
expect_status 0 systemctl restart qed-ublk@inner qed-ublk@one
touch /srv/inner/file
umount /srv/inner
stopped inner
umount /srv/later
expect_status 0 mkfs.ext4 -q -F "$loop"

step "a backing file that is a block device: of a driver, and another disk of ours"
head -c 64M /dev/urandom >/srv/disk.raw
losetup --detach "$loop"
loop=$(losetup --find --show /srv/disk.raw)
unit other /srv/images/other.qed
dd if=/srv/disk.raw of=/dev/qed/other bs=1M oflag=direct status=none
for device in "$loop" "$(readlink -f /dev/qed/other)"; do
    qed-ublk create --backing "$device" --backing-format raw /srv/images/over.qed
    unit over /srv/images/over.qed --backing-devices
    expect_status 0 cmp /srv/disk.raw /dev/qed/over
    stopped over
    rm /srv/images/over.qed
done
losetup --detach "$loop"

step "what takes an image's place is the same user's"
(cd /srv/images && expect_status 0 qed-ublk snapshot /dev/qed/one before.qed)
for image in one before; do
    expect_equal "whose $image.qed is, and its mode" "1000 1001 640" "$(stat -c '%u %g %a' /srv/images/$image.qed)"
done

step "a disk that another user's process has open is not taken away, and who has it is said"
setpriv --reuid 1000 --regid 1000 --clear-groups sleep 10000 </dev/qed/one &
user=$!
expect_status 0 systemctl stop qed-ublk@one
expect_equal "the unit" failed "$(state_of_unit one)"
expect_output "in use by sleep \(process $user\)" journalctl -b -u qed-ublk@one --no-pager
expect_status 0 systemctl start qed-ublk@one
kill "$user"
wait "$user" || true

step "mounts of which nobody hears: they are not kept, neither another disk's nor its own, and an image there is served"
settings=/etc/systemd/system/qed-ublk@.service.d/mounts.conf
if (($(systemctl --version | awk 'NR == 1 { print $2 }') <= 252)); then
    mkdir "${settings%/*}"
    sed -n '/^\[Service\]$/,/^```$/p' /payload/boot.md | grep -v '```' >"$settings"
    expect_output '^BindPaths=$' cat "$settings"
fi
mkdir /srv/private
mount --bind /srv/private /srv/private
mount --make-private /srv/private
mkdir /srv/private/{other,own,images}
for name in one other; do mkfs.ext4 -q "/dev/qed/$name"; done
mount /dev/qed/other /srv/private/other
mount /dev/qed/one /srv/private/own
mount -t tmpfs none /srv/private/images
qed-ublk create /srv/private/images/image.qed 16M
unit private /srv/private/images/image.qed
expect_status 0 systemctl restart qed-ublk@one
for place in /srv/private/other /srv/private/own; do
    for name in one private; do wait_until 20 has_no_mount "$name" "$place"; done
    umount "$place"
done
# What was mounted in several namespaces is done with when all of them are. Who looks at the disk finds it in use until then.
for name in other one; do wait_until 20 mkfs.ext4 -n "/dev/qed/$name"; done
(cd /srv/private/images && expect_status 0 qed-ublk snapshot /dev/qed/private before.qed)
for name in other one private; do stopped "$name"; done
umount /srv/private/images /srv/private
rm -f "$settings"

step "an image from somebody else: restarted under what is mounted from it"
qed-ublk create /srv/images/strange.qed 64M
unit strange /srv/images/strange.qed --untrusted
mkfs.ext4 -q /dev/qed/strange
mkdir /srv/strange
mount /dev/qed/strange /srv/strange
expect_status 0 systemctl restart qed-ublk@strange
touch /srv/strange/file
umount /srv/strange
stopped strange
expect_equal "devices" "" "$(qed-ublk list -n)"
expect_equal "what has failed" "" "$(systemctl --failed --plain --no-legend)"
