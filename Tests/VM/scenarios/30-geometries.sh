# What is written through the device is in the image, byte for byte, for every geometry that QEMU can open and with every
# kind of backing file: the same writes go to a raw file, and QEMU compares. The device must read the same bytes.
# kernels: 6.12
# vm: --file Tests/VM/scenarios/devices.bash --timeout 900
source lib.sh
source devices.bash
cd /data

# Not a whole number of any cluster.
size=$(((10 << 20) + 1536))
short=$(((5 << 20) + 2560))

# Around the ends of clusters and of tables' reach, in sectors; over what is there, and over what has been zeroed.
changes=(
    'pwrite -q -S 1 512 512' 'pwrite -q -S 2 8k 4k' 'pwrite -q -S 3 65024 1024' 'pwrite -q -S 4 1048064 1536'
    'pwrite -q -S 5 2096640 66048' 'pwrite -q -S 6 4193792 1024' 'pwrite -q -b 1m -S 7 5243392 1048576'
    'pwrite -q -S 8 5767680 7168' 'fpunch 4m 640k' 'pwrite -q -S 9 4521984 12800' 'pwrite -q -S 10 7340544 8192'
    'fpunch 3146240 1024' 'fpunch 1664k 1k' 'pwrite -q -S 11 8388096 1024' "fpunch $((size - 4096)) 1536"
    "pwrite -q -S 12 $((size - 512)) 512" "pwrite -q -S 13 $((size - 8192)) 1024" 'fsync'
)
# change FILE: all of them, past the page cache.
change() {
    local arguments=() command
    for command in "${changes[@]}"; do arguments+=(-c "$command"); done
    xfs_io -d "${arguments[@]}" "$1"
}

step "base files, and what is to come out over each"
xfs_io -f -c "truncate $size" -c 'pwrite -q -b 1m -S 101 0 3m' -c 'pwrite -q -S 102 3700k 700k' \
    -c 'pwrite -q -b 1m -S 103 5m 2m' -c 'pwrite -q -b 1m -S 104 8m 900k' -c "pwrite -q -S 105 $((size - 2048)) 2048" raw
head -c "$short" raw >raw-short
for name in raw raw-short; do qemu-img convert -f raw -O qed "$name" "${name/raw/qed}"; done
truncate -s "$size" golden-none
for base in raw raw-short; do
    cp --sparse=always "$base" "golden-$base"
    truncate -s "$size" "golden-$base"
done
for golden in golden-*; do change "$golden"; done
ln golden-raw golden-qed
ln golden-raw-short golden-qed-short
before=$(fingerprint raw raw-short qed qed-short)

# One image from its creation to QEMU's verdict.
try() {
    local cluster=$1 table=$2 base=$3 device
    local image=$cluster-$table-$base.qed backing=()
    if [[ $base != none ]]; then backing=(--backing "$base" --backing-format "${base%-short}"); fi
    # It warns of geometries that QEMU mishandles.
    qed-ublk create "$image" "$size" --cluster-size "$cluster" --table-size "$table" "${backing[@]}" 2>/dev/null
    device=$(qed-ublk add "$image")
    change "$device"
    cmp "$device" "golden-$base" || fail "$image: the device reads something else"
    qed-ublk del "$device"
    qemu-img compare -q -f qed -F raw "$image" "golden-$base" || fail "$image: QEMU reads something else"
    expect_sound "$image"
    rm "$image"
}

# Two at a time, as there are two processors.
try_all() {
    local geometry base
    for geometry; do
        for base in none raw raw-short qed qed-short; do try "${geometry%x*}" "${geometry#*x}" "$base"; done
        step "clusters of ${geometry%x*}, tables of ${geometry#*x}: without and with each of four base files"
    done
}
try_all 4Kx2 4Kx4 4Kx16 1Mx2 1Mx4 1Mx16 &
first=$!
# The tables of 2Mx16 could map 2^64 bytes, which QEMU refuses.
try_all 64Kx2 64Kx4 64Kx16 2Mx2 2Mx4 &
second=$!
wait "$first"
wait "$second"
expect_no_devices
expect_equal "the base files" "$before" "$(fingerprint raw raw-short qed qed-short)"

# A disk with several tables; the writes go over the ends of their reach.
for geometry in 4Kx16 64Kx4; do
    step "clusters of ${geometry%x*}, tables of ${geometry#*x}: 4 GiB"
    rm -f image.qed golden
    qed-ublk create image.qed 4G --cluster-size "${geometry%x*}" --table-size "${geometry#*x}" 2>/dev/null
    truncate -s 4G golden
    device=$(qed-ublk add image.qed)
    for file in golden "$device"; do
        xfs_io -d -c "pwrite -q -S 1 $(((32 << 20) - 4608)) 8192" -c "pwrite -q -S 2 $(((2 << 30) - 65536 - 512)) 131072" \
            -c 'pwrite -q -S 3 3g 4k' -c "pwrite -q -S 4 $(((4 << 30) - 512)) 512" -c 'fpunch 2g 64k' "$file"
    done
    qed-ublk del "$device"
    qemu-img compare -q -f qed -F raw image.qed golden || fail "QEMU reads something else"
    expect_sound image.qed
done

step "a difference of one byte would have been noticed"
printf x | dd of=golden bs=1 seek=$((3 << 30)) conv=notrunc status=none
if qemu-img compare -q -f qed -F raw image.qed golden; then fail "QEMU did not notice"; fi

step "blocks of 4096 bytes, for the next server too; and of a size that does not fit"
rm -f image.qed golden
qed-ublk create image.qed 8M
device=$(qed-ublk add --block-size 4096 image.qed)
for server in first second; do
    expect_equal "logical block" 4096 "$(blockdev --getss "$device")"
    expect_equal "logical block, says list" 4096 "$(qed-ublk list --json | jq '.[]."block-size"')"
    if dd if=/dev/zero of="$device" bs=512 count=1 oflag=direct status=none 2>/dev/null; then fail "a write of 512 bytes"; fi
    expect_status 0 xfs_io -d -c 'pwrite -q -S 7 4k 12k' "$device"
    expect_equal "what was written" 12288 "$(head -c 20k "$device" | tr -dc '\007' | wc -c)"
    if [[ $server == first ]]; then
        kill_server
        wait_until 40 qed-ublk recover 0
    fi
done
qed-ublk del "$device"
expect_sound image.qed
expect_refusal 64 '--block-size must be 512 or 4096' qed-ublk add --block-size 1024 image.qed
expect_equal "blocks of 512 on request" /dev/ublkb0 "$(qed-ublk add -b 512 image.qed)"
expect_equal "logical block" 512 "$(blockdev --getss /dev/ublkb0)"
qed-ublk del 0
qed-ublk create odd.qed $(((8 << 20) + 512))
expect_refusal 2 'odd.qed: its size, 8389120 bytes, is no multiple of the block size 4096' qed-ublk add -b 4096 odd.qed
expect_no_devices
