#!/bin/sh
# Makes the secrets of compose.yaml in compose/secrets, each only if it is missing:
# the client's secret, and an authority with the certificates that containers show
# to one another. The authority's key is thrown away once it has signed; to have
# new certificates, remove internal_ca.crt and run this again.
#
# Compose mounts these files as they are here, with owner and mode (what a secret
# says of uid and mode is for Swarm alone), and the containers run as users that
# this machine does not have. So the files can be read by all, and the folder, which
# only its owner can enter, keeps the others of this machine out.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
chmod 0700 secrets
cd secrets

exec 3>&2 2>openssl.log
trap 'code=$?; [ $code = 0 ] || cat openssl.log >&3; rm -f openssl.log' EXIT

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

# certificate NAME: a key for the container NAME and a certificate by the authority.
certificate() {
  key "$1.key"
  openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  printf 'subjectAltName=DNS:%s,DNS:localhost\nextendedKeyUsage=serverAuth\n' "$1" >"$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -sha256 -extfile "$1.ext" -out "$1.crt"
  rm "$1.csr" "$1.ext"
}

if ! [ -e internal_ca.crt ]; then
  rm -f ./*.crt ./*.key ./*.csr ./*.ext ./*.srl
  key ca.key
  openssl req -x509 -key ca.key -days 825 -sha256 -subj "/CN=inside compose" \
    -addext keyUsage=critical,keyCertSign -out ca.crt
  certificate provider
  certificate pebble
  rm ca.key ./*.srl
  mv ca.crt internal_ca.crt
fi
[ -e client_secret ] || openssl rand -hex 32 | tr -d '\n' >client_secret
chmod 0444 ./*.crt ./*.key client_secret
