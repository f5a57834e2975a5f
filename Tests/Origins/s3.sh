# shellcheck shell=bash
# A base in a bucket of S3: nbdkit's S3 plugin with Debian's boto3, and moto, which is an S3 server, from PyPI.
# shellcheck source=origins.sh
source "$1/origins.sh"
cache=${QED_UBLK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qed-ublk}
moto=5.2.5

step "an S3 server, in an environment of its own that the cache keeps"
mkdir -p "$cache"
server=$cache/s3-server-$moto
exec 9>"$server.lock"
flock 9
if [[ ! -e $server/complete ]]; then
    rm -rf "$server"
    /usr/bin/python3 -m venv "$server"
    "$server/bin/pip" -q --disable-pip-version-check install "moto[s3]==$moto" flask flask-cors
    touch "$server/complete"
fi
exec 9>&-
in_background server "$server/bin/moto_server" -H 127.0.0.1 -p 0
wait_until 60 grep -q 'Running on http://127.0.0.1:[0-9]' server.log
endpoint=$(grep -om 1 'http://127.0.0.1:[0-9]*' server.log)
# Whoever is known to the server. In the environment: what is in arguments everybody sees.
export AWS_ACCESS_KEY_ID=somebody AWS_SECRET_ACCESS_KEY=secret-of-somebody AWS_DEFAULT_REGION=us-east-1

step "a base of data and zeros is in a bucket"
head -c 3M /dev/urandom >base.raw
truncate -s 20M base.raw
head -c 3M /dev/urandom >>base.raw
truncate -s 24M base.raw
put_base() {
    /usr/bin/python3 - "$endpoint" <<'PYTHON'
import boto3, sys
bucket = boto3.client("s3", endpoint_url=sys.argv[1])
bucket.create_bucket(Bucket="images")
bucket.upload_file("base.raw", "images", "base.raw")
PYTHON
}
put_base
in_background origin nbdkit -f -r -U "$PWD/origin" S3 "endpoint-url=$endpoint" bucket=images key=base.raw
address="nbd+unix:///?socket=$PWD/origin"
wait_until 20 test -S origin

step "an overlay over it has what the base has, and what is written to it"
expect_status 0 qed create --base "$address" disk.qed
expect_status 0 qed compare --base-allow "$address" -f qed -F raw disk.qed base.raw
# A part of a cluster: the rest of it comes from the bucket.
expect_status 0 qed io --base-allow "$address" disk.qed 'write -P 0xab 1M 4k' 'write -P 0xcd 10M 1k'
cp base.raw expected
head -c 4k /dev/zero | tr '\0' '\253' | dd of=expected bs=4k seek=256 conv=notrunc status=none
head -c 1k /dev/zero | tr '\0' '\315' | dd of=expected bs=1k seek=10240 conv=notrunc status=none
qed convert --base-allow "$address" -f qed -O raw disk.qed - | cmp - expected
expect_output 'No errors|no errors' qed check disk.qed
expect_output 'No errors' qemu-img check -f qed disk.qed
if grep -aq 'secret-of-somebody' disk.qed; then fail "the image has the secret"; fi

step "a server of S3 that is away, a key that it does not have: refused, with nothing left behind; there again when it is"
ends server
expect_refusal 1 'cannot be used as a base: .*disk.qed' qed convert --base-allow "$address" -f qed -O raw disk.qed other.raw
expect_refusal 1 'cannot be used as a base' qed create --base "$address" other.qed
in_background server "$server/bin/moto_server" -H 127.0.0.1 -p "${endpoint##*:}"
wait_until 60 eval '(: >"/dev/tcp/127.0.0.1/${endpoint##*:}")'
expect_refusal 1 'cannot be used as a base' qed create --base "$address" other.qed
[[ ! -e other.raw && ! -e other.qed ]] || fail "something was left behind"
put_base
qed convert --base-allow "$address" -f qed -O raw disk.qed - | cmp - expected
