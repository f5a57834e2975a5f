# What a user does with an image: make it a disk, put a file system on it, use it, take it away, and find everything
# again the next time. With ext4, and with XFS.
# vm: --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
cd /data

# Something to keep: this machine's own files and a few special ones.
mkdir tree
cp -a /usr/lib/modules /etc /usr/share tree/
ln -s etc/passwd tree/link
ln tree/etc/passwd tree/second-name
truncate -s 3M tree/sparse
printf end >>tree/sparse
touch tree/empty 'tree/a name with spaces'

# Paths, kinds, modes, times, links and contents.
describe() {
    (cd "$1" && find . -mindepth 1 ! -name lost+found -printf '%p %y %m %n %l %T@\n' | sort &&
        find . -type f -print0 | sort -z | xargs -0 sha256sum)
}
describe tree >expected

check_file_system() {
    case $1 in
        ext4) expect_status 0 e2fsck -fn "$2" ;;
        xfs) expect_status 0 xfs_repair -n "$2" ;;
    esac
}

for type in ext4 xfs; do
    step "$type: an image is created, looked at, and added"
    image=$type.qed
    expect_equal "what create prints" '' "$(qed-ublk create "$image" 400M 2>&1)"
    expect_output '^virtual size: 400 MiB \(419430400 bytes\)$' qed-ublk info "$image"
    expect_equal "its size as JSON" 419430400 "$(qed-ublk info --output json "$image" | jq '."virtual-size"')"
    qed-ublk add "$image" >output 2>errors
    expect_equal "what add prints" '/dev/ublkb0' "$(<output)"
    expect_equal "bytes of it" 12 "$(stat -c %s output)"
    expect_equal "what add says on standard error" '' "$(<errors)"
    expect_equal "the size of the disk" 419430400 "$(blockdev --getsize64 /dev/ublkb0)"

    step "$type: a file system, a tree on it, and list meanwhile"
    expect_status 0 "mkfs.$type" -q /dev/ublkb0
    mount -t "$type" /dev/ublkb0 /mnt
    cp -a tree/. /mnt/
    sync -f /mnt
    describe /mnt >actual
    expect_status 0 cmp expected actual
    expect_output "^/dev/ublkb0 +live +400 MiB +2 +64 +0 +/data/$image\$" qed-ublk list
    expect_equal "list as JSON" \
        "[\"/dev/ublkb0\",0,\"live\",419430400,2,64,false,\"/data/$image\"]" \
        "$(qed-ublk list --json | jq -c '.[] | [.device, .id, .state, .size, .queues, .depth, ."read-only", .image]')"
    expect_status 0 umount /mnt
    check_file_system "$type" /dev/ublkb0

    expect_status 0 qed-ublk doctor
    step "$type: it is removed by a link to it, its name, its number and its image, and everything is there each time"
    ln -sf /dev/ublkb0 /tmp/link
    expect_equal "what list says of the link" "/data/$image /dev/ublkb0" \
        "$(qed-ublk list --noheadings --columns image,device /tmp/link | tr -s ' ')"
    for name in /tmp/link ublkb0 0 "$image"; do
        expect_equal "what del $name prints" '' "$(qed-ublk del "$name" 2>&1)"
        expect_no_devices
        expect_sound "$image"
        expect_equal "the device of the next add" /dev/ublkb0 "$(qed-ublk add "$image")"
        check_file_system "$type" /dev/ublkb0
        mount -o ro -t "$type" /dev/ublkb0 /mnt
        describe /mnt >actual
        expect_status 0 cmp expected actual
        expect_status 0 umount /mnt
    done
    expect_equal "what del prints" '' "$(qed-ublk del /data/../data/"$image" 2>&1)"
    expect_no_devices
    expect_sound "$image"

    step "$type: QEMU reads what is on it"
    expect_status 0 qemu-img convert -f qed -O raw "$image" raw
    modprobe loop
    mount -o ro,loop raw /mnt
    describe /mnt >actual
    expect_status 0 cmp expected actual
    expect_status 0 umount /mnt
done
