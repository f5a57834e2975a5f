# Overlays over a base that an NBD server has: over a socket and over TCP, with a server that answers late, is killed, comes back,
# is another one, or is none (what a server can say, NBDStorageTests have). What the image has is read all the time, and nothing
# that was acknowledged is lost.
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/fio-verify.bash
# vm: --file Tests/VM/scenarios/origins.bash
source lib.sh
source devices.bash
source fio-verify.bash
source origins.bash
cd /data
ip link set lo up
make_base

step "nothing connects because an image says so: options, the machine's file, no rights"
origin file base.raw
qed-ublk create --base "$address" disk.qed
expect_output "backing file: nbd\\+unix:///\\?socket=/run/origin \\(elsewhere" qed-ublk info disk.qed
expect_status 0 qemu-img compare -f qed -F raw disk.qed base.raw
words='nbd\+unix:///\?socket=/run/origin: a base elsewhere, which an image may name only where --base-allow or'
expect_refusal 2 "$words" qed-ublk add disk.qed
expect_refusal 2 "$words" qed-ublk add --base-allow 'nbd://*' disk.qed
expect_refusal 2 "$words" qed-ublk map disk.qed
expect_refusal 2 'needs its backing file nbd' qed-ublk add --no-backing disk.qed
expect_refusal 64 'a server without rights can make no connections' qed-ublk add --untrusted --base-allow '*' disk.qed
mkdir -p /etc/qed-ublk
printf '# whose images these are\n\n  %s\n' "$address" >/etc/qed-ublk/base-allow
expect_refusal 2 "$words" qed-ublk add --untrusted --backing-dir /data disk.qed
expect_output '^Images are identical.$' qed-ublk compare -f qed -F raw disk.qed base.raw
rm /etc/qed-ublk/base-allow
expect_no_devices

step "a mounted disk over it: reads, writes, copies, holes, snapshots, a killed server"
device=$(qed-ublk add --base-allow "$address" disk.qed)
mount "$device" /mnt
expect_equal "a file of the base" "$sum" "$(md5sum </mnt/large)"
seq 100000 >/mnt/monday
sync -f /mnt
dd if=/dev/zero of=/mnt/text bs=512 seek=100 count=1 conv=notrunc,fsync status=none
qed-ublk snapshot "$device" monday.qed >/dev/null
kill_server
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
expect_equal "a file of the base" "$sum" "$(md5sum </mnt/large)"
expect_status 0 cmp /mnt/monday <(seq 100000)
fork=$(qed-ublk add --base-allow "$address" "$(qed-ublk fork "$device" tuesday.qed fork.qed)")
mkdir /fork
mount "$fork" /fork
expect_equal "a file of the base, in the fork" "$sum" "$(md5sum </fork/large)"
umount /mnt /fork
expect_status 0 e2fsck -fn "$device"
expect_status 0 e2fsck -fn "$fork"
qed-ublk del --all
expect_no_devices
expect_sound disk.qed monday.qed tuesday.qed fork.qed
rm disk.qed monday.qed tuesday.qed fork.qed

step "a server that is told to end, with the threads that it has for the base"
qed-ublk create --base "$address" disk.qed
qed-ublk add -f --base-allow '*' disk.qed >/dev/null 2>served.log &
foreground=$!
wait_until 20 eval '[[ $(qed-ublk list -n -O state 0 2>/dev/null) == live ]]'
kill -TERM "$foreground"
wait "$foreground"
expect_no_devices
rm disk.qed

step "the origin is killed again and again, and comes back: nobody notices more than a pause"
origin_dies
origin --filter=delay file base.raw rdelay=3ms
qed-ublk create --base "$address" disk.qed
device=$(qed-ublk add --base-allow '*' disk.qed)
origin_comes_and_goes 0.5 0.3 origin --filter=delay file base.raw rdelay=3ms
expect_status 0 cmp "$device" base.raw
run_fio "$device" 512
origin_stays
run_fio "$device" 512 --verify_only=1
qed-ublk del "$device"
expect_sound disk.qed
rm disk.qed

# $reader, which copies MiB 8 and 9 to "late", and $writer wait until it is there again, and are answered then.
both_wait_for_the_origin() {
    sleep 2
    [[ -d /proc/$reader && -d /proc/$writer ]] || fail "somebody did not wait"
    expect_equal "what the log says" 'is away' "$(said_of_base)"
    origin file base.raw
    wait "$reader" "$writer"
    expect_status 0 cmp late <(dd if=base.raw bs=1M skip=8 count=2 status=none)
    wait_until 20 eval '[[ $(said_of_base) == "is away is back" ]]'
}

step "while it is away: what the image has is read, whole clusters are written, other reads wait and are answered later"
qed-ublk create --base "$address" disk.qed
device=$(qed-ublk add --base-allow '*' disk.qed)
head -c 4M /dev/urandom >own
dd if=own of="$device" bs=1M seek=20 oflag=direct status=none
origin_dies
dd if="$device" bs=1M skip=20 count=4 iflag=direct status=none | cmp - own
dd if=own of="$device" bs=1M seek=40 oflag=direct conv=fsync status=none
dd if="$device" bs=1M skip=40 count=4 iflag=direct status=none | cmp - own
dd if="$device" of=late bs=1M skip=8 count=2 iflag=direct status=none &
reader=$!
printf x | dd of="$device" bs=1 seek=$((60 << 20)) conv=notrunc,fsync status=none &
writer=$!
wait_until 20 eval '[[ -n $(said_of_base) ]]'
both_wait_for_the_origin
qed-ublk del "$device"
cp base.raw expected
dd if=own of=expected bs=1M seek=20 conv=notrunc status=none
dd if=own of=expected bs=1M seek=40 conv=notrunc status=none
printf x | dd of=expected bs=1 seek=$((60 << 20)) conv=notrunc status=none
expect_status 0 qed-ublk compare --base-allow '*' -f qed -F raw disk.qed expected

step "--base-timeout: a read fails in time, and later ones are answered"
device=$(qed-ublk add --base-allow '*' --base-timeout 2 disk.qed)
origin_dies
expect_status 1 dd if="$device" bs=4k skip=$((30 << 8)) count=1 iflag=direct status=none
origin file base.raw
expect_status 0 cmp "$device" expected
kill_server
origin_dies
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
dd if="$device" bs=1M skip=20 count=4 iflag=direct status=none | cmp - own
expect_status 1 dd if="$device" bs=4k skip=$((30 << 8)) count=1 iflag=direct status=none
origin file base.raw
expect_status 0 cmp "$device" expected

step "another export under the same name is not taken for the old one"
origin_dies
truncate -s 100M other.raw
origin file other.raw
wait_until 20 eval '[[ $(said_of_base) == *"has 104857600 bytes now" ]]'
echo 3 >/proc/sys/vm/drop_caches
expect_status 1 dd if="$device" bs=4k skip=$((30 << 8)) count=1 iflag=direct status=none
dd if="$device" bs=1M skip=20 count=4 iflag=direct status=none | cmp - own
kill_server
expect_refusal 2 'is not the file that /dev/ublkb0 was made of' qed-ublk recover 0
origin_dies
origin file base.raw
qed-ublk recover 0
expect_status 0 cmp "$device" expected

step "the server dies while the origin is away: the next one begins without it, and everybody is told"
# expect_base STATE UP: what status, list, stats and metrics say of the base of device 0.
expect_base() {
    expect_equal "what status says" "$1" "$(qed-ublk status --json 0 | jq -r '."base-state"')"
    expect_equal "what list says" "$1 $1" "$(qed-ublk list -n -O base 0) $(qed-ublk list --json 0 | jq -r '.[]."base-state"')"
    expect_equal "what stats says" "$1" "$(qed-ublk stats --json 0 | jq -r '."base-state"')"
    expect_output "^qed_ublk_base_up\\{device=\"ublkb0\"\\} $2\$" qed-ublk metrics
}
is_live() { [[ $(qed-ublk list -n -O state 0) == live ]]; }
qed-ublk del "$device"
device=$(qed-ublk add --base-allow "$address" disk.qed)
expect_base there 1
dd if=own of="$device" bs=1M seek=80 oflag=direct status=none
origin_dies
kill_only_server
wait_until 20 is_live
expect_base away 0
since=$(qed-ublk status --json 0 | jq '."base-away-since"')
((since > $(date +%s) - 60 && since <= $(date +%s))) || fail "away since $since"
expect_output '^base-away-since *20[-0-9]*T[:0-9]*Z$' qed-ublk status 0
for place in 20 40 80; do
    timeout 20 dd if="$device" bs=1M skip="$place" count=4 iflag=direct status=none | cmp - own
done
timeout 20 dd if=own of="$device" bs=1M seek=100 oflag=direct conv=fsync status=none
timeout 20 qed-ublk snapshot "$device" away.qed >/dev/null
dd if="$device" of=late bs=1M skip=8 count=2 iflag=direct status=none &
reader=$!
# Past the page cache: in it the kernel would have everybody wait who seeks in the disk.
dd if=own of="$device" bs=512 count=1 seek=$((120 << 11)) oflag=direct status=none &
writer=$!
expect_refusal 3 'queue [0-9] did not answer in time' qed-ublk snapshot "$device" waited.qed
# Once more, with somebody who waits, and what was not flushed.
timeout 20 dd if=own of="$device" bs=1M seek=140 oflag=direct status=none
kill_server
expect_equal "what recover prints" "$device" "$(qed-ublk recover --all)"
timeout 20 dd if="$device" bs=1M skip=140 count=4 iflag=direct status=none | cmp - own
timeout 20 dd if="$device" bs=1M skip=100 count=4 iflag=direct status=none | cmp - own
both_wait_for_the_origin
expect_base there 1
for place in 80 100 140; do dd if=own of=expected bs=1M seek="$place" conv=notrunc status=none; done
dd if=own of=expected bs=512 count=1 seek=$((120 << 11)) conv=notrunc status=none
echo 3 >/proc/sys/vm/drop_caches
expect_status 0 cmp "$device" expected

step "an origin that takes connections and says nothing keeps the next server from nothing either"
dd if=own of="$device" bs=1M seek=150 oflag=direct status=none
pkill -STOP -x nbdkit
kill_server
expect_equal "what add prints" "$device" "$(timeout 30 qed-ublk add disk.qed)"
expect_base away 0
timeout 20 dd if="$device" bs=1M skip=150 count=4 iflag=direct status=none | cmp - own
pkill -CONT -x nbdkit
wait_until 20 eval '[[ $(said_of_base) == "is away is back" ]]'
dd if=own of=expected bs=1M seek=150 conv=notrunc status=none
expect_status 0 cmp "$device" expected

step "a device that waits goes without its origin, and what was acknowledged is in its image"
dd if=own of="$device" bs=1M seek=160 oflag=direct status=none
dd if=own of=expected bs=1M seek=160 conv=notrunc status=none
origin_dies
kill_server
# QEMU would open the base. Clusters that nobody uses are what a killed server leaves.
unharmed() {
    local status=0
    qed-ublk check "$@" >check.log || status=$?
    ((status == 0 || status == 3)) || fail "$*: $(<check.log)"
}
expect_status 0 qed-ublk info disk.qed
unharmed disk.qed
expect_status 0 qed-ublk del "$device"
expect_no_devices
unharmed disk.qed
is_marked_clean disk.qed || fail "disk.qed asks to be checked"
expect_refusal 1 'cannot be used as a base: .*refused' qed-ublk add --base-allow '*' disk.qed
expect_no_devices
origin file base.raw
expect_undamaged disk.qed away.qed
expect_status 0 qed-ublk compare --base-allow '*' -f qed -F raw disk.qed expected

step "a server that is told to end waits for no origin, as in an upgrade: who does waits for the next server's"
device=$(qed-ublk add --base-allow '*' --base-timeout 0 disk.qed)
place=60
for signal in TERM INT; do
    # Where the image has nothing yet.
    ((place += 1))
    origin_dies
    echo 3 >/proc/sys/vm/drop_caches
    dd if="$device" of=late bs=1M skip=8 count=2 iflag=direct status=none &
    reader=$!
    printf %s "$signal" | dd of="$device" bs=1 seek=$((place << 20)) conv=notrunc,fsync status=none &
    writer=$!
    wait_until 20 eval '[[ $(said_of_base) == *away ]]'
    server=$(server_of 0)
    # By its supervisor's next one, or by hand.
    if [[ $signal == INT ]]; then kill_supervisors; fi
    kill -"$signal" "$server"
    wait_until 20 process_is_gone "$server"
    if [[ $signal == INT ]]; then expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"; fi
    wait_until 40 eval '[[ $(qed-ublk list -n -O state 0) == live && $(server_of 0) != "$server" ]]'
    [[ -d /proc/$reader && -d /proc/$writer ]] || fail "somebody did not wait"
    origin file base.raw
    wait "$reader" "$writer"
    expect_status 0 cmp late <(dd if=base.raw bs=1M skip=8 count=2 status=none)
    printf %s "$signal" | dd of=expected bs=1 seek=$((place << 20)) conv=notrunc status=none
    expect_status 0 cmp "$device" expected
done
qed-ublk del "$device"
expect_no_devices
expect_undamaged disk.qed

step "del --force waits for no origin, with somebody who would wait for ever"
device=$(qed-ublk add --base-allow '*' --base-timeout 0 disk.qed)
origin_dies
dd if="$device" of=/dev/null bs=1M skip=8 count=2 iflag=direct status=none 2>/dev/null &
reader=$!
wait_until 20 eval '[[ -n $(said_of_base) ]]'
expect_status 0 timeout 60 qed-ublk del --force "$device"
if wait "$reader"; then fail "what nobody has was read"; fi
expect_no_devices
origin file base.raw
expect_undamaged disk.qed
device=$(qed-ublk add --base-allow '*' disk.qed)

step "flatten: the disk needs its origin no more"
expect_output 'disk.qed: has what these have, and needs them no more: .*nbd.unix:' qed-ublk flatten "$device"
origin_dies
expect_status 0 cmp "$device" expected
qed-ublk del "$device"
expect_no_devices
expect_undamaged disk.qed
expect_status 0 qed-ublk compare -f qed -F raw disk.qed expected
rm disk.qed away.qed

step "over TCP, with several connections and blocks of 4096 bytes"
(setsid nbdkit -f -r -i 127.0.0.1 -p 10809 --filter=blocksize-policy file base.raw blocksize-minimum=4096 \
    blocksize-maximum=1M blocksize-error-policy=error </dev/null >>origin.log 2>&1 &)
wait_until 20 eval 'qed-ublk create --force -q --base nbd://127.0.0.1/ disk.qed 2>/dev/null'
expect_status 0 qed-ublk compare --base-allow 'nbd://127.0.0.1/*' -f qed -F raw disk.qed base.raw
device=$(qed-ublk add --base-allow 'nbd://127.0.0.1/*' disk.qed)
expect_status 0 cmp "$device" base.raw
qed-ublk del "$device"
origin_dies
rm disk.qed

step "addresses and servers that are none: one sentence, and nothing is left behind"
origin file base.raw
no_base() { expect_refusal "$1" "$2" qed-ublk create --base "$3" disk.qed; }
no_base 64 'takes the address of an NBD export' base.raw
no_base 64 'names a user' nbd://me@host/
no_base 64 'could name files of this machine' 'nbds://host/x?tls-psk-file=/etc/shadow'
no_base 64 'names no socket by its whole path' 'nbd+unix:///x?socket=run/origin'
no_base 64 'there is no / before' nbd://host
no_base 1 'cannot be used as a base' 'nbd+unix:///?socket=/run/nobody'
no_base 1 'cannot be used as a base' nbd://127.0.0.1:1/
no_base 1 'cannot be used as a base' nbd://no.such.host.invalid/
no_base 1 'cannot be used as a base: .*TLS' 'nbds+unix:///?socket=/run/origin'
origin_dies
[[ ! -e disk.qed ]] || fail "an image was left behind"
expect_no_devices
