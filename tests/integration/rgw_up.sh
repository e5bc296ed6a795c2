#!/bin/bash
# A real S3 server for tests: one Ceph monitor, one object daemon and radosgw, all on loopback, under one folder.
#
#   rgw_up.sh DIR      starts it and writes DIR/env (endpoint, random keys) and DIR/run/*.pid
#
# Needs root and the Debian packages ceph-mon, ceph-osd, radosgw, curl. Stop it by the pids: radosgw, osd, mon.
set -euo pipefail

mkdir -p "$1"
dir=$(cd "$1" && pwd)
mkdir -p "$dir"/{mon,osd,rgw,run,log}

random_hex() { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
new_uuid() { cat /proc/sys/kernel/random/uuid; }
# Both sockets are open before either number is known, so the two ports differ.
read -r mon_port rgw_port < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*[one.getsockname()[1] for one in held])')
cluster=$(new_uuid) disk=$(new_uuid) access=$(random_hex) secret=$(random_hex)

# "crc secure": with no authentication radosgw cannot have the encrypted connection it would insist on.
cat > "$dir/ceph.conf" <<CONF
[global]
fsid = $cluster
mon initial members = a
mon host = [v2:127.0.0.1:$mon_port]
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc secure
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
run dir = $dir/run
admin socket = $dir/run/\$name.asok
pid file = $dir/run/\$name.pid
log file = $dir/log/\$name.log
crash dir = $dir/log
[mon.a]
mon data = $dir/mon
mon cluster log file = $dir/log/cluster.log
[osd.0]
osd data = $dir/osd
osd objectstore = bluestore
bluestore block size = 6442450944
osd memory target = 1073741824
osd mclock skip benchmark = true
[client.rgw.a]
rgw data = $dir/rgw
rgw frontends = beast endpoint=127.0.0.1:$rgw_port
rgw dns name = 127.0.0.1
rgw thread pool size = 16
rgw init timeout = 60
CONF
export CEPH_CONF=$dir/ceph.conf

monmaptool --create --fsid "$cluster" --addv a "[v2:127.0.0.1:$mon_port]" "$dir/monmap" > /dev/null
ceph-mon -i a --mkfs --monmap "$dir/monmap"
ceph-mon -i a
timeout 60 ceph osd new "$disk" 0
ceph-osd -i 0 --mkfs --osd-uuid "$disk"
ceph-osd -i 0
timeout 60 ceph osd crush add osd.0 1.0 root=default host=one
timeout 120 radosgw-admin user create --uid=prottune --display-name=prottune \
    --access-key="$access" --secret-key="$secret" > /dev/null
radosgw -n client.rgw.a
curl -fsS --retry 60 --retry-delay 1 --retry-connrefused -o /dev/null "127.0.0.1:$rgw_port"

cat > "$dir/env" <<ENV
S3_ENDPOINT=http://127.0.0.1:$rgw_port
S3_ACCESS_KEY=$access
S3_SECRET_KEY=$secret
ENV
