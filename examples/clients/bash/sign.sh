#!/usr/bin/env bash
# Prints the headers that sign a request, with openssl alone. They are good for one minute and one request:
#
#   sign.sh ID KEY-FILE METHOD URL [BODY-FILE TYPE] > headers && curl -H @headers --data-binary @BODY-FILE URL
#   sign.sh --mac KEY-FILE < BASE      the signature of a signature base, for test vectors
#
# While openssl runs, its arguments show the key to who can list this user's processes: not for shared machines.
set -euo pipefail
mac() { openssl dgst -sha256 -mac HMAC -macopt "hexkey:$(base64 -d <"$1" | od -An -v -tx1 | tr -d ' \n')" -binary | openssl base64 -A; }
[ "$1" != --mac ] || { mac "$2"; exit; }
id=$1 key=$2 method=$3 url=$4 body=${5:-/dev/null} type=${6:-}
[[ $url =~ ^(https?)://([^/?#]+)([^?#]*)(\?[^#]*)? ]]
host=${BASH_REMATCH[2],,} path=${BASH_REMATCH[3]:-/} query=${BASH_REMATCH[4]:-?}
case $url in https:*) host=${host%:443} ;; *) host=${host%:80} ;; esac
digest="sha-256=:$(openssl dgst -sha256 -binary "$body" | openssl base64 -A):" now=$(date +%s)
params="(\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\"${type:+ \"content-type\"});created=$now;expires=$((now + 60))"
params+=";nonce=\"$(openssl rand -hex 16)\";keyid=\"$id\";tag=\"sallyport-req\""
signature=$(printf '"@method": %s\n"@authority": %s\n"@path": %s\n"@query": %s\n"content-digest": %s\n%s"@signature-params": %s' \
  "$method" "$host" "$path" "$query" "$digest" "${type:+\"content-type\": $type$'\n'}" "$params" | mac "$key")
printf 'Content-Digest: %s\nSignature-Input: sp=%s\nSignature: sp=:%s:\n%s' "$digest" "$params" "$signature" "${type:+Content-Type: $type$'\n'}"
