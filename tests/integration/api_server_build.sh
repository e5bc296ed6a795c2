#!/bin/bash
# Builds the programs of a real Kubernetes API server for custom resources: apiextensions-apiserver, and etcd to keep
# its objects. Go, the sources and etcd come as packages of Debian sid; they are unpacked, not installed.
#
#   api_server_build.sh [FOLDER]      FOLDER, else PROTTUNE_API_SERVER, else ~/.cache/prottune-tests/api-server
#
# Needs Debian's apt-get and dpkg-deb, 5 GB below TMPDIR, and minutes. What is there already is not built again.
set -euo pipefail

target=${1:-${PROTTUNE_API_SERVER:-${XDG_CACHE_HOME:-$HOME/.cache}/prottune-tests/api-server}}
server=apiextensions-apiserver
if [ -x "$target/$server" ] && [ -x "$target/etcd" ]; then
    echo "$target has both programs"
    exit
fi

place=$(mktemp -d --tmpdir prottune-api-server-XXXXXX)
log=$place/log
end() {
    status=$?
    if [ "$status" -ne 0 ]; then
        tail -n 20 "$log" >&2
        echo "api_server_build.sh: failed" >&2
    fi
    rm -rf "$place"
}
trap end EXIT

# An apt of its own: it knows sid alone, thinks that nothing is installed, and writes nowhere else.
mirror=$(apt-cache policy base-files | awk '$2 ~ /^http/ {print $2; exit}')
mkdir -p "$place"/{state/lists/partial,cache/archives/partial,root,home,none}
: > "$place/status"
echo "deb ${mirror:-http://deb.debian.org/debian} sid main" > "$place/sources.list"
cat > "$place/apt.conf" <<CONF
Dir::State "$place/state";
Dir::State::status "$place/status";
Dir::Cache "$place/cache";
Dir::Etc::SourceList "$place/sources.list";
Dir::Etc::SourceParts "$place/none";
Dir::Etc::PreferencesParts "$place/none";
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
CONF
(
    export APT_CONFIG=$place/apt.conf
    apt-get update
    apt-get install --yes --download-only golang-go "golang-k8s-$server-dev" etcd-server
    for package in "$place"/cache/archives/{golang,etcd-server}*.deb; do
        dpkg-deb --extract "$package" "$place/root"
    done
) > "$log" 2>&1

# As it is, this server publishes no schemas of custom resources (OpenAPI v3), which every cluster does: the part
# that writes them waits for a setting of OpenAPI v2, given here.
options=$place/root/usr/share/gocode/src/k8s.io/$server/pkg/cmd/server/options/options.go
sed -i 's/^\tserverConfig\.OpenAPIV3Config = \(.*\)\.DefaultOpenAPIV3Config\(.*\)$/&\n\tserverConfig.OpenAPIConfig = \1.DefaultOpenAPIConfig\2/' "$options"
grep -q 'serverConfig\.OpenAPIConfig = ' "$options"

# Go is linked statically, so it runs here; without its optimizations it is ready sooner.
(
    export GOROOT=$(echo "$place"/root/usr/lib/go-*) GOPATH=$place/root/usr/share/gocode GO111MODULE=off
    export CGO_ENABLED=0 GOTOOLCHAIN=local GOTELEMETRY=off HOME=$place/home GOCACHE=$place/go-cache
    "$GOROOT/bin/go" build -gcflags='all=-N -l' -ldflags='-s -w' -o "$place/$server" "k8s.io/$server"
    "$place/root/usr/bin/etcd" --version
) >> "$log" 2>&1

mkdir -p "$target"
for program in "$place/$server" "$place/root/usr/bin/etcd"; do
    name=$(basename "$program")
    cp "$program" "$target/$name.partial"
    mv "$target/$name.partial" "$target/$name"
done
for package in "$place"/cache/archives/{golang-k8s-"$server"-dev,golang-1,etcd-server}*.deb; do
    basename "$package" .deb
done | tee "$target/versions"
