#!/usr/bin/env bash
# Makes the images that compose.yaml and the Dockerfiles beside it name, from what
# install.sh has put into the cache: for machines that reach no registry of images.
# Each has what the real one has as far as it is used here, and nothing is fetched
# when something is built on it.
#
#   stand-ins.sh BASE GOCACHE WHEELS NPM TENSORFLOW REST_FRONT PEBBLE
#
# asks the engine at $DOCKER_HOST. The arguments are folders; TENSORFLOW is one of
# Python packages, and GOCACHE a cache of Go's, which saves compiling it all anew.
set -euo pipefail
export DOCKER_BUILDKIT=0
here=$(cd "$(dirname "$0")" && pwd)
base=$1 gocache=$2 wheels=$3 npm=$4 tensorflow=$5 front=$6 pebble=$7
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# image NAME TAR-ARGUMENT...: builds an image by the Dockerfile on standard input
# from what tar is told to pack.
image() {
  local name=$1
  shift
  cat >"$work/Dockerfile"
  tar -c -C "$work" Dockerfile "$@" | docker build -q -t "$name" - >"$work/said" 2>&1 || {
    cat "$work/said" >&2
    return 1
  }
  echo "made $name"
}

# under PATH: tar's arguments for a folder or file under its last name.
under() { printf -- '-C\n%s\n%s\n' "$(dirname "$1")" "$(basename "$1")"; }

golang_image() {
  local goroot modcache
  goroot=$(go env GOROOT)
  modcache=$(go env GOMODCACHE)
  mapfile -t tree < <(under "$goroot")
  image golang:1.26-bookworm --exclude="$(basename "$goroot")"/{test,api,doc} "${tree[@]}" <<END
FROM debian:bookworm-slim
COPY $(basename "$goroot") /usr/local/go
END
  # Modules unpacked, and what Go notes of them: as after a download.
  (cd "$here/../.." && go list -deps -f '{{with .Module}}{{if not .Main}}{{.Dir}}{{end}}{{end}}' ./cmd/sallyport) |
    sort -u | sed "s,^$modcache/,," >"$work/modules"
  image golang:1.26-bookworm --exclude='*.zip' --exclude='*.lock' --exclude=cache/download/sumdb \
    -C "$modcache" cache/download -T "$work/modules" <<END
FROM golang:1.26-bookworm
COPY . /go/pkg/mod
END
  mapfile -t tree < <(under "$gocache")
  image golang:1.26-bookworm "${tree[@]}" <<END
FROM golang:1.26-bookworm
COPY $(basename "$gocache") /go/cache
ENV GOPATH=/go GOCACHE=/go/cache GOPROXY=off GOTOOLCHAIN=local PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
END
}

python_image() {
  mapfile -t tree < <(under "$wheels")
  image python:3.13-slim-bookworm "${tree[@]}" <<END
FROM debian:bookworm-slim
COPY $(basename "$wheels") /wheels
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_ROOT_USER_ACTION=ignore
END
}

node_image() {
  mapfile -t tree < <(under "$(readlink -f "$(command -v node)")" && under "$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")" && under "$npm")
  image node:22-bookworm-slim "${tree[@]}" <<END
FROM debian:bookworm-slim
COPY node /usr/local/bin/node
COPY npm /usr/local/lib/node_modules/npm
COPY $(basename "$npm") /npm-cache
ENV NPM_CONFIG_CACHE=/npm-cache NPM_CONFIG_OFFLINE=true
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
END
}

# TensorFlow Serving's own interface: MODEL_NAME, MODEL_BASE_PATH, and both ports.
serving_image() {
  cat >"$work/entrypoint" <<'END'
#!/bin/bash
test -d "$MODEL_BASE_PATH/$MODEL_NAME" || exit 1
/opt/rest_front 0.0.0.0 8501 /tmp/rest &
exec python3 /opt/serve.py --models "$MODEL_BASE_PATH" --grpc 0.0.0.0:8500 --rest-socket /tmp/rest
END
  chmod 0755 "$work/entrypoint"
  mapfile -t tree < <(under "$tensorflow")
  image tensorflow/serving:latest --exclude='*/tensorflow/include' --exclude=__pycache__ "${tree[@]}" \
    -C "$work" entrypoint -C "$here/../tensorflow" serve.py rest.py -C "$front" rest_front <<END
FROM debian:bookworm-slim
COPY $(basename "$tensorflow") /usr/local/lib/python3.11/dist-packages
COPY entrypoint serve.py rest.py rest_front /opt/
ENV MODEL_NAME=model MODEL_BASE_PATH=/models
ENTRYPOINT ["/opt/entrypoint"]
END
}

docker import "$base/root.tar" debian:bookworm-slim >/dev/null
echo "made debian:bookworm-slim"
golang_image
python_image
node_image
serving_image
image ghcr.io/letsencrypt/pebble:2.10.1 -C "$pebble" pebble <<END
FROM scratch
COPY pebble /app
ENTRYPOINT ["/app"]
END
