# Started by the benchmark in this folder with PORT, PORT_NOAUTH, WORK and BENCH_*
# set. Runs the binary named by $SALLYPORT, or builds it.
set -eu
ulimit -n "$(ulimit -Hn)"
if [ -z "${SALLYPORT:-}" ]; then
  SALLYPORT=$WORK/sallyport
  (cd ../../.. && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -o "$SALLYPORT" ./cmd/sallyport)
fi
config() { # IN PORT OUT
  sed "s#@PORT@#$2#g; s#@RUN@#$BENCH_RUN#g; s#@ISS@#$BENCH_ISS#g; s#@AUD@#$BENCH_AUD#g; s#@UP@#$BENCH_UPSTREAM#g; s#@GO@#$BENCH_UPSTREAM_GO#g; s#@GRPC@#$BENCH_UPSTREAM_GRPC#g" "$1" >"$3"
}
config gateway.yaml.in "$PORT" "$WORK/gateway.yaml"
config gateway-noauth.yaml.in "$PORT_NOAUTH" "$WORK/gateway-noauth.yaml"
"$SALLYPORT" serve -c "$WORK/gateway-noauth.yaml" &
exec "$SALLYPORT" serve -c "$WORK/gateway.yaml"
