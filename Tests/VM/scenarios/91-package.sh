# What a user does with a new Debian: installs the package, reads its manual, has disks at boot for fstab, swap, LVM and
# crypttab, upgrades it under mounted disks, and removes it, after which nothing is left.
# vm: --init debian --memory 3072 --timeout 1800 --file .build/qed-ublk.deb --file .build/qed-ublk-next.deb
source lib.sh
# The package's own.
rm -f /payload/qed-ublk
hash -r
export DEBIAN_FRONTEND=noninteractive

install_package() { expect_status 0 apt-get install --yes --no-install-recommends "$1"; }
# Everything but what apt and man keep for themselves, and what belongs to the test.
files() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /data -o -path /payload \
        -o -path /results -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/log -o -path /root \
        -o -path /var/lib/systemd \) -prune -o -print | sort
}
server_of_unit() { systemctl show --property MainPID --value "qed-ublk@$1"; }
settled() { udevadm settle --timeout 60; }
property() { udevadm info --query property --property "$2" --value "$1"; }
is_in_use() { findmnt -rn "$1" >/dev/null; }

explain_failure() { journalctl -b -u 'qed-ublk@*' --no-pager -o short-monotonic | tail -n 40; }

first_boot() {
    step "the package: installed, and nothing runs by itself"
    files >/root/files-before
    install_package /payload/qed-ublk.deb
    expect_output '^0\.1\.0$' qed-ublk --version
    expect_equal "what has failed" "" "$(systemctl --failed --plain --no-legend)"
    modprobe -r ublk_drv
    expect_output 'ublk' qed-ublk doctor
    expect_status 0 systemd-analyze verify /usr/lib/systemd/system/qed-ublk@.service

    step "the manual, of the program and of each command"
    expect_output '^QED-UBLK\(1\)' man qed-ublk
    expect_output '^QED-UBLK-ADD\(1\)' man qed-ublk add
    expect_output '^QED-UBLK\(7\)' man 7 qed-ublk
    expect_output '^QED\(5\)' man qed
    expect_status 0 bash -c 'source /usr/share/bash-completion/completions/qed-ublk && complete -p qed-ublk'

    step "a disk by its image's path: udev makes links of it, and knows what is on it"
    mkdir /srv/images
    qed-ublk create /srv/images/by-path.qed 256M
    unit=$(systemd-escape --path --template=qed-ublk@.service /srv/images/by-path.qed)
    expect_status 0 systemctl enable --now "$unit"
    name=$(systemd-escape --path /srv/images/by-path.qed)
    expect_equal "the name" 'srv-images-by\x2dpath.qed' "$name"
    disk=/dev/disk/by-id/qed-$name
    settled
    expect_equal "the links" "/dev/ublkb0 /dev/ublkb0" "$(readlink -f "$disk") $(readlink -f "/dev/qed/$name")"
    mkfs.ext4 -q -L with-label "$disk"
    settled
    expect_equal "the link by its label" "/dev/ublkb0" "$(readlink -f /dev/disk/by-label/with-label)"
    expect_output '^ublkb0 +QED +qed-srv.* +ext4 +with-label' lsblk -no NAME,MODEL,SERIAL,FSTYPE,LABEL /dev/ublkb0
    expect_output '^ext4$' property /dev/ublkb0 ID_FS_TYPE
    expect_output "^$(blkid -o value -s UUID /dev/ublkb0)$" property /dev/ublkb0 ID_FS_UUID

    step "an image from somebody else, as a unit: its server has no rights"
    qed-ublk create /srv/images/strange.qed 64M
    mkdir -p /etc/qed-ublk
    printf 'IMAGE=/srv/images/strange.qed\nOPTIONS=--untrusted\n' >/etc/qed-ublk/strange.conf
    systemctl daemon-reload
    expect_status 0 systemctl start qed-ublk@strange
    expect_equal "the server" "65534 0000000000000000 1 2" "$(
        awk '/^(Uid|CapEff|NoNewPrivs|Seccomp):/ { print $2 }' "/proc/$(server_of_unit strange)/status" | paste -sd ' ')"
    mkfs.ext4 -q /dev/qed/strange
    expect_status 0 systemctl stop qed-ublk@strange
    expect_equal "what has failed" "" "$(systemctl --failed --plain --no-legend)"
    rm /etc/qed-ublk/strange.conf /srv/images/strange.qed
    systemctl daemon-reload

    step "disks with names, that files in /etc/qed-ublk describe"
    mkdir -p /etc/qed-ublk
    for name in files swap secret group; do
        qed-ublk create "/srv/images/$name of \$HOME.qed" 128M
        printf 'IMAGE="/srv/images/%s of $HOME.qed"\n' "$name" >"/etc/qed-ublk/$name.conf"
    done
    echo 'OPTIONS=--queues 1 --depth 16' >>/etc/qed-ublk/files.conf
    mkdir /srv/elsewhere
    systemctl daemon-reload
    expect_status 0 systemctl enable --now qed-ublk@{files,swap,secret,group}
    settled
    expect_output '^/dev/ublkb[0-9]+ +1 +16 +files +/srv/images/files of \$HOME.qed$' \
        qed-ublk list -O device,queues,depth,name,image /dev/qed/files
    expect_equal "by its name alone" "/dev/qed/files" "/dev/qed/$(qed-ublk list -n -O name files)"
    # What changes a disk's files while it works takes other system calls than serving does.
    (cd /srv/images && for name in one two; do expect_status 0 qed-ublk snapshot /dev/qed/files "$name.qed"; done)
    expect_status 0 qed-ublk commit /dev/qed/files
    expect_status 0 qed-ublk rollback /dev/qed/files /srv/images/one.qed
    expect_status 0 qed-ublk flatten /dev/qed/files
    rm /srv/images/one.qed
    mkfs.ext4 -q /dev/qed/files
    mkswap -q /dev/qed/swap
    pvcreate -q /dev/qed/group
    vgcreate -q group /dev/qed/group
    lvcreate -q -n volume -l 100%FREE group
    mkfs.ext4 -q /dev/group/volume
    head -c 32 /dev/urandom >/etc/secret-key
    cryptsetup open --type plain --cipher aes-cbc-essiv:sha256 --key-size 256 --key-file /etc/secret-key /dev/qed/secret secret
    mkfs.ext4 -q /dev/mapper/secret
    cryptsetup close secret

    step "an image on a file system that is mounted from another image"
    qed-ublk create /srv/images/outer.qed 512M
    echo IMAGE=/srv/images/outer.qed >/etc/qed-ublk/outer.conf
    echo IMAGE=/srv/elsewhere/inner.qed >/etc/qed-ublk/inner.conf
    systemctl daemon-reload
    systemctl enable --now qed-ublk@outer
    mkfs.ext4 -q /dev/qed/outer
    mount /dev/qed/outer /srv/elsewhere
    qed-ublk create /srv/elsewhere/inner.qed 64M
    expect_status 0 systemctl enable --now qed-ublk@inner
    mkfs.ext4 -q /dev/qed/inner
    systemctl stop qed-ublk@inner
    umount /srv/elsewhere

    step "fstab and crypttab"
    mkdir /mnt/{files,volume,secret,inner,label}
    cat >>/etc/fstab <<'FSTAB'
/dev/qed/files      /mnt/files      ext4  x-systemd.after=qed-ublk@files.service  0  2
/dev/qed/outer      /srv/elsewhere  ext4  x-systemd.after=qed-ublk@outer.service  0  2
/dev/qed/inner      /mnt/inner      ext4  x-systemd.after=qed-ublk@inner.service  0  2
/dev/group/volume   /mnt/volume     ext4  defaults                                   0  2
/dev/mapper/secret  /mnt/secret     ext4  defaults                                   0  2
/dev/qed/swap       none            swap  x-systemd.after=qed-ublk@swap.service   0  0
LABEL=with-label    /mnt/label      ext4  defaults                                   0  0
FSTAB
    echo 'secret /dev/qed/secret /etc/secret-key plain,cipher=aes-cbc-essiv:sha256,size=256' >>/etc/crypttab
    systemctl daemon-reload
    expect_status 0 systemctl start systemd-cryptsetup@secret
    for place in files volume secret inner label; do
        if [[ $place == inner ]]; then systemctl start srv-elsewhere.mount qed-ublk@inner; fi
        expect_status 0 systemctl start "mnt-$place.mount"
        echo "on $place" >"/mnt/$place/file"
    done
    swapon /dev/qed/swap
    reboot_machine
}

second_boot() {
    step "after a reboot: everything is there"
    for place in files volume secret inner label; do
        findmnt "/mnt/$place" >/dev/null || { systemctl --failed --no-pager; fail "/mnt/$place is not mounted"; }
        expect_equal "what is there" "on $place" "$(<"/mnt/$place/file")"
    done
    expect_equal "what is swap" "$(readlink -f /dev/qed/swap)" "$(swapon --noheadings --show=NAME)"
    expect_equal "what has failed" "" "$(systemctl --failed --plain --no-legend)"
    expect_output '^on$' bash -c 'qed-ublk doctor >/root/doctor; [[ $? == 0 || $? == 1 ]] && echo on'
    journalctl -b -u 'qed-ublk@*' --no-pager >/root/journal
    if grep -E 'the last server died|was not closed cleanly' /root/journal; then fail "an image was not closed well"; fi

    step "a partition table: partitions come with links, and go"
    qed-ublk create /srv/images/parts.qed 64M
    device=$(qed-ublk add --name parts /srv/images/parts.qed)
    printf 'label: gpt\n,16M,,\n,,,\n' | sfdisk -q "$device"
    settled
    expect_equal "partitions" "${device}p1 ${device}p2" "$(readlink -f /dev/qed/parts-part1) $(readlink -f /dev/qed/parts-part2)"
    expect_status 3 qed-ublk add --name parts /srv/images/by-path.qed
    qed-ublk del parts
    settled
    expect_equal "links" "" "$(compgen -G '/dev/qed/parts*' || true)"
    device=$(qed-ublk add --no-partscan /srv/images/parts.qed)
    settled
    expect_equal "partitions without a scan" "" "$(compgen -G "${device}p*" || true)"
    expect_output '^gpt$' property "$device" ID_PART_TABLE_TYPE
    qed-ublk del "$device"

    step "a stranger's: nobody looks at it, neither for file systems nor for LVM"
    for kind in group by-path; do
        cp "/srv/images/$kind"*.qed /srv/images/strange.qed
        qed-ublk check -q -r all /srv/images/strange.qed || true
        device=$(qed-ublk add --untrusted --name strange /srv/images/strange.qed)
        settled
        expect_equal "the link" "$device" "$(readlink -f /dev/qed/strange)"
        expect_equal "what udev knows of it" "" "$(property "$device" ID_FS_TYPE)$(property "$device" ID_PART_TABLE_TYPE)"
        qed-ublk del strange
        rm /srv/images/strange.qed
    done
    device=$(qed-ublk add --untrusted /srv/images/parts.qed)
    settled
    expect_equal "partitions of a stranger's" "" "$(compgen -G "${device}p*" || true)"
    qed-ublk del "$device"

    step "an upgrade under mounted disks: they go on with their servers, and a restart gives them new ones"
    server=$(server_of_unit files)
    (while [[ ! -e /root/stop ]]; do
        date >>/mnt/files/dates && sync /mnt/files/dates || echo "$?" >>/root/write-errors
    done) &
    writer=$!
    install_package /payload/qed-ublk-next.deb
    expect_equal "the version" 999 "$(dpkg-query -W -f '${Version}' qed-ublk)"
    expect_equal "the server" "$server" "$(server_of_unit files)"
    expect_output 'deleted' readlink "/proc/$server/exe"
    expect_status 0 systemctl restart qed-ublk@files
    [[ $(server_of_unit files) != "$server" ]] || fail "the same server"
    expect_equal "the new server's program" /usr/bin/qed-ublk "$(readlink "/proc/$(server_of_unit files)/exe")"
    touch /root/stop
    wait "$writer"
    [[ ! -e /root/write-errors ]] || fail "a write has failed"
    expect_equal "what is there" "on files" "$(</mnt/files/file)"

    step "it is not removed while there are devices"
    expect_status 100 apt-get remove --yes qed-ublk
    expect_equal "the package" "installed" "$(dpkg-query -W -f '${db:Status-Status}' qed-ublk)"
    expect_equal "what is there" "on files" "$(</mnt/files/file)"

    step "removed and purged: nothing is left"
    umount /mnt/{files,volume,secret,inner,label}
    swapoff -a
    vgchange -q -an group
    systemctl stop systemd-cryptsetup@secret
    systemctl disable --now qed-ublk@{files,swap,secret,group,inner}
    umount /srv/elsewhere
    systemctl disable --now qed-ublk@outer "$(systemd-escape --path --template=qed-ublk@.service /srv/images/by-path.qed)"
    expect_equal "devices" "" "$(qed-ublk list -n)"
    for image in /srv/images/*.qed; do expect_status 0 qed-ublk check "$image"; done
    expect_status 0 apt-get remove --yes qed-ublk
    [[ -e /etc/qed-ublk/files.conf ]] || fail "removing the package has removed its configuration"
    expect_status 0 apt-get purge --yes qed-ublk
    sed -i '/qed\|group\|secret\|label/d' /etc/fstab /etc/crypttab
    rm -r /etc/secret-key /srv/images /srv/elsewhere /mnt/{files,volume,secret,inner,label} /root/{stop,doctor,journal}
    settled
    expect_equal "what is left in /dev and /run" "" "$(compgen -G '/dev/qed/*' || compgen -G '/run/qed-ublk*' || true)"
    files >/root/files-after
    diff /root/files-before /root/files-after >/root/difference || true
    expect_equal "what is left" "" "$(grep -v -e '^[0-9]' -e /etc/lvm -e /etc/ld.so.cache /root/difference || true)"
}

case $VM_BOOT in
    1) first_boot ;;
    2) second_boot ;;
esac
