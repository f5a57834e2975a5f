# The machine swaps to the device: more is kept in memory than it has, and every byte comes back. ROUNDS says how often
# all of it is read.
# kernels: 6.12
# vm: --memory 1024 --file Tests/VM/scenarios/devices.bash
source lib.sh
source devices.bash
ROUNDS=${ROUNDS:-1}
cd /data
# The machine's root, with the program, is a file system in memory, which is swapped out as well: to the server's own disk. What
# the server runs stays in memory; and a real-time priority lets it allocate when nobody else may, see docs/architecture.md.

# mebibytes KEY: of /proc/meminfo.
mebibytes() { awk -v key="$1:" '$1 == key { print int($2 / 1024) }' /proc/meminfo; }
swapped() { echo $(($(mebibytes SwapTotal) - $(mebibytes SwapFree))); }
# file NUMBER: 8 MiB that no other file has.
file() {
    printf '%4096d' "$1"
    cat random
}

step "a device as swap"
qed-ublk create swap.qed 1G
device=$(qed-ublk add swap.qed)
expect_status 0 busybox mkswap "$device"
expect_status 0 busybox swapon "$device"
expect_status 0 chrt -a -r -p 1 "$(qed-ublk list --json | jq '.[0].pid')"

files=$((($(mebibytes MemAvailable) + 192) / 8))
step "$files files of 8 MiB in memory"
head -c $(((8 << 20) - 4096)) /dev/urandom >random
mkdir /tmp/memory
mount -t tmpfs -o size=900M tmpfs /tmp/memory
for ((number = 1; number <= files; number++)); do file "$number" >"/tmp/memory/$number"; done
echo "          $(swapped) MiB are on the device"
(($(swapped) >= 100)) || fail "too little was swapped out: $(swapped) MiB"
for ((round = 1; round <= ROUNDS; round++)); do
    step "read, $round"
    for ((number = 1; number <= files; number++)); do
        cmp <(file "$number") "/tmp/memory/$number" || fail "file $number has other contents"
    done
done

step "swapped in again, and gone"
for ((number = files / 3; number <= files; number++)); do rm "/tmp/memory/$number"; done
expect_refusal 3 '/dev/ublkb0 is in use as swap; use swapoff first' qed-ublk del 0
expect_status 0 busybox swapoff "$device"
for ((number = 1; number < files / 3; number++)); do
    cmp <(file "$number") "/tmp/memory/$number" || fail "file $number has other contents"
done
umount /tmp/memory
qed-ublk del 0
expect_no_devices
expect_sound swap.qed
