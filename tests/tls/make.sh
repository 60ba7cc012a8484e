#!/bin/sh
# Makes the certificates in this folder anew. They are for tests, valid for a hundred years, and nobody trusts their authority.
#   ca.pem         the authority                 named.pem      a certificate for localhost, and its key
#   encrypted.key  the same key, with the        unnamed.pem    one without subjectAltName, whose common name is localhost
#                  password "geheim"
set -eu
cd "$(dirname "$0")"
made=$(mktemp -d)
trap 'rm -r "$made"' EXIT
curve="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $curve -keyout "$made/ca.key" -out ca.pem -days 36500 -subj "/CN=Narrowboat tests" \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
for kind in named unnamed; do
    openssl req $curve -keyout "$made/$kind.key" -out "$made/$kind.csr" -subj "/CN=localhost"
    { echo "basicConstraints=critical,CA:FALSE"; [ $kind = unnamed ] || echo "subjectAltName=DNS:localhost,IP:127.0.0.1"; } > "$made/$kind.ext"
    openssl x509 -req -in "$made/$kind.csr" -CA ca.pem -CAkey "$made/ca.key" -CAcreateserial -CAserial "$made/serial" \
        -days 36500 -extfile "$made/$kind.ext" -out "$made/$kind.crt"
    cat "$made/$kind.crt" "$made/$kind.key" > $kind.pem
done
openssl pkcs8 -topk8 -in "$made/named.key" -out encrypted.key -passout pass:geheim
