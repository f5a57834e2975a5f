# Two overlays of one base are two disks at the same time. Each has its own changes, the base has none of them, and QEMU
# agrees with both.
# kernels: 6.12
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data

# A base with a file system on it, used by nobody any more.
make_base() {
    rm -f base.*
    truncate -s 96M base.raw
    expect_status 0 mkfs.ext4 -q base.raw
    modprobe loop
    mount -o loop base.raw /mnt
    cp -a /usr/lib/modules /mnt/
    echo original >/mnt/word
    umount /mnt
    if [[ $1 == qed ]]; then
        qemu-img convert -f raw -O qed base.raw base.qed
        rm base.raw
    fi
}

mkdir -p one two
for format in raw qed; do
    step "$format: a base, and two overlays of it that are mounted side by side"
    make_base "$format"
    base=base.$format
    before=$(fingerprint "$base")
    for name in one two; do
        qed-ublk create "$name.qed" --backing "$base" --backing-format "$format"
        device=$(qed-ublk add "$name.qed")
        mount "$device" "$name"
    done
    expect_equal "what is served" '/dev/ublkb0 /data/one.qed /dev/ublkb1 /data/two.qed' \
        "$(qed-ublk list --json | jq -r '.[] | .device, .image' | paste -sd ' ')"
    expect_refusal 3 'one.qed: in use' qed-ublk add one.qed

    step "$format: both start as the base and go their own ways"
    for name in one two; do
        expect_equal "the word in $name" original "$(<"$name/word")"
        expect_status 0 diff -r /usr/lib/modules "$name/modules"
    done
    # At the same time, and into clusters that they share with the base.
    for name in one two; do
        (
            echo "changed by $name" >"$name/word"
            for i in {1..40}; do seq "$i" 4000 >"$name/numbers-$i"; done
            sync -f "$name/word"
        ) &
    done
    wait
    rm -r two/modules
    sync -f two
    describe_both() {
        for name in one two; do
            cat "$name/word"
            find "$name" -mindepth 1 ! -name lost+found -printf '%p %s\n' | sort
            cat "$name"/numbers-* | sha256sum
        done
    }
    describe_both >expected
    expect_equal "a word of one" "changed by one" "$(<one/word)"
    expect_equal "a word of two" "changed by two" "$(<two/word)"
    umount one two
    qed-ublk del one.qed
    expect_equal "what is still served" '"/data/two.qed"' "$(qed-ublk list --json | jq '.[].image')"
    qed-ublk del two.qed
    expect_no_devices
    expect_sound one.qed two.qed
    expect_equal "the base" "$before" "$(fingerprint "$base")"

    step "$format: QEMU finds in each what was left there"
    for name in one two; do
        qemu-img convert -f qed -O raw "$name.qed" "$name.raw"
        mount -o loop,ro "$name.raw" "$name"
    done
    describe_both >actual
    expect_status 0 cmp expected actual
    umount one two

    step "$format: and so does the next device, whatever directory it is added from"
    device=$(cd /tmp && qed-ublk add /data/one.qed)
    qemu-img compare -q -f raw -F raw "$device" one.raw
    qed-ublk del "$device"
    ln -sfn /data /tmp/way
    device=$(qed-ublk add /tmp/way/two.qed)
    qemu-img compare -q -f raw -F raw "$device" two.raw
    qed-ublk del two.qed
    expect_equal "the base" "$before" "$(fingerprint "$base")"
    rm one.* two.*
done
