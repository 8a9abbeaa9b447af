#!/usr/bin/env bash
# Makes anew the CA certificate that the fuzz target x509 trusts, and the target's seeds: chains that rustls accepts, or
# rejects for a reason of its own each. A seed is the reason (0: that of rustls), the time, and the certificates.
set -euo pipefail
cd "$(dirname "$0")"
../scripts/install-deps.sh openssl
seeds=$PWD/seeds/x509
rm -rf "$seeds"
mkdir -p "$seeds"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# key NAME ALGORITHM [OPTION…]
key() { openssl genpkey -quiet -out "$work/$1.key" -algorithm "${@:2}"; }

# issue NAME ISSUER DAYS SUBJECT EXTENSIONS [OPTION…]: a certificate, by default for a key on P-256.
issue() {
    local name=$work/$1 issuer=$work/$2 signer
    [ -e "$name.key" ] || key "$1" EC -pkeyopt ec_paramgen_curve:P-256
    if [ "$1" = "$2" ]; then signer=(-key "$name.key"); else signer=(-CA "$issuer.pem" -CAkey "$issuer.key"); fi
    printf '[x]\n%b\n' "$5" >"$work/extensions"
    openssl req -new -key "$name.key" -subj "$4" -config /dev/null "${@:6}" -out "$work/csr"
    openssl x509 -req -in "$work/csr" "${signer[@]}" -set_serial "$RANDOM" -days "$3" -extfile "$work/extensions" -extensions x \
        -out "$name.pem" 2>/dev/null
    openssl x509 -in "$name.pem" -outform DER -out "$name.der"
}

# seed NAME DAYS CERTIFICATE…: a chain, as it is seen so many days after today.
seed() {
    local certificate
    {
        printf '%b' "\\0$(printf '%08x' $(($(date +%s) + $2 * 86400)) | sed 's/../\\x&/g')"
        for certificate in "${@:3}"; do cat "$work/$certificate.der"; done
    } >"$seeds/$1"
}

ca='basicConstraints=critical,CA:TRUE'
host='basicConstraints=CA:FALSE\nsubjectAltName=DNS:auth.example'
issue root root 36500 '/O=Root of tests/CN=Root 1' "$ca"
issue leaf root 36500 '/CN=leaf' "$host"
issue short root 30 '/O=Kurzlebig für Tests/CN=short' "$host" -utf8
issue intermediate root 3650 '/O=Intermediate/CN=R3' "$ca"
issue below intermediate 36500 '/CN=below' "$host"
issue other root 36500 '/CN=other' 'subjectAltName=DNS:a.example,DNS:*.b.example,IP:192.0.2.1,IP:2001:db8::1'
issue address root 36500 '/CN=address' 'subjectAltName=DNS:192.0.2.1'
issue name_only root 36500 '/CN=auth.example' 'basicConstraints=CA:FALSE'
issue no_name root 36500 '/O=Nobody' 'basicConstraints=CA:FALSE'
issue self self 36500 '/CN=self' "$host"
issue client root 36500 '/CN=client' "$host\nextendedKeyUsage=clientAuth"
issue extension root 36500 '/CN=extension' "$host\n1.2.3.4=critical,ASN1:UTF8String:x"
issue server_ca root 36500 '/CN=server_ca' "$ca\nsubjectAltName=DNS:auth.example"
issue escapes root 36500 "/O=$(printf 'a\033[31m\302\205b')/CN=$(printf '\342\200\256hcruos')" "$host" -utf8
key rsa RSA -pkeyopt rsa_keygen_bits:1024
issue rsa root 36500 '/CN=rsa' "$host"
key curve EC -pkeyopt ec_paramgen_curve:P-521
issue curve root 36500 '/CN=curve' "$host"
key ed448 ED448
issue ed448 ed448 36500 '/CN=ed448' "$ca"
issue below_ed448 ed448 36500 '/CN=below ed448' "$host"
key again EC -pkeyopt ec_paramgen_curve:P-256
issue again again 36500 '/O=Root of tests/CN=Root 1' "$ca"
issue below_again again 36500 '/CN=below another key' "$host"

seed valid 1 leaf
seed valid-chain 1 below intermediate
seed expired 40 short
seed expired-chain 4000 below intermediate
seed early -1 leaf
for name in other address name_only no_name self client extension server_ca escapes rsa curve below_again; do
    seed "$name" 1 "$name"
done
seed ed448 1 below_ed448 ed448
seed unknown 1 below
cp "$work/root.der" fuzz_targets/x509_root.der
