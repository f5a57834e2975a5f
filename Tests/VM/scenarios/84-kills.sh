# Servers are killed by kill -9 at random moments, many in a row, and their device is recovered each time: under fio,
# which finds every block again that it writes, on an overlay; and under a mounted ext4 and xfs. Who uses the device
# notices nothing but a pause. Now and then, on 7, the next server is killed too, while it takes over.
# COUNT kills under fio, and an eighth as many under each file system; with DURATION, in seconds, instead one kill in
# about every minute under fio, on four queues, and a snapshot in every second, which are merged. SEED chooses the moments.
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/fio-verify.bash
source lib.sh
source devices.bash
source fio-verify.bash
cd /data
RANDOM=${SEED:-1}
times=() takeovers=0

# Sleeps for a random time, in milliseconds.
pause() {
    local milliseconds=$(($1 + (RANDOM << 15 | RANDOM) % ($2 - $1)))
    sleep "$((milliseconds / 1000)).$(printf %03d $((milliseconds % 1000)))"
}

# Between so many milliseconds from now kills the server, and brings the device back.
strike() {
    pause "$1" "$2"
    kill_servers
    # Not on 6.12, where recover refuses after a takeover that was cut short: docs/recovery.md.
    if ((RANDOM % 4 == 0)) && [[ $VM_KERNEL != 6.12 ]]; then
        qed-ublk recover 0 >/dev/null 2>&1 &
        pause 1 500
        kill_servers
        { wait "$!" || true; } 2>/dev/null
        takeovers=$((takeovers + 1))
    fi
    expect_equal "the state after a kill" waiting "$(qed-ublk list --json | jq -r '.[].state')"
    local start=$EPOCHREALTIME
    expect_equal "what recover prints" /dev/ublkb0 "$(qed-ublk recover 0)"
    times+=($(((${EPOCHREALTIME/./} - ${start/./}) / 1000)))
}

# Says what the kills since the last report came to.
report() {
    local sorted
    mapfile -t sorted < <(printf '%s\n' "${times[@]}" | sort -n)
    printf '          %d recovered, in %d ms (median), %d ms (longest); %d more killed while they took over\n' \
        ${#sorted[@]} "${sorted[${#sorted[@]} / 2]}" "${sorted[-1]}" "$takeovers"
    times=() takeovers=0
}

# Writes and verifies with fio, again and again with other blocks, until the file `enough` is there.
fio_until_enough() {
    local turn
    for ((turn = 1; turn == 1 || ! $(find . -name enough | wc -l); turn++)); do
        if ! FIO_SEED=$((${SEED:-1} * 1000 + turn)) run_fio "$device" 512 || grep -qE 'err= *[1-9]' fio.log; then
            cp fio.log failed
            return
        fi
    done
    echo "$turn" >turns
}

# For wait_until: the snapshot has the mark of its number. A server that takes over may have it for a moment.
has_mark() { qed-ublk io "$1.qed" "read -P $(($1 % 250 + 1)) 192M 4k" >mark.log 2>&1; }

# Takes a snapshot in each second, until the file `enough` is there; each has the mark that was written before it. All but the
# newest are merged now and then. Leaves in the file `taken` how many there were.
snapshots_until_enough() {
    local number file checked=0
    for ((number = 1; ! $(find . -name enough | wc -l); number++)); do
        head -c 4096 /dev/zero | tr '\0' "\\$(printf %03o $((number % 250 + 1)))" |
            dd of="$device" bs=4k seek=$((192 * 256)) oflag=direct conv=notrunc status=none
        # Where the server, or the command, is killed meanwhile it has been taken, or not.
        qed-ublk snapshot 0 "$number.qed" >/dev/null 2>snapshot.log || true
        if ((number % 20 == 0)); then
            for ((file = checked + 1; file <= number; file++)); do
                if [[ -e $file.qed ]]; then wait_until 60 has_mark "$file"; fi
            done
            checked=$number
            qed-ublk commit --keep 3 0 >/dev/null 2>commit.log || true
        fi
        sleep 1
    done
    echo "$number" >taken
}

# kills_under_fio QUEUES KILLS MILLISECONDS MILLISECONDS: on an overlay over a base with data; each kill after a time
# between the two. And for DURATION seconds at least.
kills_under_fio() {
    local kill writer taker
    rm -f image.qed base.raw enough
    head -c 96M /dev/urandom >base.raw
    # fio has 192 MiB, and what is behind that marks snapshots.
    qed-ublk create --backing base.raw --backing-format raw image.qed 193M
    device=$(qed-ublk add -q "$1" image.qed)
    fio_until_enough &
    writer=$! taker=''
    if [[ -n ${DURATION:-} ]]; then
        snapshots_until_enough &
        taker=$!
    fi
    for ((kill = 0; kill < $2 || SECONDS < ${DURATION:-0}; kill++)); do
        strike "$3" "$4"
        [[ ! -e failed ]] || fail "fio: $(<failed)"
        if (((kill + 1) % 100 == 0)); then step "$((kill + 1)) kills"; fi
    done
    touch enough
    wait "$writer"
    if [[ -n $taker ]]; then
        wait "$taker" || fail "snapshots: $(cat mark.log snapshot.log commit.log)"
        printf '          %d snapshots\n' "$(<taken)"
        expect_status 0 qed-ublk commit --keep 1 0
        expect_equal "how many files there are" 3 "$(find . -name '*.qed' | wc -l)"
    fi
    [[ ! -e failed ]] || fail "fio: $(<failed)"
    report
    qed-ublk del 0
    expect_no_devices
    expect_undamaged ./*.qed
}

if [[ -n ${DURATION:-} ]]; then
    kills=$(((DURATION + 59) / 60))
    step "fio on four queues for $DURATION s, with $kills kills"
    kills_under_fio 4 "$kills" $((DURATION * 500 / kills)) $((DURATION * 1500 / kills))
    exit
fi

COUNT=${COUNT:-20}
step "$COUNT kills under fio verify, on an overlay with two queues"
kills_under_fio 2 "$COUNT" 5 600

# Copies the modules again and again, until the file `enough` is there; a copy is compared before it is replaced.
copy_until_enough() {
    local turn copy
    for ((turn = 1; turn <= 3 || ! $(find . -name enough | wc -l); turn++)); do
        copy=/mnt/copy$((turn % 3))
        if [[ -e $copy ]] && ! { diff -rq /usr/lib/modules "$copy" && rm -r "$copy"; } ||
            ! cp -a /usr/lib/modules "$copy"; then
            touch failed
            return
        fi
    done
}

for filesystem in ext4 xfs; do
    kills=$(((COUNT + 7) / 8))
    step "$kills kills under a mounted $filesystem that is being written to"
    rm -f image.qed enough
    qed-ublk create image.qed 512M
    device=$(qed-ublk add image.qed)
    expect_status 0 "mkfs.$filesystem" -q "$device"
    mount "$device" /mnt
    copy_until_enough &
    writer=$!
    for ((kill = 0; kill < kills; kill++)); do strike 5 900; done
    touch enough
    wait "$writer"
    [[ ! -e failed ]] || fail "the writer met an error, or other data than it wrote"
    report
    sync -f /mnt
    echo 3 >/proc/sys/vm/drop_caches
    for copy in 0 1 2; do expect_status 0 diff -rq /usr/lib/modules "/mnt/copy$copy"; done
    umount /mnt
    if [[ $filesystem == ext4 ]]; then checker='e2fsck -fn'; else checker='xfs_repair -n'; fi
    # shellcheck disable=SC2086
    expect_status 0 $checker "$device"
    qed-ublk del 0
    expect_no_devices
    expect_undamaged image.qed
done
