#!/usr/bin/env bash
# Installs what the stories need, each thing only when it is missing, outside
# the tree: ${XDG_CACHE_HOME:-$HOME/.cache}/sallyport/NAME-KEY, where KEY is of
# the file that lists its versions (the story package looks in the same place).
#
#   examples/install.sh [flask] [clients] [grpc] [tensorflow] [keycloak] [pages] [models] [compose]     without arguments: all (compose as root only)
set -euo pipefail
cd "$(dirname "$0")"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sallyport
stories=${*:-flask clients grpc tensorflow keycloak pages models $([ "$(id -u)" != 0 ] || echo compose)}

key() { cat "$@" | sha256sum | cut -c1-12; }

twice() { "$@" || { echo "once more: $*" >&2; sleep 5; "$@"; }; }

# apt PACKAGE=PROBE...: installs the packages whose probe fails.
apt() {
  local missing=() p
  for p in "$@"; do
    bash -c "${p#*=}" >/dev/null 2>&1 || missing+=("${p%%=*}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo "missing Debian packages: ${missing[*]} (install them, or run this as root)" >&2
    return 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  [ -n "${apt_updated:-}" ] || twice apt-get update -q </dev/null
  apt_updated=1
  twice apt-get install -q -y --no-install-recommends "${missing[@]}" </dev/null
}

# made DIR COMMAND...: runs COMMAND with a scratch folder that becomes DIR once all went well.
made() {
  local dir=$1
  shift
  if [ -e "$dir/.complete" ]; then
    return 0
  fi
  echo "making $dir"
  rm -rf "$dir"
  mkdir -p "$dir"
  "$@" "$dir"
  touch "$dir/.complete"
}

venv_flask() {
  python3 -m venv "$1"
  twice "$1/bin/pip" install -q --disable-pip-version-check -r flask/requirements.txt
}

venv_grpc() {
  python3 -m venv "$1"
  twice "$1/bin/pip" install -q --disable-pip-version-check -r grpc/requirements.txt
}

venv_clients() {
  python3 -m venv "$1"
  twice "$1/bin/pip" install -q --disable-pip-version-check -r clients/python/requirements.txt -r clients/interop/requirements.txt
}

# node_clients FOLDER DIR
node_clients() {
  cp "clients/$1/"{package.json,package-lock.json,.npmrc} "$2"
  (cd "$2" && twice npm ci --silent --no-audit --no-fund </dev/null)
}

# For a Python 2.7, which has no module venv: pip takes the folder for the user's own.
autobahn() {
  local python
  python=$(autobahn/python2.sh)
  PYTHONUSERBASE=$1 twice "$python" -m pip install -q --user --no-warn-script-location --disable-pip-version-check -r autobahn/requirements.txt
}

node_autobahn() {
  cp autobahn/{package.json,package-lock.json,.npmrc} "$1"
  (cd "$1" && twice npm ci --silent --no-audit --no-fund </dev/null)
}

venv_tensorflow() {
  python3 -m venv "$1"
  twice "$1/bin/pip" install -q --disable-pip-version-check -r tensorflow/requirements.txt
  twice "$1/bin/pip" install -q --disable-pip-version-check --no-deps -r tensorflow/requirements-nodeps.txt
}

node_provider() {
  cp openid-provider/{package.json,package-lock.json,.npmrc} "$1"
  (cd "$1" && twice npm ci --silent --no-audit --no-fund </dev/null)
}

node_mcp() {
  cp mcp/{package.json,package-lock.json,.npmrc} "$1"
  (cd "$1" && twice npm ci --silent --no-audit --no-fund </dev/null)
}

node_realtime() {
  cp realtime/{package.json,package-lock.json,.npmrc} "$1"
  (cd "$1" && twice npm ci --silent --no-audit --no-fund </dev/null)
}

model() { "$tensorflow/bin/python" tensorflow/make_model.py "$1" 2>"$1/log" || { cat "$1/log" >&2; return 1; } ; rm "$1/log"; }

front() { make -s -C tensorflow/rest_front OUT="$1/rest_front"; }

# Keycloak, made ready for start --optimized, with the realm that it imports then. Its data is in memory.
keycloak() {
  local version
  version=$(cat keycloak/keycloak.version)
  twice mvn -q dependency:copy -Dartifact="org.keycloak:keycloak-quarkus-dist:$version:zip" -DoutputDirectory="$1" </dev/null
  unzip -q "$1/keycloak-quarkus-dist-$version.zip" -d "$1"
  rm "$1/keycloak-quarkus-dist-$version.zip"
  mv "$1/keycloak-$version" "$1/keycloak"
  mkdir -p "$1/keycloak/data/import"
  cp keycloak/realm.json "$1/keycloak/data/import/"
  "$1/keycloak/bin/kc.sh" build --db=dev-mem --cache=local --https-client-auth=request >"$1/log" || { cat "$1/log" >&2; return 1; }
}

# The smallest Debian, as a file to make an image of. Debian's mirror is the one that
# apt is configured for.
base() {
  local mirror packages
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
  packages=$(sed -n 's/^debian //p' compose/stand-ins.list)
  twice debootstrap --variant=minbase --include="${packages// /,}" bookworm "$1/root" ${mirror:+"$mirror"} >"$1/log" || { tail "$1/log" >&2; return 1; }
  tar -C "$1/root" --exclude='./var/cache/apt/*' --exclude='./var/lib/apt/lists/*' --exclude='./usr/share/doc/*' \
    --exclude='./usr/share/locale/*' --exclude='./usr/share/man/*' -cf "$1/root.tar" .
  rm -rf "$1/root" "$1/log"
}

pebble() { GOBIN=$1 CGO_ENABLED=0 twice go install "github.com/letsencrypt/pebble/v2/cmd/pebble@$(sed -n 's/^pebble //p' compose/stand-ins.list)"; }

grpcurl() { GOBIN=$1 CGO_ENABLED=0 twice go install "$(cat grpc/grpcurl.version)"; }

# The same program for every machine with this go.sum: a version that was never tagged for Go's modules.
dex() { (cd dex/server && CGO_ENABLED=1 twice go build -o "$1/" github.com/dexidp/dex/cmd/dex); }

h2spec() { GOBIN=$1 CGO_ENABLED=0 twice go install "$(cat h2spec/h2spec.version)"; }

# venv FOLDER DIR: for a story whose folder has the requirements.txt.
venv() {
  python3 -m venv "$2"
  twice "$2/bin/pip" install -q --disable-pip-version-check -r "$1/requirements.txt"
}

# The two programs of the examples module's go.mod, and the certificate that grpc-go tests with.
interop() {
  CGO_ENABLED=0 twice go build -o "$1/" google.golang.org/grpc/interop/client google.golang.org/grpc/interop/server
  cp "$(go list -f '{{.Dir}}' google.golang.org/grpc/testdata)"/{ca.pem,server1.pem,server1.key} "$1"
}

venv_tenants() {
  python3 -m venv "$1"
  twice "$1/bin/pip" install -q --disable-pip-version-check -r tenants/requirements.txt
}

venv_models_openai() {
  python3 -m venv "$1"
  twice "$1/bin/pip" install -q --disable-pip-version-check -r models-openai/requirements.txt
}

node_models_openai() {
  cp models-openai/{package.json,package-lock.json,.npmrc} "$1"
  (cd "$1" && twice npm ci --silent --no-audit --no-fund </dev/null)
}

# tiny says only t, i, n and y, and secret only s, e, c and r: an answer tells who made it.
gguf() {
  "$openai/bin/python" models-openai/make_model.py "$1/tiny.gguf" tiny 1 tiny
  "$openai/bin/python" models-openai/make_model.py "$1/secret.gguf" secret 2 secr
  "$openai/bin/python" models-openai/make_model.py "$1/ranker.gguf" ranker 3 ranke
}

# The module of Ollama lacks its folders named vendor, as every module does: two of the
# libraries there are Debian packages, and the third is in the source of a Python package.
ollama() {
  local scratch
  scratch=$(mktemp -d)
  python3 -m venv "$scratch/venv"
  twice "$scratch/venv/bin/pip" install -q --disable-pip-version-check setuptools wheel cffi
  twice "$scratch/venv/bin/pip" download -q --disable-pip-version-check --no-deps --no-binary=:all: --no-build-isolation -d "$scratch" \
    "miniaudio==$(sed -n 's/^miniaudio //p' models-ollama/versions.list)"
  tar -xzf "$scratch"/miniaudio-*.tar.gz -C "$scratch" --strip-components=1
  mkdir -p "$1/include/miniaudio"
  cp "$scratch/miniaudio/miniaudio.h" "$1/include/miniaudio/"
  GOBIN=$1 CGO_CPPFLAGS="-I$1/include" twice go install "github.com/ollama/ollama@$(sed -n 's/^ollama //p' models-ollama/versions.list)"
  rm -rf "$scratch"
}

venv_models_ollama() {
  python3 -m venv "$1"
  twice "$1/bin/pip" install -q --disable-pip-version-check -r models-ollama/requirements.txt
}

venv_models_mlflow() {
  python3 -m venv "$1"
  twice "$1/bin/pip" install -q --disable-pip-version-check -r models-mlflow/requirements.txt
}

# mlflow writes where the model is to be, so that folder must not exist yet.
mlflow_model() { (cd models-mlflow && PYTHONDONTWRITEBYTECODE=1 "$mlflow/bin/python" make_model.py "$1/wine" 2>"$1/log") || { cat "$1/log" >&2; return 1; } ; rm "$1/log"; }

# For the Python of that Debian, which is not the one that runs here.
wheels() { twice python3 -m pip download -q --disable-pip-version-check --only-binary=:all: --python-version 3.11 -d "$1" -r ../deploy/compose/flask/requirements.txt; }

npm_cache() {
  local scratch
  scratch=$(mktemp -d)
  cp ../deploy/compose/provider/{package.json,package-lock.json,.npmrc} "$scratch"
  (cd "$scratch" && twice npm ci --silent --omit=dev --no-audit --no-fund --cache "$1" </dev/null) && rm -rf "$scratch"
}

apt python3-venv='python3 -m ensurepip --version' curl='curl --version' openssl='openssl version' nginx='nginx -v' caddy='caddy version' haproxy='haproxy -v' testssl.sh='command -v testssl' nghttp2-server='nghttpd --version' systemd='test -x /lib/systemd/systemd' iproute2='ip -V' ca-certificates='test -d /etc/ssl/certs'
made "$cache/openid-provider-$(key openid-provider/package-lock.json)" node_provider
made "$cache/flask-$(key flask/requirements.txt)" venv_flask
case " $stories " in *" clients "*)
  made "$cache/clients-$(key clients/python/requirements.txt clients/interop/requirements.txt)" venv_clients
  made "$cache/clients-node-$(key clients/node/package-lock.json)" node_clients node
  made "$cache/clients-interop-$(key clients/interop/package-lock.json)" node_clients interop
  ;;
esac
made "$cache/mcp-$(key mcp/package-lock.json)" node_mcp
apt chromium='chromium --version'
made "$cache/realtime-$(key realtime/package-lock.json)" node_realtime
made "$cache/tenants-$(key tenants/requirements.txt)" venv_tenants
apt gcc='gcc --version'
made "$cache/dex-$(key dex/server/go.mod dex/server/go.sum)" dex
made "$cache/h2spec-$(key h2spec/h2spec.version)" h2spec
made "$cache/interop-$(key go.mod go.sum)" interop
if autobahn/python2.sh >/dev/null; then
  made "$cache/autobahn-$(key autobahn/requirements.txt)" autobahn
  made "$cache/autobahn-node-$(key autobahn/package-lock.json)" node_autobahn
else
  echo "no Python 2.7 with pip: the story of autobahn is skipped here" >&2
fi
case " $stories " in *" grpc "*)
  made "$cache/grpc-$(key grpc/requirements.txt)" venv_grpc
  made "$cache/grpcurl-$(key grpc/grpcurl.version)" grpcurl
  ;;
esac
case " $stories " in *" models "*)
  # The stub of Triton's Python backend is linked with the library of this Python.
  apt "libpython3-dev=python3 -c 'import ctypes, sysconfig as s; ctypes.CDLL(s.get_config_var(\"LIBDIR\") + \"/\" + s.get_config_var(\"INSTSONAME\"))'"
  made "$cache/triton-$(key models-triton/requirements.txt)" venv models-triton
  made "$cache/mlserver-$(key models-mlserver/requirements.txt)" venv models-mlserver
  apt default-jre-headless='java -version'
  made "$cache/torchserve-$(key models-torchserve/requirements.txt)" venv models-torchserve
  ;;
esac
case " $stories " in *" tensorflow "* | *" models "* | *" compose "*)
  apt g++='g++ --version' make='make --version' libevent-dev='test -e /usr/include/event2/http.h' libre2-dev='test -e /usr/include/re2/re2.h'
  tensorflow=$cache/tensorflow-$(key tensorflow/requirements.txt tensorflow/requirements-nodeps.txt)
  made "$tensorflow" venv_tensorflow
  made "$cache/models-$(key tensorflow/make_model.py)" model
  made "$cache/rest_front-$(key tensorflow/rest_front/rest_front.cc tensorflow/rest_front/Makefile)" front
  ;;
esac
case " $stories " in *" keycloak "*)
  apt default-jre-headless='java -version' maven='mvn -version' unzip='unzip -v' chromium='chromium --version'
  made "$cache/keycloak-$(key keycloak/keycloak.version keycloak/realm.json)" keycloak
  made "$cache/login-$(key login/requirements.txt)" venv login
  ;;
esac
case " $stories " in *" pages "*)
  apt chromium='chromium --version'
  made "$cache/pages-$(key pages/requirements.txt)" venv pages
  ;;
esac
case " $stories " in *" models "*)
  openai=$cache/models-openai-$(key models-openai/requirements.txt)
  made "$openai" venv_models_openai
  made "$cache/models-openai-node-$(key models-openai/package-lock.json)" node_models_openai
  made "$cache/gguf-$(key models-openai/make_model.py)" gguf
  apt g++='g++ --version' nlohmann-json3-dev='test -e /usr/include/nlohmann/json.hpp' libstb-dev='test -e /usr/include/stb/stb_image.h'
  made "$cache/ollama-$(key models-ollama/versions.list)" ollama
  made "$cache/models-ollama-$(key models-ollama/requirements.txt)" venv_models_ollama
  mlflow=$cache/models-mlflow-$(key models-mlflow/requirements.txt)
  made "$mlflow" venv_models_mlflow
  made "$cache/mlflow-model-$(key models-mlflow/make_model.py models-mlflow/wine.py)" mlflow_model
  ;;
esac
case " $stories " in *" compose "*)
  apt docker.io='dockerd --version' docker-compose='docker-compose --version' debootstrap='debootstrap --version' iptables='iptables --version'
  made "$cache/bookworm-$(key compose/stand-ins.list)" base
  made "$cache/pebble-$(key compose/stand-ins.list)" pebble
  made "$cache/wheels-$(key ../deploy/compose/flask/requirements.txt)" wheels
  made "$cache/npm-$(key ../deploy/compose/provider/package-lock.json)" npm_cache
  ;;
esac
echo "the stories have what they need in $cache"
