#!/usr/bin/env bash
# Prints the path of a Python 2.7 with pip. Debian has none any more; pyenv does.
set -euo pipefail
for p in "$(command -v python2.7 || true)" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
  if "$p" -m pip --version >/dev/null 2>&1; then
    echo "$p"
    exit
  fi
done
exit 1
