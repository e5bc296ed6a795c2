#!/bin/sh
# images.sh: builds the images light and torch and prints their names and sizes. `make images` calls it.
#   REGISTRY            written before the names, as registry.example/lab; default: PROTTUNE_REGISTRY
#   TAG                 default: the version of prottune
#   TORCH               cpu (default) or cuda: which build of torch
#   CONTAINER_BUILDER   default: the first of docker, podman and buildah that is there
#   BASE                image with Python 3.11 to build upon
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS   addresses of packages; none of them enters an image
#   BUILD_FLAGS         more words for the builder, as "--network host"
set -eu
cd "$(dirname "$0")/.."

refuse() { printf 'images: %s\n' "$*" >&2; exit 2; }

builder=
for name in ${CONTAINER_BUILDER:-docker podman buildah}; do
    [ -n "$builder" ] || ! command -v "$name" >/dev/null || builder=$name
done
[ -n "$builder" ] || refuse "got no ${CONTAINER_BUILDER:-docker, podman or buildah} here, expected docker, podman or" \
    "buildah; install one of them, or name it: make images CONTAINER_BUILDER=/path/to/podman"
case ${TORCH:=cpu} in cpu | cuda) ;; *) refuse "TORCH=$TORCH: expected cpu or cuda" ;; esac

registry=${REGISTRY-${PROTTUNE_REGISTRY:-}}
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' src/prottune/__init__.py)
revision=$(git describe --always --dirty --abbrev=40 2>/dev/null || echo unknown)

set -- --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "TORCH=$TORCH"
for name in BASE PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_FIND_LINKS; do
    eval "value=\${$name:-}"
    [ -z "$value" ] || set -- "$@" --build-arg "$name=$value"
done

# Without --layers buildah keeps nothing between two builds, and would make light's stages twice.
[ "${builder##*/}" != buildah ] || set -- --layers "$@"

size() {
    case ${builder##*/} in
        buildah) "$builder" images --format '{{.Size}}' "$1" ;;
        *) "$builder" image inspect --format '{{.Size}}' "$1" | awk '{printf "%.0f MB\n", $1 / 1e6}' ;;
    esac
}

for target in light torch; do
    image=${registry:+$registry/}prottune-$target:${TAG:-$version}
    # shellcheck disable=SC2086  # BUILD_FLAGS holds several words
    "$builder" build "$@" ${BUILD_FLAGS:-} --target "$target" --tag "$image" --file components/Dockerfile . >&2
    printf '%s  %s\n' "$image" "$(size "$image")"
done
