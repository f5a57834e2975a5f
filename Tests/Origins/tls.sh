# shellcheck shell=bash
# Bases with TLS, of users without rights, who have certificates of their own; and servers that answer as fast as libnbd asks, as
# they do not in an emulated machine.
# shellcheck source=origins.sh
source "$1/origins.sh"
# shellcheck source=../VM/scenarios/certificates.bash
source "$1/../VM/scenarios/certificates.bash"
use_openssl "$PWD"
head -c 2M /dev/urandom >base.raw
authority ours
certificate ours server server IP:127.0.0.1

step "somebody who has no rights, and no authority yet"
mkdir home
somebody=()
if ((EUID == 0)); then
    chown 65534 home
    somebody=(setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs)
fi
qed() { "${somebody[@]}" env "HOME=$PWD/home" ./qed-ublk "$@"; }
for port in {20809..20899}; do
    in_background origin nbdkit -f -r -i 127.0.0.1 -p "$port" --tls=require --tls-certificates="$PWD/server" file base.raw
    # Another one may have the port.
    for _ in {1..50}; do
        sleep 0.1
        if [[ ! -d /proc/$(<origin.pid) ]] || (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
    done
    if [[ -d /proc/$(<origin.pid) ]]; then break; fi
done
address=nbds://127.0.0.1:$port/
expect_refusal 1 "/home/.pki/libnbd/ca-cert.pem or .*/home/.config/pki/libnbd/ca-cert.pem" \
    qed create --base "$address" home/disk.qed

step "with one, a hundred connections in a row"
mkdir -p home/.config/pki/libnbd
cp ours.pem home/.config/pki/libnbd/ca-cert.pem
for _ in {1..100}; do expect_status 0 qed create --force -q --base "$address" home/disk.qed; done
expect_status 0 qed compare --base-allow "$address" -f qed -F raw home/disk.qed base.raw
