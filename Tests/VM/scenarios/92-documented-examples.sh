# Every example in the README, docs/, the manual and --help is run as it stands there, as a user would paste it, and prints what
# the page says. An example that is in none of the tables here fails this scenario: it is to be run, or to be named with the
# reason why it is not. With --env PAGE=live only those of such a page are run.
# kernels: 7
# vm: --init systemd --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/documented-examples.bash
# vm: --file Tests/VM/scenarios/documented-examples.awk --file README.md --file docs --file packaging/man
# vm: --file Tests/VM/scenarios/certificates.bash
# vm: --file packaging/qed-ublk@.service --file packaging/59-qed-ublk.rules --file packaging/qed-ublk-generator
# shellcheck disable=SC2016  # What is in single quotes is run later.
source lib.sh
source devices.bash
source documented-examples.bash
source certificates.bash

# What examples find.

# image NAME [SIZE]: of 64M, or 8M, with something in it, made once: a program begins slowly in this machine, and a pipe is slow.
image() {
    local made=/data/image-${2:-64M}
    if [[ ! -e $made ]]; then
        qed-ublk create "$made" "${2:-64M}"
        qed-ublk io "$made" 'write -P 1 1M 1M'
    fi
    cp "$made" "$1"
}
# raw_disk NAME: of 8M, with something in it.
raw_disk() { head -c 3M /dev/urandom >"$1" && truncate -s 8M "$1"; }
listens() { wait_until 20 eval "(: >/dev/tcp/127.0.0.1/$1) 2>/dev/null"; }
# The servers of bases end.
no_origins() {
    local origin
    for origin in nbdkit qemu-nbd busybox; do pkill -x "$origin" || true; done
    rm -f /run/origin
}
# certificates: of a server at 127.0.0.1, in pki, and of the authority that has signed it, for this machine.
certificates() {
    use_openssl /srv
    authority ours
    certificate ours pki server IP:127.0.0.1
    mkdir -p /etc/pki/libnbd
    cp ours.pem /etc/pki/libnbd/ca-cert.pem
}
# tcp_unit: a unit of root.qed, whose base is at an address of TCP, which the unit alone does not allow.
tcp_unit() {
    # shellcheck disable=SC2034  # For what is done afterwards.
    network=/etc/systemd/system/qed-ublk@root.service.d/network.conf
    ip link set lo up
    raw_disk base.raw
    nbdkit -r -p 10809 file /srv/base.raw
    listens 10809
    qed-ublk create --base nbd://127.0.0.1/ root.qed
    configuration root /srv/root.qed
    echo 'OPTIONS=--base-allow nbd://127.0.0.1/' >>/etc/qed-ublk/root.conf
    if systemctl start qed-ublk@root; then fail "the unit allows a network"; fi
    systemctl reset-failed qed-ublk@root
}
# serve NAME: as /dev/ublkb0.
serve() { image "$1" && qed-ublk add "$1" >/dev/null; }
# mounted NAME: the same, with a file system, and a file on that.
mounted() {
    serve "$1"
    mkfs.ext4 -q -b 4096 /dev/ublkb0
    mount /dev/ublkb0 /mnt
    echo first >/mnt/file
    sync -f /mnt
}
# abandoned NAME: a device whose server has been killed, and that waits for the next one.
abandoned() { serve "$1" && kill_server; }
# snapshots NAME...: of device 0, each with something that the one before has not.
snapshots() {
    local name
    for name; do
        xfs_io -c "pwrite -q $((${#name} << 20)) 64k" -c fsync /dev/ublkb0
        qed-ublk snapshot 0 "$name.qed" >/dev/null
    done
}
overlay() { qemu-img create -q -f raw base.raw 64M && qed-ublk create --backing base.raw --backing-format raw "$1"; }
# configuration NAME IMAGE: of a unit.
configuration() {
    mkdir -p /etc/qed-ublk
    echo "IMAGE=$2" >"/etc/qed-ublk/$1.conf"
}
# unit NAME: one that serves device 0.
unit() {
    image "/srv/$1.qed"
    configuration "$1" "/srv/$1.qed"
    systemctl enable --now --quiet "qed-ublk@$1"
}

# What they say.

says() { [[ $printed =~ $1 ]] || fail "this was to be like '$1': $printed"; }
prints() { expect_equal "what is printed" "$1" "$printed"; }
first_disk_has() { expect_equal "what is on the disk" "$1" "$(</mnt/file)"; }
column() { qed-ublk list --noheadings --columns "$1" "${2:-0}"; }
limit_of() { grep -q "$2" "/sys/fs/cgroup/$1/io.max" || fail "limits of $1: $(<"/sys/fs/cgroup/$1/io.max")"; }

page README.md
elsewhere 'make demo' "needs the sources and Swift; its second line, make test, is what runs this scenario"
elsewhere 'make deb' "needs the sources; scripts/test-package makes the package, 91-package.sh installs it and reads the manual"
runs 'qed-ublk create disk.qed 20G'
types 'qed-ublk top' q
runs 'qed-ublk list' '' 'says /dev/ublkb0.*live'
runs 'systemctl enable --now qed-ublk@root' 'image root.qed; configuration root /srv/root.qed' 'column device /dev/qed/root'
runs 'qed-ublk add image.qed' 'image image.qed' 'prints /dev/ublkb0'

page docs/architecture.md
elsewhere 'driver' "a drawing"
elsewhere 'past the end ──extend──▶ free ──reserve──▶ reserved ─────publish─────▶ published ──seal──▶ sealed ──write──▶ written'\
' ──sync──▶ durable' "a drawing"

page docs/backup.md
runs 'qed-ublk snapshot --fsfreeze /mnt /dev/ublkb0 monday.qed' 'mounted disk.qed; mkdir backup' 'prints /srv/monday.qed'
goes_on 'qed-ublk snapshot --fsfreeze /mnt /dev/ublkb0 tuesday.qed' 'echo second >/mnt/file'
goes_on 'qed-ublk map --json --since monday.qed tuesday.qed' '' 'jq -e "length > 0" <<<"$printed" >/dev/null'
goes_on 'qed-ublk convert -O qed backup/tuesday.qed restored.qed'
runs 'qed-ublk add restored.qed' 'umount /mnt' 'mount -o ro "$printed" /mnt; first_disk_has second'
runs 'qed-ublk snapshots /dev/ublkb0' 'serve disk.qed; snapshots monday' 'says /srv/monday.qed'

page docs/bases.md
runs 'nbdkit -r -U /run/origin curl http://127.0.0.1:8080/base.raw' \
    'ip link set lo up; raw_disk base.raw; busybox httpd -p 127.0.0.1:8080 -h /srv' 'wait_until 20 test -S /run/origin'
goes_on "qed-ublk cache create base --base 'nbd+unix:///?socket=/run/origin'" '' 'prints /dev/ublkb0; udevadm settle'
goes_on 'for number in 1 2 3; do qed-ublk create -b /dev/qed/base -F raw clone$number.qed; done'
runs 'for number in 1 2 3; do qed-ublk add --backing-devices clone$number.qed; done' '' 'cmp /dev/ublkb3 base.raw'
goes_on 'qed-ublk flatten /dev/ublkb1' '' \
    'qed-ublk del 1 2 3; qed-ublk compare -f qed -F raw clone1.qed base.raw'
goes_on 'qed-ublk cache list' '' 'says base'
goes_on 'qed-ublk cache warm base' '' 'says /dev/ublkb0'
goes_on 'qed-ublk cache verify base' '' 'says /dev/ublkb0'
runs 'qed-ublk cache drop base' '' '[[ ! -e /var/cache/qed-ublk/base.qed ]]; no_origins'
runs "qed-ublk create --base 'nbd+unix:///?socket=/run/origin' /srv/first.qed" \
    'raw_disk base.raw; nbdkit -r -U /run/origin file base.raw; wait_until 20 test -S /run/origin'
goes_on "qed-ublk add --record /srv/start.reads --base-allow 'nbd+unix:*' /srv/first.qed" '' \
    'cmp /dev/ublkb0 base.raw; qed-ublk del 0; grep -q "^qed-ublk-reads 1 " start.reads'
goes_on "qed-ublk create --base 'nbd+unix:///?socket=/run/origin' /srv/next.qed"
runs "qed-ublk add --copy-on-read --prefetch /srv/start.reads --base-allow 'nbd+unix:*' /srv/next.qed" '' \
    'wait_until 20 grep -q prefetched /run/qed-ublk/ublk0.log'
goes_on 'qed-ublk warm /dev/ublkb0' '' 'says /srv/next.qed'
goes_on 'qed-ublk warm --offset 1M --length 2M /dev/ublkb0'
goes_on 'qed-ublk warm --ranges /srv/start.reads /dev/ublkb0' '' 'cmp /dev/ublkb0 base.raw; qed-ublk del 0; no_origins'
elsewhere 'qed-ublk-reads 1 209715200' "a recording"
runs 'qemu-nbd --fork -r -t -e 8 -f qcow2 -k /run/origin base.qcow2' \
    'raw_disk base.raw; qemu-img convert -O qcow2 base.raw base.qcow2'
runs "qed-ublk add --base-allow 'nbd+unix:*' /srv/disk.qed" '' 'cmp /dev/ublkb0 base.raw; qed-ublk del 0; no_origins'
runs 'nbdkit -r -p 10809 file /srv/base.raw' 'ip link set lo up; raw_disk base.raw' 'listens 10809'
runs "qed-ublk add --base-allow 'nbd://127.0.0.1/' /srv/disk.qed" '' 'cmp /dev/ublkb0 base.raw; qed-ublk del 0; no_origins'
elsewhere 'nbdkit -r -U /run/origin S3 bucket=images key=base.raw' "Tests/Origins/s3.sh has a bucket"
elsewhere 'qemu-nbd --fork -r -t -e 8 -f raw -k /run/origin rbd:pool/image:id=reader:conf=/etc/ceph/ceph.conf' \
    "needs a cluster of Ceph"
runs 'nbdkit -r -p 10809 --tls=require --tls-certificates=/srv/pki file /srv/base.raw' \
    'ip link set lo up; raw_disk base.raw; certificates' 'listens 10809'
runs 'qed-ublk add --base-allow nbds://127.0.0.1/ /srv/secure.qed' '' 'cmp /dev/ublkb0 base.raw; qed-ublk del 0; no_origins'
is_file '[Service]' /etc/systemd/system/qed-ublk@root.service.d/network.conf 'tcp_unit' \
    'sed -i s/192.0.2.7/127.0.0.1/ "$network"; systemctl daemon-reload; systemctl start qed-ublk@root;
        column device /dev/qed/root; udevadm settle; systemctl stop qed-ublk@root; nothing_is_left;
        rm "$network"; systemctl daemon-reload; no_origins'
runs "qed-ublk create --base 'nbd+unix:///?socket=/run/origin' probe.qed" \
    'raw_disk base.raw; nbdkit -r -U /run/origin file /srv/base.raw; wait_until 20 test -S /run/origin'
runs "qed-ublk convert --base-allow 'nbd+unix:*' -f qed -O raw probe.qed - | sha256sum" '' \
    'says "^$(sha256sum <base.raw | cut -d " " -f 1) "; no_origins'

page docs/boot.md
elsewhere '[Service]' "85-unit.sh has these lines, where systemd is 252"
is_file '# /etc/qed-ublk/root.conf' /etc/qed-ublk/root.conf 'mkdir images; image images/root.qed'
goes_on 'systemctl enable --now qed-ublk@root' '' 'expect_equal queues 2 "$(column queues root)"'
elsewhere '# /etc/fstab' "91-package.sh has these lines, with LVM"
elsewhere '# /etc/crypttab' "91-package.sh has this line"
runs 'systemctl enable --now "$(systemd-escape --path --template=qed-ublk@.service /srv/disk.qed)"' 'image disk.qed' \
    'column device disk.qed'
elsewhere 'systemctl restart qed-ublk@NAME' "as in docs/recovery.md"

page docs/control-socket.md
elsewhere 'echo status | socat - UNIX-CONNECT:/run/qed-ublk/ublk0.sock' \
    "socat is not in this machine; ControlSocketTests do the same"
elsewhere '{"ok":true,"result":…}' "what answers look like"

page docs/format.md
runs 'qed-ublk rebase -u -b base -F raw overlay.qed' 'overlay overlay.qed'

page docs/image-tools.md
convert_qcow2='nbdcopy -- [ qemu-nbd -r -f qcow2 disk.qcow2 ] - | qed-ublk convert -f raw -O qed - disk.qed'
unpack='zstd -dc disk.raw.zst | qed-ublk convert -f raw -O qed - disk.qed'
runs "$convert_qcow2" 'image a.qed 8M; qemu-img convert -f qed -O qcow2 a.qed disk.qcow2' 'qed-ublk compare a.qed disk.qed'
runs "$unpack" 'rm -f ./*; image a.qed 8M; qed-ublk convert a.qed disk.raw; zstd -q disk.raw' 'qed-ublk compare a.qed disk.qed'
runs 'qed-ublk convert disk.qed - | zstd -o disk.raw.zst' 'image disk.qed 8M' 'zstd -q -d disk.raw.zst;
    qed-ublk compare -f qed -F raw disk.qed disk.raw'

page docs/limits.md
runs 'systemctl set-property postgresql.service IOWriteBandwidthMax="/dev/ublkb0 50M"' 'serve disk.qed
    printf "[Service]\nExecStart=/usr/bin/sleep 10000\n" >/run/systemd/system/postgresql.service
    systemctl daemon-reload; systemctl start postgresql' 'limit_of system.slice/postgresql.service wbps=50000000'
runs 'echo "$(lsblk -dno MAJ:MIN /dev/ublkb0) wbps=52428800 riops=1000" >/sys/fs/cgroup/GROUP/io.max' \
    'mkdir -p /sys/fs/cgroup/GROUP' 'limit_of GROUP "wbps=52428800 riops=1000"; rmdir /sys/fs/cgroup/GROUP'
runs 'systemctl set-property qed-ublk@NAME.service IOWriteBandwidthMax="/dev/nvme0n1 50M"' \
    'ln -s "$VM_DATA_DISK" /dev/nvme0n1; unit NAME' \
    'limit_of "$(systemctl show --property ControlGroup --value qed-ublk@NAME)" wbps=50000000'
runs 'nice -n 10 ionice -c 2 -n 6 qed-ublk add image.qed' 'image image.qed' \
    'server=$(server_of 0); expect_equal "its priorities" "10 best-effort: prio 6" \
        "$(printf "%d %s" "$(ps -o ni= -p "$server")" "$(ionice -p "$server")")"'
runs 'qed-ublk list -n -O pid /dev/ublkb0' 'serve disk.qed' 'prints "$(server_of 0)"'

page docs/live.md
runs 'qed-ublk snapshot /dev/ublkb0 monday.qed' 'serve disk.qed' 'prints /srv/monday.qed'
runs 'qed-ublk snapshot --json disk.qed tuesday.qed' '' 'jq -e ".microseconds > 0" <<<"$printed" >/dev/null'
runs 'qed-ublk snapshots /dev/ublkb0' '' 'says /srv/tuesday.qed.*/srv/monday.qed'
runs 'qed-ublk add $(qed-ublk fork /dev/ublkb0 base.qed second.qed)' '' 'prints /dev/ublkb1'
runs 'umount /mnt' 'mounted disk.qed; qed-ublk snapshot 0 monday.qed; echo second >/mnt/file'
runs 'mount /dev/ublkb0 /mnt' '' 'first_disk_has first'
runs 'qed-ublk commit --keep 3 /dev/ublkb0' 'serve disk.qed; snapshots monday tuesday wednesday thursday friday' \
    'says "/srv/monday.qed: has what .* had, which .* gone: /srv/tuesday.qed"'
runs 'qed-ublk commit --into monday.qed /dev/ublkb0' '' 'expect_equal "the chain" "disk.qed monday.qed" "$(chain)"'
runs 'qed-ublk commit -p /dev/ublkb0' 'snapshots saturday sunday' 'expect_equal "the chain" "disk.qed monday.qed" "$(chain)"'
runs 'qed-ublk resize /dev/ublkb0 +10G && resize2fs /dev/ublkb0' 'mounted disk.qed' \
    '(($(df --output=size -B1 /mnt | tail -n 1) > 9 << 30)); first_disk_has first'
runs 'qed-ublk flatten /dev/ublkb0' 'serve disk.qed; snapshots monday' 'says /srv/monday.qed'
runs 'qed-ublk flatten -p /dev/ublkb0' 'snapshots tuesday' 'expect_equal "the chain" disk.qed "$(chain)"'
runs 'qed-ublk snapshot --fsfreeze /mnt /dev/ublkb0 monday.qed' 'mounted disk.qed' 'prints /srv/monday.qed'
runs 'qed-ublk snapshot /dev/ublkb0 --overlay next.qed' 'serve disk.qed' 'prints /srv/disk.qed; column image /srv/next.qed'

page docs/recovery.md
runs 'qed-ublk create disk.qed 1G'
runs 'dd if=/dev/urandom of=/mnt/file bs=1M count=64 status=none; md5sum /mnt/file' '' 'sum=$printed'
runs 'md5sum /mnt/file' '' 'prints "$sum"'
runs 'qed-ublk add --no-supervise disk.qed' 'image disk.qed' 'prints /dev/ublkb0'
runs 'qed-ublk list' '' 'says /dev/ublkb0.*waiting'
runs 'systemctl restart qed-ublk@NAME' \
    'unit NAME; mkfs.ext4 -q /dev/ublkb0; mount /dev/ublkb0 /mnt; first_server=$(server_of 0)' \
    '[[ $first_server != "$(server_of 0)" ]]'
runs 'kill "$(qed-ublk list --json | jq '\''.[0].pid'\'')"; qed-ublk recover 0' 'clean_up; mounted disk.qed' 'prints /dev/ublkb0'
runs 'qed-ublk add disk.qed' 'abandoned disk.qed' 'prints /dev/ublkb0'
elsewhere 'systemctl enable --now qed-ublk@NAME' "as in qed-ublk.7"

page docs/security.md
runs 'qed-ublk add --untrusted stranger.qed' 'image stranger.qed' 'prints /dev/ublkb0'
elsewhere 'qed-ublk serve (nobody)' "a drawing"
elsewhere '[Service]' "85-unit.sh has this line"
elsewhere 'server of the unit' "a drawing"

page qed-ublk.7
runs 'qed-ublk create disk.qed 20G'
goes_on 'qed-ublk snapshot disk.qed monday.qed' 'echo first >/mnt/file; sync -f /mnt' 'prints /srv/monday.qed'
runs 'qed-ublk snapshots disk.qed' '' 'says /srv/base.qed.*/srv/monday.qed'
goes_on 'umount /mnt' 'echo second >/mnt/file'
runs 'qed-ublk rollback disk.qed monday.qed' '' 'mount /dev/ublkb0 /mnt; first_disk_has first; umount /mnt'
goes_on 'qed-ublk del disk.qed second.qed'
is_file 'IMAGE=/srv/disk.qed' /etc/qed-ublk/NAME.conf 'image disk.qed'
goes_on 'systemctl enable --now qed-ublk@NAME' '' 'expect_equal queues 2 "$(column queues NAME)"'
is_file '/dev/qed/NAME' /etc/fstab 'unit NAME; mkfs.ext4 -q /dev/qed/NAME' \
    'systemctl daemon-reload; systemctl start mnt.mount; rm /etc/fstab; findmnt -n -o SOURCE /mnt | grep -q /dev/ublkb0'

page --help
runs 'qed-ublk create --backing base.raw --backing-format raw overlay.qed' 'truncate -s 64M base.raw'
goes_on 'qed-ublk info --backing-chain overlay.qed' '' 'says overlay.qed.*base.raw'
runs 'qed-ublk check -r all disk.qed' 'image disk.qed'
runs 'qed-ublk map --output json --since monday.qed tuesday.qed' 'serve disk.qed; snapshots monday tuesday; qed-ublk del 0' \
    'jq -e "length > 0" <<<"$printed" >/dev/null'
runs 'qed-ublk measure -f raw disk.raw -O qed' 'truncate -s 64M disk.raw' 'says "required size: [0-9]"'
runs 'qed-ublk compare -f raw -F qed disk.raw disk.qed' 'image disk.qed; qed-ublk convert disk.qed disk.raw' 'says identical'
runs 'qed-ublk convert -p -f raw -O qed disk.raw disk.qed' 'image a.qed 8M; qed-ublk convert a.qed disk.raw' \
    'qed-ublk compare a.qed disk.qed'
runs "$unpack" 'image a.qed 8M; qed-ublk convert a.qed disk.raw; zstd -q disk.raw' 'qed-ublk compare a.qed disk.qed'
runs 'qed-ublk convert disk.qed - | zstd -o disk.raw.zst' 'image disk.qed 8M'
runs "$convert_qcow2" 'image a.qed 8M; qemu-img convert -f qed -O qcow2 a.qed disk.qcow2' 'qed-ublk compare a.qed disk.qed'
runs "qed-ublk io disk.qed 'write -P 0xab 64k 4k' 'read -P 0xab 64k 4k'" 'image disk.qed'
runs 'qed-ublk resize disk.qed +10G' 'image disk.qed'
runs 'qed-ublk resize /dev/ublkb0 20G' 'serve disk.qed' \
    'expect_equal "its size" $((20 << 30)) "$(blockdev --getsize64 /dev/ublkb0)"'
runs 'qed-ublk commit overlay.qed' 'overlay overlay.qed'
runs 'qed-ublk commit --keep 3 /dev/ublkb0' 'serve disk.qed; snapshots a bc def ghij klmno' \
    'expect_equal "the chain" "disk.qed klmno.qed ghij.qed def.qed a.qed" "$(chain)"'
runs 'qed-ublk rebase -b new-base.qed -F qed overlay.qed' 'overlay overlay.qed; image new-base.qed 64M'
runs 'qed-ublk flatten -p overlay.qed' 'overlay overlay.qed'
runs 'qed-ublk flatten /dev/ublkb0' 'serve disk.qed; snapshots monday' 'says /srv/monday.qed'
runs 'qed-ublk warm -p /dev/ublkb0' \
    'raw_disk base.raw; qed-ublk create -b base.raw -F raw disk.qed; qed-ublk add --copy-on-read disk.qed' 'says /srv/disk.qed'
goes_on 'qed-ublk warm --offset 1M --length 2M /dev/ublkb0' '' 'cmp /dev/ublkb0 base.raw'
images='raw_disk base.raw; echo 127.0.0.1 images >/etc/hosts; ip link set lo up; nbdkit -r file base.raw; listens 10809'
runs 'qed-ublk cache create debian --base nbd://images/debian --limit 20G' "$images" \
    'cmp /dev/qed/debian base.raw; qed-ublk cache drop debian; no_origins'
runs 'qed-ublk cache create debian --base nbd://images/debian' "$images" 'prints /dev/ublkb0'
goes_on 'qed-ublk cache list' '' 'says debian'
goes_on 'qed-ublk cache warm debian' '' 'says /dev/ublkb0'
goes_on 'qed-ublk cache verify debian' '' 'says /dev/ublkb0'
goes_on 'qed-ublk cache drop debian' '' 'no_origins'
runs 'qed-ublk compact -p disk.qed' 'image disk.qed'
runs 'mkfs.ext4 $(qed-ublk add disk.qed)' 'image disk.qed' 'expect_status 0 e2fsck -fn /dev/ublkb0'
goes_on 'qed-ublk list --noheadings --columns device disk.qed' '' 'prints /dev/ublkb0'
goes_on 'qed-ublk status --json /dev/ublkb0 | jq .failed' '' 'prints false'
goes_on "qed-ublk stats --json /dev/ublkb0 | jq '.\"storage-operations\".fsyncs'" '' 'says ^[0-9]+$'
goes_on 'qed-ublk top -b -n 1' '' 'says ublkb0.*live'
goes_on 'qed-ublk metrics --file /var/lib/prometheus/node-exporter/qed.prom' \
    'mkdir -p /var/lib/prometheus/node-exporter' 'grep -q ublkb0 /var/lib/prometheus/node-exporter/qed.prom'
goes_on 'qed-ublk snapshot /dev/ublkb0 /srv/monday.qed' '' 'prints /srv/monday.qed'
goes_on 'qed-ublk snapshot /dev/ublkb0 --overlay /srv/tuesday.qed' '' 'prints /srv/disk.qed'
goes_on 'qed-ublk add $(qed-ublk fork 0 /srv/base.qed /srv/second.qed)' '' 'prints /dev/ublkb1'
runs 'umount /mnt && qed-ublk rollback /dev/ublkb0 monday.qed' \
    'mounted disk.qed; qed-ublk snapshot 0 monday.qed; echo second >/mnt/file' 'mount /dev/ublkb0 /mnt; first_disk_has first'
goes_on "qed-ublk snapshots --json /dev/ublkb0 | jq -r '.[1].filename'" '' 'prints /srv/monday.qed'
goes_on 'qed-ublk del /dev/ublkb0' 'umount /mnt'
runs 'qed-ublk recover --all' 'abandoned disk.qed' 'prints /dev/ublkb0'
runs "qed-ublk doctor --json | jq '.[] | select(.verdict == \"trouble\")'" '' 'prints ""'
runs 'qed-ublk bench -w -c 20000 -d 32 -s 4k -S 64k -t none disk.qed' 'image disk.qed'

step "the program is installed as its package does it, and /srv is empty"
install -m 755 /payload/qed-ublk /usr/bin/qed-ublk
install -m 644 /payload/qed-ublk@.service /etc/systemd/system/
install -D -m 644 /payload/59-qed-ublk.rules /etc/udev/rules.d/59-qed-ublk.rules
install -D -m 755 /payload/qed-ublk-generator /etc/systemd/system-generators/qed-ublk-generator
rm /payload/qed-ublk
hash -r
udevadm control --reload
systemctl daemon-reload
mkdir -p /srv /data/srv
mount --bind /data/srv /srv

step "examples that do not do what their page says are noticed"
disk='runs "truncate -s 1M disk"'
expect_noticed 'status 64 from an example: qed-ublk info --no-such disk$' "$disk" \
    $'```\ntruncate -s 1M disk   # a disk\n\nqed-ublk info --no-such disk\n```'
for rest in '; true' ' && true' ' | cat'; do
    expect_noticed 'status 1 from an example: cat other' "runs 'cat other$rest'" $'```\ncat other'"$rest"$'\n```'
done
expect_noticed "what is printed: expected '/dev/ublkb0', got '/dev/null'" "$disk" \
    $'```\ntruncate -s 1M disk\nreadlink -f /dev/null  # prints /dev/ublkb0, as it says\n```'
expect_noticed '^    planted: qed-ublk top -b$' "$disk" $'```\ntruncate -s 1M disk\n```\nAnd\n   ```\nqed-ublk top -b\n   ```'
expect_noticed '^    planted: qed-ublk info ./disk$' "$disk" $'```\ntruncate -s 1M disk\n```\nAnd `qed-ublk info\n./disk`.'
expect_noticed 'on no page: planted: qed-ublk top' "$disk; runs 'qed-ublk top'" $'```\ntruncate -s 1M disk\n```'

read_examples README.md markdown /payload/README.md
for file in /payload/docs/*.md; do read_examples "docs/${file##*/}" markdown "$file"; done
for file in /payload/man/*; do read_examples "${file##*/}" manual "$file"; done
# commands_in COMMAND...: those that its help names.
commands_in() { qed-ublk "$@" --help | sed -n '/^SUBCOMMANDS/,$s/^  \([a-z]\+\) .*/\1/p'; }
for command in $(commands_in); do
    qed-ublk "$command" --help >/tmp/help
    read_examples --help help /tmp/help
    for part in $(commands_in "$command"); do
        qed-ublk "$command" "$part" --help >/tmp/help
        read_examples --help help /tmp/help
    done
done
expect_complete_tables
only_of=${PAGE-}
run_examples

step "$examples_run examples with $commands_run commands were run, $examples_elsewhere were not"
[[ -n $only_of ]] || ((examples_run >= 71 && commands_run >= 117)) || fail "these are fewer than there were"
