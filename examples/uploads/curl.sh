#!/bin/sh
# Uploads zeros with curl, which does not wait for 100 (Continue), and prints the status of each
# answer, or what came in its place.
#
#     curl.sh --http1.1|--http2 URL MIB TIMES
for _ in $(seq "$4"); do
  head -c "$(($3 << 20))" /dev/zero |
    curl -sS -o /dev/null -w '%{http_code} %{exitcode} %{errormsg}\n' --max-time 120 --cacert "$SSL_CERT_FILE" "$1" -H Expect: --data-binary @- "$2" 2>/dev/null |
    sed 's/ 0 *$//'
done
