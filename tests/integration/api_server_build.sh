#!/bin/bash
# Builds the programs of a real Kubernetes API server for custom resources: apiextensions-apiserver, and etcd to keep
# its objects. They come from Debian sid, whose sources are built in a chroot that is removed again.
#
#   api_server_build.sh [FOLDER]      FOLDER, else PROTTUNE_API_SERVER, else ~/.cache/prottune-tests/api-server
#
# Needs root, debootstrap, 6 GB below TMPDIR, and five to ten minutes. What is there already is not built again.
set -euo pipefail

target=${1:-${PROTTUNE_API_SERVER:-${XDG_CACHE_HOME:-$HOME/.cache}/prottune-tests/api-server}}
programs=(apiextensions-apiserver etcd)
if [ -x "$target/${programs[0]}" ] && [ -x "$target/${programs[1]}" ]; then
    echo "$target has both programs"
    exit
fi
[ "$(id -u)" -eq 0 ] || { echo "api_server_build.sh: needs root, for a chroot" >&2; exit 2; }
command -v debootstrap > /dev/null || { echo "api_server_build.sh: apt-get install debootstrap" >&2; exit 2; }

sid=$(mktemp -d --tmpdir prottune-sid-XXXXXX)
log=$sid.log
remove() {
    status=$?
    # apt and go may have left mounts below; nothing is deleted while one is there.
    for place in "$sid/proc" "$sid/sys" "$sid/dev/pts" "$sid/dev"; do
        if mountpoint -q "$place"; then umount "$place" || umount --lazy "$place"; fi
    done
    if mountpoint -q "$sid/proc"; then
        echo "api_server_build.sh: $sid/proc is still mounted; $sid stays" >&2
    else
        rm -rf --one-file-system "$sid"
    fi
    if [ "$status" -ne 0 ]; then echo "api_server_build.sh: failed; its words are in $log" >&2; else rm -f "$log"; fi
}
trap remove EXIT

mirror=$(apt-cache policy base-files | awk '$2 ~ /^http/ {print $2; exit}') # this machine's own
{
    debootstrap --variant=minbase --include=ca-certificates sid "$sid" "${mirror:-http://deb.debian.org/debian}"
    cp /etc/ssl/certs/ca-certificates.crt "$sid/etc/ssl/certs/"
    cp /etc/resolv.conf "$sid/etc/"
    mount --bind /proc "$sid/proc" # the installation of etcd-server and go both read it
    chroot "$sid" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        golang-go golang-k8s-apiextensions-apiserver-dev etcd-server
    chroot "$sid" env GO111MODULE=off GOPATH=/usr/share/gocode CGO_ENABLED=0 GOTOOLCHAIN=local GOTELEMETRY=off \
        HOME=/build GOCACHE=/build/cache go build -o /build/apiextensions-apiserver k8s.io/apiextensions-apiserver
} > "$log" 2>&1

mkdir -p "$target"
for program in build/apiextensions-apiserver usr/bin/etcd; do
    name=$(basename "$program")
    cp "$sid/$program" "$target/$name.partial"
    mv "$target/$name.partial" "$target/$name"
done
chroot "$sid" dpkg-query -W golang-k8s-apiextensions-apiserver-dev etcd-server golang-go > "$target/versions"
cat "$target/versions"
