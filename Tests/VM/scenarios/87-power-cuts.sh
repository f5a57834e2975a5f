# The power is cut at random moments while three threads write blocks to a device and flush, and a fourth writes files to an
# ext4 on another; snapshots are taken of both meanwhile, and those of one merged. The disk below forgets what it was not told
# to flush. After each cut every block that a flush had covered has the value it had then or a later one, every file that was
# synced is whole, and both images and the file system are undamaged; every snapshot whose command had ended, and that was not to
# be merged, is there, undamaged, beneath its image, and holds what it held after the cut before. (Clusters that a cut has left
# nobody's stay so, in the image and in its later snapshots.) What is written, and the judge, are
# qed-ublk-power-cuts.
# COUNT cuts, after one that shows that the disk forgets; SEED chooses the moments and the blocks.
# kernels: 6.12
# vm: --disk 1G --disk-format forgetful --file Tests/VM/scenarios/devices.bash --file .build/qed-ublk-power-cuts
source lib.sh
source devices.bash
mount_notes
cd /data
SEED=${SEED:-1} COUNT=${COUNT:-3}
RANDOM=$((SEED * 1000 + VM_BOOT))

# New images, and nothing that they must hold.
start_over() {
    local device size
    size=$(qed-ublk-power-cuts start /notes)
    rm -f blocks*.qed files*.qed
    rm -f /notes/snapshots /notes/sums /notes/merging
    touch /notes/snapshots /notes/sums
    qed-ublk create --backing base.raw --backing-format raw blocks.qed "$size"
    qed-ublk create files.qed 128M
    device=$(qed-ublk add files.qed)
    mkfs.ext4 -q "$device"
    qed-ublk del "$device"
    sync
}

# Those of the blocks become one. They are no more what they were from before that on.
merge_snapshots() {
    grep ^blocks- /notes/snapshots >>/notes/merging || true
    sync -f /notes
    # shellcheck disable=SC2154  # Set below.
    qed-ublk commit "$blocks_device" >/dev/null || echo "the merge" >>/notes/failures
}

# Takes snapshots of both, and notes each that is said to survive a power cut, as long as there is room.
take_snapshots() {
    local number image
    for ((number = 1; $(df --output=avail -BM . | tail -n 1 | tr -dc 0-9) > 350; number++)); do
        sleep "0.$(printf %03d $((RANDOM % 1000)))"
        for image in blocks files; do
            if qed-ublk snapshot "$image.qed" "$image-$VM_BOOT-$number.qed" >/dev/null; then
                echo "$image-$VM_BOOT-$number.qed" >>/notes/snapshots
            else
                echo "$image-$VM_BOOT-$number.qed" >>/notes/failures
            fi
            sync -f /notes
        done
        if ((number % 2 == 1)); then merge_snapshots; fi
    done
}

# What the snapshots hold does not change; and what no image lies over goes, as a user may remove it.
check_snapshots() {
    local image chain name sum file line
    [[ ! -e /notes/failures ]] || fail "snapshots that could not be taken, or merged: $(</notes/failures)"
    if [[ -e /notes/merging ]]; then
        for file in snapshots sums; do
            while read -r line; do
                grep -qxF "${line%% *}" /notes/merging || echo "$line"
            done <"/notes/$file" >/notes/others
            mv /notes/others "/notes/$file"
        done
        printf '          %d snapshots were being merged, or had been\n' "$(wc -l </notes/merging)"
        rm /notes/merging
    fi
    for image in blocks files; do
        chain=$(qed-ublk info -U --backing-chain --json "$image.qed" | jq -r '.[].filename | split("/") | last')
        for name in "$image"-*.qed; do
            if grep -qxF "$name" /notes/snapshots; then
                expect_undamaged "$name"
                grep -qxF "$name" <<<"$chain" || fail "$image.qed does not lie over $name"
                sum="$name $(qed-ublk convert -q -O raw "$name" - | sha256sum)"
                if grep -q "^$name " /notes/sums; then
                    expect_equal "what $name holds" "$(grep "^$name " /notes/sums)" "$sum"
                else
                    echo "$sum" >>/notes/sums
                fi
            elif [[ -e $name ]] && ! grep -qxF "$name" <<<"$chain"; then
                rm "$name"
            fi
        done
    done
    while read -r name; do [[ -e $name ]] || fail "$name is gone"; done </notes/snapshots
    printf '          %d snapshots are there\n' "$(wc -l </notes/snapshots)"
    sync -f /notes
}

# In the first boot the disk shows that it forgets.
if [[ ! -e /notes/cuts ]]; then
    step "a direct write that is not flushed, and a power cut"
    qed-ublk-power-cuts base base.raw
    xfs_io -f -d -c 'pwrite -q -S 1 0 64k' canary
    start_over
    echo -1 >/notes/cuts
    sync -f /notes
    sync
    xfs_io -d -c 'pwrite -q -S 2 0 64k' canary
    power_cut
fi

cuts=$(($(</notes/cuts) + 1))
echo $cuts >/notes/cuts
sync -f /notes
if ((cuts == 0)); then
    expect_equal "bytes of the canary that the disk had been told to keep" 65536 "$(tr -dc '\001' <canary | wc -c)"
else
    step "after cut $cuts: the images as they were left"
    for image in blocks files; do
        status=0
        qemu-img check -f qed "$image.qed" >check.log 2>&1 || status=$?
        ((status == 0 || status == 3)) || fail "$image.qed: $(<check.log)"
    done
    blocks_device=$(qed-ublk add blocks.qed)
    files_device=$(qed-ublk add files.qed)
    mount "$files_device" /mnt
    status=0
    qed-ublk-power-cuts check /notes "$blocks_device" "/mnt/$(</notes/folder)" >check.log 2>&1 || status=$?
    ((status == 0)) || fail "not as it was flushed: $(<check.log)"
    sed 's/^/          /' check.log
    rm -rf /mnt/boot*
    umount /mnt
    expect_status 0 e2fsck -fn "$files_device"
    qed-ublk del "$blocks_device"
    qed-ublk del "$files_device"
    expect_no_devices
    expect_undamaged blocks.qed files.qed
    check_snapshots
    if ((cuts == COUNT)); then exit; fi
    if ((RANDOM % 4 == 0)); then start_over; fi
fi

qed-ublk-power-cuts plan --seed $((SEED * 1000 + VM_BOOT)) /notes
echo "boot$VM_BOOT" >/notes/folder
blocks_device=$(qed-ublk add -q 2 blocks.qed)
files_device=$(qed-ublk add files.qed)
mount "$files_device" /mnt
mkdir "/mnt/boot$VM_BOOT"
sync -f /mnt
sync -f /notes
sync
after=$((1 + RANDOM % 4)).$(printf %03d $((RANDOM % 1000)))
step "the power will be cut after $after s"
power_cut_after "$after"
take_snapshots &
qed-ublk-power-cuts write /notes "$blocks_device" "/mnt/boot$VM_BOOT"
