# An overlay whose base is reached with TLS: by certificates that are made here. Whoever is not known by the authority of this
# machine is not the base, also later, in the middle of everything. The same on every kernel.
# vm: --cpus 4 --file Tests/VM/scenarios/devices.bash --file Tests/VM/scenarios/origins.bash
# vm: --file Tests/VM/scenarios/certificates.bash
source lib.sh
source devices.bash
source origins.bash
source certificates.bash
cd /data
ip link set lo up
head -c 20M /dev/urandom >base.raw
trusted=/etc/pki/libnbd
address=nbds://127.0.0.1/
allow=(--base-allow "$address")

# tls_origin FOLDER OPTION...: an NBD server that takes nobody without TLS, with the certificate in that folder.
tls_origin() {
    tcp_origin --tls=require --tls-certificates="/data/$1" "${@:2}"
}
tcp_origin() {
    in_background nbdkit -f -r -i 127.0.0.1 "$@" file base.raw
    wait_until 20 eval '(: >/dev/tcp/127.0.0.1/10809)'
}
use_openssl /data
authority ours
authority theirs
certificate ours server server IP:127.0.0.1
certificate theirs impostor server IP:127.0.0.1
certificate ours elsewhere server DNS:elsewhere.test
certificate ours client client DNS:client.test
no_base() {
    expect_refusal 1 "cannot be used as a base: $1" qed-ublk create --base "${2-$address}" other.qed
    [[ ! -e other.qed ]] || fail "an image was left behind"
    expect_no_devices
}

step "without an authority of this machine there is nobody to be believed"
tls_origin server
no_base 'TLS needs the certificate of the authority that its server is known by, in /etc/pki/libnbd/ca-cert.pem$'
mkdir -p "$trusted"
cp ours.pem "$trusted/ca-cert.pem"

step "with one the base is read; the origin is killed, and so is the device's server"
qed-ublk create --base "$address" disk.qed
expect_status 0 qed-ublk compare "${allow[@]}" -f qed -F raw disk.qed base.raw
device=$(qed-ublk add "${allow[@]}" disk.qed)
expect_status 0 cmp "$device" base.raw
origin_dies
tls_origin server
echo 3 >/proc/sys/vm/drop_caches
expect_status 0 cmp "$device" base.raw
kill_server
expect_equal "what recover prints" "$device" "$(qed-ublk recover 0)"
echo 3 >/proc/sys/vm/drop_caches
expect_status 0 cmp "$device" base.raw

step "neither a key nor where it is shows in a process, the image or the log"
mapfile -t processes < <(traces_of_devices | sed -n 's/^process //p')
((${#processes[@]} == 2)) || fail "a server and its supervisor are ${#processes[*]}"
for process in "${processes[@]}"; do tr '\0' '\n' <"/proc/$process/cmdline" && tr '\0' '\n' <"/proc/$process/environ"; done >shown
{ qed-ublk status --json "$device" && qed-ublk list --json && cat /run/qed-ublk/ublk0.log disk.qed; } >>shown
grep -aq "$address" shown || fail "it was not looked where the address is"
if grep -aEo '.*(pki|\.pem|PRIVATE KEY).*' shown; then fail "this shows"; fi
qed-ublk del "$device"
expect_no_devices

step "a client without a certificate, where the server asks for one"
origin_dies
tls_origin server --tls-verify-peer
no_base '.'
cp client/client-{cert,key}.pem "$trusted/"
expect_status 0 qed-ublk compare "${allow[@]}" -f qed -F raw disk.qed base.raw
rm "$trusted"/client-*
origin_dies

step "who is signed by another authority, has another name, or knows no TLS is refused, and nothing is left behind"
tls_origin impostor
no_base 'gnutls_handshake: .*certificate'
expect_refusal 1 'cannot be used as a base: gnutls_handshake: .*certificate' qed-ublk add "${allow[@]}" disk.qed
expect_no_devices
origin_dies
tls_origin elsewhere
no_base 'gnutls_handshake: .*certificate'
origin_dies
tcp_origin
no_base '.*refused TLS'
expect_refusal 1 'cannot be used as a base: .*refused TLS' qed-ublk add "${allow[@]}" disk.qed
expect_no_devices
origin_dies
tls_origin server
no_base '.*requires TLS' nbd://127.0.0.1/

step "who takes the place of the origin later is not believed either; nor is the origin, when there is no authority any more"
device=$(qed-ublk add "${allow[@]}" --base-timeout 2 disk.qed)
# unread PLACE: that MiB cannot be read.
unread() { expect_status 1 dd if="$device" of=/dev/null bs=1M skip="$1" count=1 iflag=direct; }
dd if="$device" bs=1M count=1 iflag=direct status=none | cmp - <(head -c 1M base.raw)
origin_dies
tls_origin impostor
unread 4
expect_equal "what the log says" 'is away' "$(said_of_base)"
origin_dies
tcp_origin
unread 5
expect_equal "what the log says" 'is away' "$(said_of_base)"
origin_dies
mv "$trusted/ca-cert.pem" .
tls_origin server
unread 6
mv ca-cert.pem "$trusted/"
wait_until 20 eval '[[ $(said_of_base) == *"is back" ]]'
expect_status 0 cmp "$device" base.raw
qed-ublk del "$device"
expect_no_devices
# QEMU knows no address of TLS, and so opens no image that has one.
expect_output 'No errors' qed-ublk check disk.qed
is_marked_clean disk.qed || fail "disk.qed asks to be checked"
origin_dies

step "over a socket of this machine"
origin --tls=require --tls-certificates=/data/server file base.raw
qed-ublk create --force -q --base 'nbds+unix:///?socket=/run/origin' disk.qed
expect_status 0 qed-ublk compare --base-allow '*' -f qed -F raw disk.qed base.raw
rm "$trusted/ca-cert.pem"
no_base 'TLS needs the certificate' 'nbds+unix:///?socket=/run/origin'
