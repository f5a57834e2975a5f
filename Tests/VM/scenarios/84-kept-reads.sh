# Overlays that keep what is read of a base elsewhere (--copy-on-read): it is fetched once, and there when the origin is not. What
# a start reads is recorded and fetched in advance, and all of it where that is wanted. The same on every kernel.
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/origins.bash
source lib.sh
source devices.bash
source origins.bash
cd /data
make_base
head -c 1M /dev/urandom >own

step "--copy-on-read: read once, and there when the origin is not; killed, without room, and under a clone"
# reads: how often the origin was asked for data.
reads() { grep -c ' Read ' reads.log || true; }
origin --filter=log file base.raw logfile=reads.log
qed-ublk create --base "$address" disk.qed
qed-ublk create alone.qed 8M
expect_refusal 2 'lies over no raw file, and no base elsewhere, of which it' qed-ublk add --copy-on-read alone.qed
expect_refusal 64 'keeps what is read in the image: leave out --snapshot' qed-ublk add --copy-on-read --snapshot disk.qed
# Nobody writes to the disk; what is kept goes into the image all the same.
device=$(qed-ublk add -r --base-allow '*' --copy-on-read disk.qed)
expect_equal "whether the disk is only read" "1 true" \
    "$(blockdev --getro "$device") $(qed-ublk status --json "$device" | jq '."read-only"')"
dd if="$device" bs=1M count=64 iflag=direct status=none | cmp - <(dd if=base.raw bs=1M count=64 status=none)
asked=$(reads)
((asked > 0 && asked <= 1100)) || fail "the origin was asked $asked times"
dd if="$device" bs=4k count=16384 iflag=direct status=none | cmp - <(dd if=base.raw bs=1M count=64 status=none)
expect_equal "how often the origin was asked" "$asked" "$(reads)"
# Killed while it fetches; what is there then is sound, and goes on being kept.
dd if="$device" of=/dev/null bs=1M skip=64 count=100 iflag=direct status=none &
reader=$!
sleep 0.2
kill_server
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
wait "$reader"
expect_status 0 cmp "$device" base.raw
origin_dies
echo 3 >/proc/sys/vm/drop_caches
expect_status 0 cmp "$device" base.raw
qed-ublk create -b "$device" -F raw clone.qed
clone=$(qed-ublk add --backing-devices clone.qed)
expect_status 0 cmp "$clone" base.raw
qed-ublk del "$clone"
kill_server
origin --filter=log file base.raw logfile=reads.log
qed-ublk del "$device"
expect_no_devices
expect_undamaged disk.qed
is_marked_clean disk.qed || fail "what was answered by a dead server is not in the image"
expect_status 0 qed-ublk compare --base-allow '*' -f qed -F raw disk.qed base.raw
rm disk.qed clone.qed
mkdir small
truncate -s 120M small.raw
expect_status 0 mkfs.ext4 -q small.raw
mount -o loop small.raw small
qed-ublk create --base "$address" small/disk.qed
device=$(qed-ublk add --base-allow '*' --copy-on-read small/disk.qed)
expect_status 0 cmp "$device" base.raw
# There is room for the guest, at the end that was not kept.
dd if=own of="$device" bs=1M seek=190 oflag=direct conv=fsync status=none
qed-ublk del "$device"
expect_undamaged small/disk.qed
kept=$(du -m small/disk.qed | cut -f 1)
((kept > 0 && kept < 100)) || fail "of 200 MiB $kept were kept on 120"
umount small
origin_dies

step "a start is recorded, and another one has it fetched in advance, each byte once"
# slow_origin MILLISECONDS: one that is far away, and writes down what it is asked for.
slow_origin() {
    rm -f reads.log
    origin --filter=log --filter=delay file base.raw rdelay="$1ms" logfile=reads.log
}
# asked_once: whether what was fetched was asked for once (looks at partition tables are shorter than a cluster).
asked_once() {
    local offset count
    sed -n 's/.* Read id=[0-9]* offset=0x\([0-9a-f]*\) count=0x\([0-9a-f]*\).*/\1 \2/p' reads.log |
        while read -r offset count; do echo "$((16#$offset)) $((16#$count))"; done |
        awk '$2 >= 65536' | sort -n >asked
    [[ -s asked ]] || fail "nothing was asked for"
    awk '$1 < end { print "twice: " $0; status = 1 } { end = $1 + $2 } END { exit status }' asked
}
# start_of DEVICE: what a start reads of it.
start_of() {
    mount -o ro "$1" /mnt
    md5sum </mnt/text
    dd if=/mnt/large bs=1M skip=3 count=17 status=none | md5sum
    umount /mnt
}
slow_origin 5
qed-ublk create --base "$address" disk.qed
expect_refusal 2 'alone.qed: lies over no raw file.* nothing to record' qed-ublk add --record start.reads alone.qed
expect_refusal 64 'has no files but the image' qed-ublk add --untrusted --record start.reads disk.qed
[[ ! -e start.reads ]] || fail "a recording was left of a device that was not made"
echo mine >mine.reads
expect_refusal 3 'mine.reads: is not empty' qed-ublk add --base-allow '*' --record mine.reads disk.qed
expect_equal "what a file has that is not written over" mine "$(<mine.reads)"
device=$(qed-ublk add --base-allow '*' --record start.reads disk.qed)
qed-ublk snapshot "$device" sunday.qed >/dev/null
started=$(start_of "$device")
qed-ublk del "$device"
expect_equal "the first line" 'qed-ublk-reads 1 209715200' "$(head -n 1 start.reads)"
(($(awk 'NR > 1 { bytes += $3 } END { print bytes }' start.reads) >= 18 << 20)) || fail "not all was recorded: $(<start.reads)"
# Killed: what was recorded a while ago is there.
device=$(qed-ublk add --base-allow '*' --record killed.reads disk.qed)
start_of "$device" >/dev/null
wait_until 10 eval '(($(wc -l <killed.reads) > 1))'
sleep 2
kill_server
qed-ublk recover 0
expect_equal "what a start reads" "$started" "$(start_of "$device")"
qed-ublk del "$device"
expect_undamaged disk.qed sunday.qed
rm disk.qed sunday.qed

qed-ublk create --base "$address" disk.qed
prefetch=(qed-ublk add --base-allow '*' --copy-on-read disk.qed --prefetch)
sed '2s/.*/0 0 x/' start.reads >bad.reads
sed '1s/[0-9]*$/1073741824/' start.reads >other.reads
sed '3s/.*/0 209715200 512/' start.reads >outside.reads
truncate -s 1T long.reads
expect_refusal 64 'say --copy-on-read too' qed-ublk add --base-allow '*' --prefetch start.reads disk.qed
expect_refusal 4 'none.reads: cannot be read' "${prefetch[@]}" none.reads
expect_refusal 1 'bad.reads: line 2 is not three numbers' "${prefetch[@]}" bad.reads
expect_refusal 1 'other.reads: was recorded of a disk of 1073741824 bytes, and this' "${prefetch[@]}" other.reads
expect_refusal 1 'outside.reads: line 3 names a range outside the disk' "${prefetch[@]}" outside.reads
expect_refusal 1 'long.reads: is longer than a recording can be' "${prefetch[@]}" long.reads
expect_refusal 1 'disk.qed: is no recording' "${prefetch[@]}" disk.qed
expect_no_devices
origin_dies
slow_origin 5
device=$("${prefetch[@]}" start.reads)
expect_equal "what a start reads" "$started" "$(start_of "$device")"
wait_until 30 grep -q 'prefetched [0-9]* bytes of /data/start.reads in' /run/qed-ublk/ublk0.log
asked_once
origin_dies
echo 3 >/proc/sys/vm/drop_caches
expect_equal "what a start reads, without the origin" "$started" "$(start_of "$device")"
qed-ublk del "$device"
slow_origin 5
expect_undamaged disk.qed
rm disk.qed

step "warm: the whole disk is the image's, beside writes and a snapshot; cancelled; without room; where nothing is kept"
qed-ublk create --base "$address" disk.qed
device=$(qed-ublk add --base-allow '*' disk.qed)
expect_refusal 1 'was added without --copy-on-read' qed-ublk warm "$device"
qed-ublk del "$device"
origin_dies
slow_origin 200
device=$(qed-ublk add --base-allow '*' --copy-on-read disk.qed)
expect_refusal 64 'there is no such range of the disk, which has 209715200 bytes' qed-ublk warm --offset 1G "$device"
expect_refusal 64 'there is no such range' qed-ublk warm --offset 199M --length 2M "$device"
expect_refusal 1 'other.reads: was recorded of a disk of' qed-ublk warm --ranges other.reads "$device"
expect_refusal 1 'nothing is copied into the image' qed-ublk warm --cancel "$device"
qed-ublk warm "$device" 2>warm.log &
warming=$!
until qed-ublk warm --cancel "$device" 2>/dev/null; do kill -0 "$warming" || fail "it was over before that"; done
wait "$warming" && fail "it went on"
expect_output 'it was cancelled; [0-9]* bytes were fetched, and stay in the image' cat warm.log
qed-ublk warm --ranges start.reads -q "$device"
qed-ublk warm "$device" >warm.log &
warming=$!
sleep 0.3
dd if=own of="$device" bs=1M seek=100 oflag=direct conv=fsync status=none
qed-ublk snapshot "$device" monday.qed >/dev/null
kill -0 "$warming" || fail "it was over before the snapshot"
wait "$warming"
expect_output '/data/disk.qed: has [1-9][0-9]* bytes more of what lies beneath it' cat warm.log
expect_output '/data/disk.qed: has 0 bytes more' qed-ublk warm "$device"
asked_once
origin_dies
echo 3 >/proc/sys/vm/drop_caches
cp base.raw expected
dd if=own of=expected bs=1M seek=100 conv=notrunc status=none
expect_status 0 cmp "$device" expected
qed-ublk del "$device"
slow_origin 1
expect_undamaged disk.qed monday.qed
rm disk.qed monday.qed
truncate -s 40M tiny.raw
expect_status 0 mkfs.ext4 -q tiny.raw
mount -o loop tiny.raw small
qed-ublk create --base "$address" small/disk.qed
device=$(qed-ublk add --base-allow '*' --copy-on-read small/disk.qed)
expect_refusal 1 'has no more room than is left to what is written to the disk' qed-ublk warm "$device"
dd if=own of="$device" bs=1M seek=190 oflag=direct conv=fsync status=none
qed-ublk del "$device"
expect_undamaged small/disk.qed
umount small
origin_dies
# A server without rights fetches too.
qed-ublk create -b base.raw -F raw confined.qed
device=$(qed-ublk add --untrusted --backing-dir /data --copy-on-read confined.qed)
expect_refusal 1 'opens no other file' qed-ublk warm --ranges start.reads "$device"
expect_output 'has [1-9][0-9]* bytes more' qed-ublk warm "$device"
expect_status 0 cmp "$device" base.raw
qed-ublk del "$device"
expect_undamaged confined.qed
rm confined.qed

step "del waits neither for what is fetched of an origin that is away, nor for who is asked to fetch it"
for way in warm prefetch; do
    slow_origin 200
    qed-ublk create --base "$address" disk.qed
    options=()
    if [[ $way == prefetch ]]; then options=(--prefetch start.reads); fi
    device=$(qed-ublk add --base-allow '*' --base-timeout 0 --copy-on-read "${options[@]}" disk.qed)
    if [[ $way == warm ]]; then (qed-ublk warm "$device" >warm.log 2>&1 || true) & fi
    wait_until 20 eval '[[ -s reads.log ]] && (($(reads) > 20))'
    origin_dies
    expect_status 0 timeout 60 qed-ublk del "$device"
    wait
    expect_no_devices
    # QEMU opens the base as well.
    origin file base.raw
    expect_undamaged disk.qed
    origin_dies
    rm disk.qed
done
