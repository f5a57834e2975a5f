# The machine is rebooted by systemd, process 1 here, while disks are mounted and dirty: whoever unmounts them, and when, the
# server is there until it has been done. What was written is there in the next boot, and the images are clean.
# vm: --file Tests/VM/scenarios/devices.bash --file packaging/qed-ublk@.service --file packaging/59-qed-ublk.rules
# vm: --file packaging/qed-ublk-users@.service --file packaging/qed-ublk-users.socket
# vm: --init systemd --disk 6G
source lib.sh
source devices.bash
cd /

# unit_of IMAGE: the unit's name.
unit_of() { systemd-escape --path --template=qed-ublk@.service "$1"; }

unit=$(unit_of '/data/images/hand $HOME 50%%h.qed')

# fill FOLDER MIB: writes that much, and the sum of it where the next boot finds it; nothing of it is flushed.
fill() {
    head -c "$2M" /dev/urandom >"$1/dirty"
    md5sum "$1/dirty" >"/data/sum-${1//\//-}"
}

# Expects that what `fill` has written is there.
expect_filled() {
    local folder
    for folder; do expect_status 0 md5sum -c "/data/sum-${folder//\//-}"; done
}

case $VM_BOOT in
1)
    step "what the next boots find: the program, its unit, an enabled instance, and a line of fstab"
    install -D -m 755 /payload/qed-ublk /data/root/usr/bin/qed-ublk
    mkdir -p /data/root/etc/systemd/system
    install -m 644 /payload/qed-ublk{@.service,-users@.service,-users.socket} /data/root/etc/systemd/system
    install -D -m 644 /payload/59-qed-ublk.rules /data/root/etc/udev/rules.d/59-qed-ublk.rules
    # Whoever does not end is killed sooner than after 90 seconds, or waited for no longer.
    mkdir -p /data/root/etc/systemd/system/qed-ublk@.service.d
    printf '[Manager]\nDefaultTimeoutStopSec=20s\n' >/data/root/etc/systemd/system.conf
    printf '[Service]\nTimeoutStopSec=20s\n' >/data/root/etc/systemd/system/qed-ublk@.service.d/test.conf
    # One that has no relation to the mount of /data, as if its image lay on the root file system.
    mkdir -p /data/root/srv /data/root/mnt/{hand,part,fstab,early,own,root}
    ln -s /data/images/root.qed /data/root/srv/root.qed
    cp -a /data/root/. /
    udevadm control --reload
    mkdir /data/images
    for name in 'hand $HOME 50%%h' part fstab early own root; do qed-ublk create "/data/images/$name.qed" 512M; done
    systemctl daemon-reload

    step "units: a path with dollar and percent signs; each mounted by hand, one from a partition"
    systemctl start "$unit"
    expect_output 'Status: "serving /data/images/hand \$HOME 50%%h.qed as /dev/ublkb0"' systemctl status --no-pager "$unit"
    systemctl start "$(unit_of /data/images/part.qed)"
    echo ',,' | sfdisk --quiet --label gpt /dev/ublkb1
    wait_until 30 test -b /dev/ublkb1p1
    systemctl start "$(unit_of /srv/root.qed)"
    qed-ublk add /data/images/own.qed
    systemctl start "$(unit_of /data/images/fstab.qed)" "$(unit_of /data/images/early.qed)"
    for image in fstab early; do
        device=$(qed-ublk list --json | jq -r ".[] | select(.image | endswith(\"$image.qed\")) | .device")
        expect_status 0 mkfs.ext4 -q -L "$image" "$device"
    done
    expect_status 0 mkfs.ext4 -q /dev/ublkb0
    expect_status 0 mkfs.xfs -q -f /dev/ublkb1p1
    expect_status 0 mkfs.ext4 -q /dev/ublkb2
    expect_status 0 mkfs.ext4 -q /dev/ublkb3
    mount /dev/ublkb0 /mnt/hand
    mount /dev/ublkb1p1 /mnt/part
    mount /dev/ublkb2 /mnt/root
    mount /dev/ublkb3 /mnt/own

    step "fstab, as docs/recovery.md has it"
    {
        echo "LABEL=fstab /mnt/fstab ext4 _netdev,nofail,x-systemd.requires=$(unit_of /data/images/fstab.qed) 0 0"
        echo "LABEL=early /mnt/early ext4 x-systemd.requires=$(unit_of /data/images/early.qed) 0 0"
    } >/data/root/etc/fstab
    cp /data/root/etc/fstab /etc/fstab
    systemctl daemon-reload
    systemctl start mnt-fstab.mount mnt-early.mount

    step "64 MiB on each, and a reboot"
    for folder in hand part fstab early own root; do fill "/mnt/$folder" 64; done
    reboot_machine
    ;;
2)
    step "mounted at boot by fstab, without a cycle in the order"
    findmnt /mnt/fstab
    findmnt /mnt/early
    if dmesg | grep -i 'ordering cycle'; then fail "there is a cycle"; fi
    expect_filled /mnt/fstab /mnt/early

    step "everything else is there, in images that were closed well"
    for name in 'hand $HOME 50%%h' part own root; do
        is_marked_clean "/data/images/$name.qed" || fail "$name.qed was not closed"
        device=$(qed-ublk add "/data/images/$name.qed")
        if [[ $name == part ]]; then device+=p1; fi
        mount "$device" "/mnt/${name%% *}"
        expect_filled "/mnt/${name%% *}"
    done

    step "disks that cannot be unmounted before everybody is killed, and a reboot"
    umount /mnt/hand
    qed-ublk del '/data/images/hand $HOME 50%%h.qed'
    systemctl start "$unit"
    mount "$(qed-ublk list --json | jq -r '.[] | select(.image | contains("HOME")) | .device')" /mnt/hand
    for name in hand own root; do
        # In no group that systemd ends.
        (echo 0 >/sys/fs/cgroup/cgroup.procs && cd "/mnt/$name" && trap '' TERM HUP && exec sleep 10000) &
    done
    sleep 1
    for name in hand part fstab early own root; do fill "/mnt/$name" 16; done
    reboot_machine
    ;;
3)
    step "all of it is there"
    expect_filled /mnt/fstab /mnt/early
    for name in 'hand $HOME 50%%h' part own root; do
        device=$(qed-ublk add "/data/images/$name.qed")
        if [[ $name == part ]]; then device+=p1; fi
        mount "$device" "/mnt/${name%% *}"
        expect_filled "/mnt/${name%% *}"
        umount "/mnt/${name%% *}"
        if [[ $name != part ]]; then expect_status 0 e2fsck -fn "$device"; fi
        qed-ublk del "${device%p1}"
        # The last server may have had no time to close it.
        expect_undamaged "/data/images/$name.qed"
    done
    ;;
esac
