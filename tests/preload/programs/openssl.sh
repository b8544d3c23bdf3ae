# shellcheck shell=sh disable=SC2154 # start sets $server
# OpenSSL: digests, ciphers, signatures, certificates, and a TLS server and
# client on a socket in the work folder.

prepare() {
    awk -v n=$((400000 * PT_SCALE)) 'BEGIN { for (i = 0; i < n; i++) print i, i * 2654435761 % 4294967296 }' >"$PT_DATA/file"
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$PT_DATA/key.pem" 2>/dev/null
    openssl req -new -x509 -key "$PT_DATA/key.pem" -subj /CN=localhost -days 2 -out "$PT_DATA/cert.pem"
}

run() {
    key=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
    iv=0102030405060708090a0b0c0d0e0f10
    for algorithm in sha256 sha512 sha3-256 blake2b512; do
        record "dgst.$algorithm" openssl dgst "-$algorithm" -r "$PT_DATA/file"
    done
    for cipher in aes-256-ctr aes-128-cbc chacha20 camellia-256-cbc; do
        bits=$key
        [ "$cipher" != aes-128-cbc ] || bits=$iv
        quiet "enc.$cipher" openssl enc "-$cipher" -K "$bits" -iv "$iv" -in "$PT_DATA/file" -out encrypted
        digest <encrypted >"$PT_OUT/enc.$cipher"
        quiet "dec.$cipher" openssl enc -d "-$cipher" -K "$bits" -iv "$iv" -in encrypted -out decrypted
        cmp decrypted "$PT_DATA/file" || die "$cipher: does not decrypt"
    done
    quiet sign openssl dgst -sha256 -sign "$PT_DATA/key.pem" -out signature "$PT_DATA/file" # PKCS#1 v1.5: no randomness
    digest <signature >"$PT_OUT/signature"
    quiet public openssl pkey -in "$PT_DATA/key.pem" -pubout -out public.pem
    record verify openssl dgst -sha256 -verify public.pem -signature signature "$PT_DATA/file"
    echo x >other
    expect 1 verify.wrong openssl dgst -sha256 -verify public.pem -signature signature other
    record x509 openssl x509 -in "$PT_DATA/cert.pem" -noout -text
    record chain openssl verify -CAfile "$PT_DATA/cert.pem" "$PT_DATA/cert.pem"
    quiet request openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ec.pem -subj /CN=other -out request.pem
    quiet request.verify openssl req -in request.pem -noout -verify
    quiet issue openssl x509 -req -in request.pem -CA "$PT_DATA/cert.pem" -CAkey "$PT_DATA/key.pem" -set_serial 7 -days 1 -out issued.pem
    record issued openssl verify -CAfile "$PT_DATA/cert.pem" issued.pem
    serve
}

serve() {
    connections=$((15 * PT_SCALE))
    mkdir www
    cp "$PT_DATA/file" www/file
    cd www || die "no folder to serve"
    # A short name, since s_server cannot print one of more than 32 bytes. One
    # more connection: the wait for the server takes the first.
    start s_server openssl s_server -unix ../socket -cert "$PT_DATA/cert.pem" -key "$PT_DATA/key.pem" \
        -naccept $((connections + 1)) -WWW
    cd "$PT_TMP" || die "no work folder"
    until_ready get nothing
    loaded "$server"
    i=0
    while [ "$i" -lt "$connections" ]; do
        get file
        i=$((i + 1))
    done
    wait "$server" || die "s_server ended with $?"
    grep -v '^$' answer | digest >"$PT_OUT/answer"
    tail -n 1 answer >"$PT_OUT/last_line"
    tail -c "$(wc -c <"$PT_DATA/file")" answer | cmp - "$PT_DATA/file" || die "s_client got another file"
}

get() { # get NAME
    printf 'GET /%s HTTP/1.0\r\n\r\n' "$1" |
        bh openssl s_client -unix "$PT_TMP/socket" -quiet -ign_eof -CAfile "$PT_DATA/cert.pem" -verify_return_error -servername localhost \
            >answer 2>>"$PT_LOG/s_client.stderr"
}
