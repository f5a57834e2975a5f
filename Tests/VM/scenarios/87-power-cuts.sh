# The power is cut at random moments while three programs write blocks to a device and flush, and a fourth writes files
# to an ext4 on another. The disk below forgets what it was not told to flush. After each cut every block that a flush
# had covered has the value it had then or a later one, every file that was synced is whole, and both images and the
# file system are sound.
# COUNT cuts, after one that shows that the disk forgets; SEED chooses the moments and the blocks.
# vm: --disk 1G --disk-format forgetful --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
mount_notes
cd /data
SEED=${SEED:-1} COUNT=${COUNT:-3}
RANDOM=$((SEED * 1000 + VM_BOOT))

# The blocks: 4 KiB at every 32 KiB, so that two share a cluster; the first half lies over data of a backing file. Each
# sector of a block says the number of the write, the block and the sector, as "q12,345,6"; those of the backing file
# count up.
blocks=768 stride=32768 writers=3 writes=600
base_sectors=$((blocks * stride / 2 / 512))

# What a writer does, as commands for xfs_io: a write to a random block; after some writes a flush and then, in the other
# file, the number of the write, which is on the disk for notes when the command returns.
# plan WRITER FIRST: into commands, contents and, for the next boot, /notes/plan.
plan() {
    awk -v writer="$1" -v writers=$writers -v writes=$writes -v first="$2" \
        -v seed=$RANDOM -v blocks=$blocks -v stride=$stride \
        -v commands="/tmp/commands.$1" -v contents="/tmp/contents.$1" 'BEGIN {
        srand(seed)
        group = 1
        for (i = 0; i < writes; i++) {
            number = first + i
            # Every writer has blocks of its own.
            block = int(rand() * blocks / writers) * writers + writer
            for (sector = 0; sector < 8; sector++) printf "%-511s\n", "q" number "," block "," sector >contents
            print "file 0\npwrite -q -b 4k -i " contents " -s " i * 4096 " " block * stride " 4k" >commands
            print number, block
            if (--group > 0) continue
            group = int(rand() * 8) + 1
            print "fdatasync\nfile 1\npwrite -q -b 4k -i " contents " -s " i * 4096 " 0 4k" >commands
        }
    }' >"/notes/plan.$1"
}

# The number that is noted in a file: of the last write that a flush has covered.
noted() { sed -n '1s/^q\([0-9]*\),.*/\1/p' "$1"; }

# A file of one block, which is there, so that writing it directly is all there is to do.
make_note() { printf '%-4095s\n' q0, >"$1"; }

# New images, and nothing that they must hold.
start_over() {
    local writer
    for writer in 0 1 2 files; do make_note "/notes/note.$writer"; done
    awk -v blocks=$blocks 'BEGIN { for (block = 0; block < blocks; block++) print block, 0 }' >/notes/floor
    sync -f /notes
    rm -f blocks.qed files.qed
    qed-ublk create --backing base.raw --backing-format raw blocks.qed $((blocks * stride))
    qed-ublk create files.qed 128M
    local device
    device=$(qed-ublk add files.qed)
    mkfs.ext4 -q "$device"
    qed-ublk del "$device"
    sync
}

write_blocks() {
    local writer
    for ((writer = 0; writer < writers; writer++)); do
        { echo "open -d /notes/note.$writer" && cat "/tmp/commands.$writer"; } | xfs_io -d "$1" >/dev/null &
    done
}

# Files with numbers in them, each synced, given its name, and noted when the folder is synced too.
write_files() {
    local number folder=$1/boot$VM_BOOT
    mkdir "$folder"
    sync -f "$folder"
    for ((number = 1; ; number++)); do
        { seq "$number" $((number + RANDOM % 20000)) && echo end; } |
            dd of="$folder/new" bs=64k iflag=fullblock conv=fsync status=none
        mv "$folder/new" "$folder/$number"
        sync "$folder"
        printf '%-4095s\n' "q$number," |
            dd of=/notes/note.files bs=4k count=1 iflag=fullblock oflag=direct conv=notrunc status=none
    done
}

# What each sector of the device holds, checked against what each block must hold at least (/notes/floor and what the
# writers had noted) and what they were about to write. What is found is what the blocks must hold from now on: it was on
# the disk.
check_blocks() {
    local writer
    for ((writer = 0; writer < writers; writer++)); do
        awk -v noted="$(noted "/notes/note.$writer")" '$1 <= noted { print $2, $1 }' "/notes/plan.$writer"
    done | cat /notes/floor - >/tmp/floors
    cat /notes/plan.[0-9] >/tmp/plans
    dd if="$1" of=/tmp/device bs=1M iflag=direct status=none
    LC_ALL=C grep -aboE 'q[0-9]+,[0-9]+,[0-9]+|base[0-9]+' /tmp/device |
        sed 's/:base/:base /' | tr ':q,' '   ' >/tmp/sectors
    awk -v blocks=$blocks -v stride=$stride -v base_sectors=$base_sectors \
        -v bytes="$(tr -d '\0' </tmp/device | wc -c)" '
        function complain(text) { if (bad++ < 20) print text }
        FILENAME == "/tmp/floors" { if ($2 > floor[$1]) floor[$1] = $2; next }
        FILENAME == "/tmp/plans" { planned[$1 "," $2]; next }
        { sectors++ }
        $2 == "base" {
            if ($1 != $3 * 512) complain("sector " $3 " of the backing file is at byte " $1)
            below++
            next
        }
        {
            number = $2 + 0; block = $3 + 0
            if ($1 != block * stride + $4 * 512) complain("sector " $4 " of block " block " is at byte " $1)
            if (number < floor[block]) complain("block " block " has write " number ", not " floor[block])
            if (number > floor[block]) {
                later++
                if (!((number "," block) in planned)) complain("block " block " has write " number ", which is not its")
            }
            if (!found[block]++ || number < least[block]) least[block] = number
            if ($1 < base_sectors * 512) below++
        }
        END {
            for (block = 0; block < blocks; block++) {
                if (floor[block]) covered++
                if (floor[block] && found[block] != 8) complain("block " block " has " found[block] + 0 " sectors")
                print block, found[block] == 8 ? least[block] : 0 >"/tmp/found"
            }
            if (below != base_sectors) complain(below " of " base_sectors " sectors over the backing file")
            if (bytes != sectors * 512) complain(bytes " bytes that are not zero in " sectors " sectors")
            printf "          %d blocks had been flushed; %d sectors have a later value\n", covered, later
            exit bad > 0
        }' /tmp/floors /tmp/plans /tmp/sectors || fail "the blocks are not as they were flushed"
    rm /tmp/device
}

# check_files FOLDER
check_files() {
    local number count
    count=$(noted /notes/note.files)
    for ((number = 1; number <= count; number++)); do
        awk -v line="$number" '
            $1 == "end" { ended = 1; next }
            ended || $1 != line++ { exit 1 }
            END { if (!ended) exit 1 }' "$1/$number" || fail "the file $number, which had been synced, is not whole"
    done
    echo "          $count files had been synced"
}

# In the first boot the disk shows that it forgets.
if [[ ! -e /notes/canary ]]; then
    step "a direct write that is not flushed, and a power cut"
    awk -v sectors=$base_sectors 'BEGIN { for (i = 0; i < sectors; i++) printf "%-511s\n", "base" i }' >base.raw
    xfs_io -f -d -c 'pwrite -q -S 1 0 64k' canary
    start_over
    touch /notes/plan.{0,1,2} /notes/canary
    echo -1 >/notes/cuts
    echo 1 >/notes/next
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
    check_blocks "$blocks_device"
    mount "$files_device" /mnt
    check_files "/mnt/$(</notes/folder)"
    make_note /notes/note.files
    sync -f /notes
    rm -rf /mnt/boot*
    umount /mnt
    expect_status 0 e2fsck -fn "$files_device"
    qed-ublk del "$blocks_device"
    qed-ublk del "$files_device"
    expect_no_devices
    expect_undamaged blocks.qed files.qed
    if ((cuts == COUNT)); then exit; fi
    cp /tmp/found /notes/floor
    sync -f /notes
    if ((RANDOM % 4 == 0)); then start_over; fi
fi

first=$(</notes/next)
for ((writer = 0; writer < writers; writer++)); do
    plan "$writer" "$first"
    make_note "/notes/note.$writer"
done
make_note /notes/note.files
echo $((first + writes)) >/notes/next
echo "boot$VM_BOOT" >/notes/folder
sync
sync -f /notes
blocks_device=$(qed-ublk add -q 2 blocks.qed)
files_device=$(qed-ublk add files.qed)
mount "$files_device" /mnt
after=$((1 + RANDOM % 4)).$(printf %03d $((RANDOM % 1000)))
step "the power will be cut after $after s"
power_cut_after "$after"
write_blocks "$blocks_device"
write_files /mnt
