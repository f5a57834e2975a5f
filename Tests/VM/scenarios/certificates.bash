# Certificates for TLS, made with openssl: in the working directory, for two days. Sourced after lib.sh.
# shellcheck shell=bash

# use_openssl FOLDER: what it wants to read is there; a distribution has that elsewhere, and the tests' machine has it not.
use_openssl() {
    export OPENSSL_CONF=$1/openssl.cnf
    printf '[req]\ndistinguished_name = name\n[name]\n' >"$OPENSSL_CONF"
    new_key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
}

# authority NAME: one that signs.
authority() {
    expect_status 0 openssl req -x509 "${new_key[@]}" -days 2 -subj "/CN=$1" -keyout "$1.key" -out "$1.pem" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
}

# certificate AUTHORITY FOLDER WHOSE NAME: of a server or a client, signed by the authority; it and its key are in the folder,
# as nbdkit and libnbd call them.
certificate() {
    mkdir -p "$2"
    expect_status 0 openssl req -new "${new_key[@]}" -subj "/CN=$3" -keyout "$2/$3-key.pem" -out request.pem
    echo "subjectAltName = $4" >names
    expect_status 0 openssl x509 -req -in request.pem -CA "$1.pem" -CAkey "$1.key" -CAcreateserial -days 2 -extfile names \
        -out "$2/$3-cert.pem"
    cp "$1.pem" "$2/ca-cert.pem"
}
