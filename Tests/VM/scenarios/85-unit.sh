# What the unit's settings take from a server, and that they take nothing that its disks need: images and backing files on
# whatever is mounted, on block devices and on mounts of nobody else's, everybody's processes that use a disk, and the locks by
# which servers and commands exclude each other.
# vm: --init debian --memory 3072 --timeout 900 --file .build/qed-ublk.deb --file docs/boot.md
# vm: --file docs/security.md
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
# answer_with COMMAND: what it prints is answered in the service's stead; without one the service answers again.
answer_with() {
    rm -rf /run/systemd/system/qed-ublk-users@.service.d
    if (($# > 0)); then
        mkdir -p /run/systemd/system/qed-ublk-users@.service.d
        printf '[Service]\nExecStart=\nExecStart=%s\nStandardOutput=socket\n' "$1" \
            >/run/systemd/system/qed-ublk-users@.service.d/try.conf
    fi
    systemctl daemon-reload
}
# Its server's namespace, if it has one, has nothing at a place.
has_no_mount() {
    local process
    process=/proc/$(server_of_unit "$1")
    [[ $(readlink "$process/ns/mnt") == "$(readlink /proc/1/ns/mnt)" ]] || ! grep -q " $2 " "$process/mountinfo"
}

step "rated no higher than docs/security.md says, and nothing in it that systemd does not know"
expect_status 0 apt-get install --yes --no-install-recommends /payload/qed-ublk.deb
for unit in qed-ublk@any qed-ublk-users@any; do
    expect_status 0 systemd-analyze security --no-pager --threshold=20 "$unit"
done
for unit in qed-ublk@.service qed-ublk-users@.service qed-ublk-users.socket; do
    expect_equal "what systemd says of $unit" "" \
        "$(systemd-analyze verify "/usr/lib/systemd/system/$unit" 2>&1 | grep qed-ublk || true)"
done
expect_equal "the socket, without a server" "inactive" "$(systemctl is-active qed-ublk-users.socket || true)"

step "a server has no network and no device but disks, and cannot change the kernel's settings; locks are the machine's"
mkdir -p /srv/images /etc/qed-ublk
for name in one other; do qed-ublk create /srv/images/$name.qed 64M; done
chown 1000:1001 /srv/images/one.qed
chmod 640 /srv/images/one.qed
settings=/run/systemd/system/qed-ublk@one.service.d
mkdir -p "$settings"
printf '[Service]\nExecStartPre=-sh -c "unshare --mount true 2>/run/unshare"\n' >"$settings/try.conf"
unit one /srv/images/one.qed
rm -r "$settings"
systemctl daemon-reload
server=$(server_of_unit one)
inside() { nsenter --target "$server" --mount "$@"; }
[[ $(readlink "/proc/$server/ns/net") != "$(readlink /proc/1/ns/net)" ]] || fail "it is in the machine's network"
for file in /proc/sys/kernel/panic /sys/kernel/mm/ksm/run; do expect_status 1 inside tee "$file" </dev/null; done
expect_status 1 inside mkdir /sys/fs/cgroup/another
[[ /sys/class/ublk-char/ublkc0/dev -ef /proc/$server/root/sys/class/ublk-char/ublkc0/dev ]] || fail "it has another /sys"
expect_output 'Operation not permitted' cat /run/unshare
capabilities_of() { awk '/^CapEff:/ { print $2 }' "/proc/$1/status"; }
# CAP_SETGID and CAP_SETUID are bits 6 and 7.
expect_equal "rights to change its user" 0 "$((0x$(capabilities_of "$server") & 0xc0))"
# CAP_SYS_PTRACE is bit 19.
expect_equal "whether it can ever see others' files" 0 \
    "$((0x$(awk '/^CapBnd:/ { print $2 }' "/proc/$server/status") & 1 << 19))"
expect_equal "its limits of open files and of locked memory" "524288 unlimited" \
    "$(awk '/^Max (open files|locked memory)/ { print $4 }' "/proc/$server/limits" | sort | paste -sd ' ')"
expect_equal "the socket" "active root 600" \
    "$(systemctl is-active qed-ublk-users.socket) $(stat -c '%U %a' /run/qed-ublk-users.sock)"
expect_equal "warnings" "" "$(journalctl -b -u qed-ublk@one --no-pager -o cat | grep -i -e 'may not' -e warning || true)"

step "what it makes is its own, but everybody may list devices"
expect_equal "whose /run/qed-ublk is, and the record, the socket and the log of changes" \
    "root 755 root 644 root 600 root 600" "$(stat -c '%U %a' /run/qed-ublk /run/qed-ublk/ublk0.{json,sock} \
        /run/qed-ublk/image-* | paste -sd ' ')"
expect_output '^/dev/ublkb0 .* /srv/images/one.qed$' setpriv --reuid 1000 --regid 1000 --clear-groups qed-ublk list

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
    unit over /srv/images/over.qed --backing-devices --record /srv/images/reads
    expect_status 0 cmp /srv/disk.raw /dev/qed/over
    stopped over
    expect_equal "whose the recording is, and its mode" "root 600" "$(stat -c '%U %a' /srv/images/reads)"
    [[ -s /srv/images/reads ]] || fail "nothing was recorded"
    rm /srv/images/{over.qed,reads}
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

step "nor one that root's has open, with more rights or in a namespace of its own, or that has a partition open"
printf 'label: gpt\n,16M,,\n' | sfdisk -q /dev/qed/other
udevadm settle
asleep() { exec sleep 10000; }
# not_taken_away NAME PROCESS
not_taken_away() {
    wait_until 20 grep -q sleep "/proc/$2/comm"
    expect_output "in use by sleep \(process $2\)" del "$1"
    kill "$2"
    wait "$2" || true
}
del() { qed-ublk del "$1" 2>&1 || true; }
asleep </dev/qed/other &
not_taken_away other $!
unshare --mount sleep 10002 </dev/qed/other &
not_taken_away other $!
unshare --user --map-root-user --mount sleep 10003 </dev/qed/other &
not_taken_away other $!
asleep </dev/qed/other-part1 &
not_taken_away other $!

step "nobody answers, or something else, or too late: a disk may be in use, but can be removed by force"
cannot_be_seen="it cannot be seen who has it open, because qed-ublk-users.socket does not answer; start it, or use --force"
asleep </dev/qed/other &
open=$!
systemctl stop qed-ublk-users.socket
expect_output "may be in use: $cannot_be_seen" del other
systemctl start qed-ublk-users.socket
for answer in garbage '{"users":[],"more":0}' "$(head -c 100000 /dev/zero | tr '\0' x)"; do
    printf '%s\n' "$answer" >/run/answer
    answer_with '/usr/bin/cat /run/answer'
    expect_output "may be in use: $cannot_be_seen" del other
done
answer_with '/usr/bin/sleep 30'
expect_output "may be in use: $cannot_be_seen" del other
answer_with
expect_output "in use by sleep \(process $open\)" del other
systemctl stop qed-ublk-users.socket
expect_status 0 qed-ublk del --force other
kill "$open"
wait "$open" || true
wait_until 20 eval '[[ $(state_of_unit other) == inactive ]]'

step "by force, what lies in a file system that is mounted from it is written first, wherever it is mounted"
dd if=/dev/urandom of=/srv/random bs=64K count=4 status=none
mkdir /srv/forced
for namespace in 'unshare --mount --propagation private' ''; do
    qed-ublk create /srv/images/forced.qed 64M
    unit forced /srv/images/forced.qed
    mkfs.ext4 -q /dev/qed/forced
    # shellcheck disable=SC2086 # words
    $namespace sh -c 'mount /dev/qed/forced /srv/forced && cp /srv/random /srv/forced/file && exec sleep 10006' &
    open=$!
    wait_until 20 cmp -s /srv/random "/proc/$open/root/srv/forced/file"
    if [[ -z $namespace ]]; then systemctl stop qed-ublk-users.socket; fi
    said=$(qed-ublk del --force forced 2>&1 || true)
    kill "$open"
    wait "$open" || true
    if [[ -n $namespace ]]; then
        expect_equal "what is said" "" "$said"
        wait_until 20 eval '[[ $(state_of_unit forced) == inactive ]]'
    else
        [[ $said == *"mounted at /srv/forced may not have been written back, because qed-ublk-users.socket does not answer"* ]] \
            || fail "said: '$said'"
        umount /srv/forced
        systemctl stop qed-ublk@forced
        systemctl reset-failed 'qed-ublk@*'
    fi
    device=$(qed-ublk add /srv/images/forced.qed)
    mount "$device" /srv/forced
    expect_status 0 cmp /srv/random /srv/forced/file
    umount /srv/forced
    qed-ublk del "$device"
    rm /srv/images/forced.qed
done
unit other /srv/images/other.qed
wipefs -qa /dev/qed/other

step "what a server of the unit has left, one from a shell goes on with, and the other way round, killed or not"
expect_status 0 systemctl stop qed-ublk@one
has_ended() { [[ ! -e /proc/$1 ]]; }
write_random() { expect_status 0 dd if=/srv/random of=/dev/qed/one bs=64K seek="$1" conv=notrunc oflag=direct status=none; }
is_random() { expect_status 0 cmp -n 262144 /srv/random <(dd if=/dev/qed/one bs=64K skip="$1" count=4 iflag=direct status=none); }
expect_status 0 qed-ublk recover --no-supervise one
server=$(qed-ublk list -n -O pid one)
write_random 100
kill -KILL "$server"
wait_until 20 has_ended "$server"
expect_status 0 systemctl start qed-ublk@one
is_random 100
write_random 200
# Nobody starts it again.
mkdir "$settings"
printf '[Service]\nRestart=no\n' >"$settings/restart.conf"
systemctl daemon-reload
systemctl kill --signal KILL qed-ublk@one
wait_until 20 eval '[[ $(state_of_unit one) == failed ]]'
expect_status 0 qed-ublk recover --no-supervise one
for place in 100 200; do is_random $place; done
server=$(qed-ublk list -n -O pid one)
kill "$server"
wait_until 20 has_ended "$server"
rm -r "$settings"
systemctl daemon-reload
expect_status 0 systemctl start qed-ublk@one
for place in 100 200; do is_random $place; done
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
systemctl daemon-reload
expect_equal "servers that have no mount namespace of their own" "" \
    "$(journalctl -b -u 'qed-ublk@*' --no-pager | grep 'no mount namespace' || true)"

step "a drop-in gives the scheduler's system call back, as docs/security.md has it"
may_bind() { systemctl show --property SystemCallFilter --value qed-ublk@one | tr ' ' '\n' | grep -cx sched_setaffinity || true; }
expect_equal "without" 0 "$(may_bind)"
settings=/run/systemd/system/qed-ublk@one.service.d
mkdir -p "$settings"
sed -n '/^\[Service\]$/,/^```$/p' /payload/security.md | grep -v '```' >"$settings/bind.conf"
systemctl daemon-reload
expect_equal "with" 1 "$(may_bind)"
rm -r "$settings"
systemctl daemon-reload

step "which units may give their rights away: those whose file says --untrusted, in whatever way systemd reads it"
options=('--untrusted' '--queues 2 --untrusted' '"--untrusted --queues 2"' "'--untrusted'" $'--queues 2 \\\n  --untrusted'
    '' '--read-only' '--record /srv/--untrusted' $'--untrusted\nOPTIONS=--queues 2' $'\n#OPTIONS=--untrusted')
mkdir /root/{files,dropins}
mv /etc/qed-ublk/* /root/files
for number in "${!options[@]}"; do printf 'OPTIONS=%s\n' "${options[number]}" >"/etc/qed-ublk/$number.conf"; done
expect_status 0 /usr/lib/systemd/system-generators/qed-ublk-generator /root/dropins
expect_equal "those units" "0 1 2 3 4" "$(cd /root/dropins \
    && grep -l '^CapabilityBoundingSet=CAP_SETUID CAP_SETGID$' -- */untrusted.conf | tr -dc '0-9\n' | paste -sd ' ')"
# systemd has the last word.
systemctl daemon-reload
for number in "${!options[@]}"; do
    expect_equal "whether systemd gives them to $number" "$((number < 5))" \
        "$(systemctl show --property CapabilityBoundingSet --value "qed-ublk@$number" | grep -c cap_setuid || true)"
done
rm -r /etc/qed-ublk/* /root/dropins
mv /root/files/* /etc/qed-ublk
rmdir /root/files

step "an image from somebody else, whose server may not give its rights away: refused, and not tried again"
qed-ublk create /srv/images/strange.qed 64M
printf 'IMAGE=/srv/images/strange.qed\nOPTIONS=--untrusted\n' >/etc/qed-ublk/strange.conf
expect_status 1 systemctl start qed-ublk@strange
expect_equal "its status, and attempts to start it again" "5 0" \
    "$(systemctl show --property ExecMainStatus --property NRestarts qed-ublk@strange | sort | sed 's/.*=//' | paste -sd ' ')"
expect_output "write --untrusted into OPTIONS of /etc/qed-ublk/NAME.conf, and run 'systemctl daemon-reload'" \
    journalctl -b -u qed-ublk@strange --no-pager
expect_equal "devices" "" "$(qed-ublk list -n)"
systemctl reset-failed qed-ublk@strange

step "an image from somebody else: restarted under what is mounted from it"
unit strange /srv/images/strange.qed --untrusted
expect_equal "its server" "65534 0000000000000000" \
    "$(awk '/^(Uid|CapPrm):/ { print $2 }' "/proc/$(server_of_unit strange)/status" | paste -sd ' ')"
expect_status 0 systemd-analyze security --no-pager --threshold=22 qed-ublk@strange
mkfs.ext4 -q /dev/qed/strange
mkdir /srv/strange
mount /dev/qed/strange /srv/strange
expect_status 0 systemctl restart qed-ublk@strange
touch /srv/strange/file
umount /srv/strange
stopped strange
expect_equal "devices" "" "$(qed-ublk list -n)"
expect_equal "what has failed" "" "$(systemctl --failed --plain --no-legend)"
expect_equal "the socket, without a server" "inactive" "$(systemctl is-active qed-ublk-users.socket || true)"
