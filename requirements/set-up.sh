#!/bin/sh
# set-up.sh VENV: makes the one environment that the laptop, the tests and the checkers share.
# Everything is pinned and checked by hash (lock.txt). Safe to run again after an interruption.
set -eu

venv=$1
here=$(dirname "$0")
python=${PYTHON:-python3}

say() { printf '%s\n' "set-up: $*" >&2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    say "$python is missing or older than 3.11; install Python 3.11 or name one: make PYTHON=/path/to/python3.11 ..."
    exit 2
}

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing $package"
        apt-get update -qq >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" ca-certificates >/dev/null 2>&1
    else
        say "Python's venv module is missing; run: sudo apt-get install $package"
        exit 2
    fi
fi

"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet "$@"; }

say "installing the locked packages into $venv (a few minutes the first time)"
pip install --require-hashes -r "$here/pip.txt"

if [ "$(uname -s)" = Linux ] && [ ! -e /proc/driver/nvidia/version ]; then
    pip install --no-deps --require-hashes -r "$here/torch-cpu.txt" 2>/dev/null || {
        say "pip offers no CPU build of torch here, so the default build with CUDA follows (several GB)."
        say "To take the CPU build: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make ..."
    }
fi

pip install --require-hashes -c "$here/lock.txt" \
    -r "$here/light.in" -r "$here/torch.in" -r "$here/pipelines.in" -r "$here/dev.in"
pip install --no-deps --no-build-isolation --editable "$here/.."
"$venv/bin/python" -m pip --disable-pip-version-check check >&2
