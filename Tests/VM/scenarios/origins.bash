# Bases elsewhere, for scenarios: a server of one, which comes and goes.
# shellcheck shell=bash

# shellcheck disable=SC2034  # It is the scenario's.
address='nbd+unix:///?socket=/run/origin'

# in_background COMMAND...: goes on when the scenario's shell has other things to do, or has ended. nbdkit 1.32 may abort when a
# client goes away that it has answers for; it is begun again then, as a service would be.
in_background() {
    (setsid bash -c 'while "$@"; (($? == 134)); do rm -f /run/origin; done' - "$@" </dev/null >>origin.log 2>&1 &)
}

# origin ARGUMENT...: an NBD server from now on, at /run/origin.
origin() {
    rm -f /run/origin
    in_background nbdkit -f -r -U /run/origin "$@"
    wait_until 20 eval '[[ -S /run/origin ]]'
}

# Another machine, as far as the network goes: a namespace that is reached at $far_host, through what `cable` says of packets.
# shellcheck disable=SC2034  # It is the scenario's too.
far_host=10.84.0.2
another_machine() {
    modprobe veth
    modprobe sch_netem
    ip netns add far
    ip link add near type veth peer name far netns far
    ip address add 10.84.0.1/24 dev near
    ip -n far address add "$far_host/24" dev far
    ip link set near up
    ip -n far link set far up
}

# cable OPTION...: what happens to packets in both directions, in the words of tc-netem(8).
cable() {
    tc qdisc replace dev near root netem "$@"
    ip netns exec far tc qdisc replace dev far root netem "$@"
}

# far_origin ARGUMENT...: an NBD server from now on, there.
far_origin() {
    in_background ip netns exec far nbdkit -f -r -i "$far_host" "$@"
    wait_until 20 eval '(: >"/dev/tcp/$far_host/10809")'
}

# For wait_until.
no_origin() { ! pidof nbdkit >/dev/null; }

origin_dies() {
    pkill -KILL -x nbdkit || true
    wait_until 20 no_origin
}

# origin_comes_and_goes THERE AWAY COMMAND...: from now on the origin is there for so many seconds, then away for so many, and is
# begun again by the command; until origin_stays.
origin_comes_and_goes() {
    touch load
    { while [[ -e load ]]; do
        sleep "$1"
        origin_dies
        sleep "$2"
        "${@:3}"
    done; } &
    load=$!
}
origin_stays() {
    rm load
    wait "$load"
}

# What the log of device 0 says of its base.
said_of_base() { grep -o 'is away\|is back\|has [0-9]* bytes now' /run/qed-ublk/ublk0.log | paste -sd ' '; }

# make_base [MIB]: a file system of some size, with holes, as the base: base.raw. $sum is that of the file "large" in it, of
# so many MiB.
make_base() {
    truncate -s 200M base.raw
    expect_status 0 mkfs.ext4 -q base.raw
    mkdir /base
    modprobe loop
    mount -o loop base.raw /base
    dd if=/dev/urandom of=/base/large bs=1M count="${1:-40}" status=none
    seq 200000 >/base/text
    # shellcheck disable=SC2034  # It is the scenario's.
    sum=$(md5sum </base/large)
    umount /base
}
