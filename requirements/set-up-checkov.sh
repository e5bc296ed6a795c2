#!/bin/sh
# set-up-checkov.sh VENV: makes the environment of the scanner that `make integration` holds the manifests to.
# Everything is pinned and checked by hash (checkov.txt). Safe to run again after an interruption.
set -eu

venv=$1
here=$(dirname "$0")
python=${PYTHON:-python3}

"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet "$@"; }

printf '%s\n' "set-up: installing checkov into $venv" >&2
pip install --require-hashes -r "$here/pip.txt"
pip install --require-hashes -r "$here/checkov.txt"
touch "$venv/.ready"
