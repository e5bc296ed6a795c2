#!/bin/bash
# A real S3 server for tests: one Ceph monitor, one object daemon and two radosgw, all on loopback, under one folder.
#
#   rgw_up.sh DIR      starts it and writes DIR/env (endpoint, random keys), DIR/url_*, DIR/ca.crt, DIR/run/*.pid
#
# Two gateways serve the same objects. The first is plain. The second gives temporary keys too (AssumeRole, as
# short as a second, of the role that is made here), and listens twice: plain, and with the certificate of a CA made for
# this run. They are two because a gateway that gives temporary keys says AccessDenied to a wrong secret.
#
# Needs root and the Debian packages ceph-mon, ceph-osd, radosgw, curl, openssl. Stop it by the pids: radosgw, osd,
# mon. A gateway that was killed comes back with: CEPH_CONF=DIR/ceph.conf radosgw -n client.rgw.a
set -euo pipefail

mkdir -p "$1"
dir=$(cd "$1" && pwd)
mkdir -p "$dir"/{mon,osd,rgw,run,log,tls}

random_hex() { head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
new_uuid() { cat /proc/sys/kernel/random/uuid; }
# All sockets are open before any number is known, so the ports differ.
read -r mon_port rgw_port sts_port tls_port < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
print(*[one.getsockname()[1] for one in held])')
cluster=$(new_uuid) disk=$(new_uuid) access=$(random_hex) secret=$(random_hex) token_key=$(random_hex | head -c 16)

# A CA of our own, and the server's certificate for 127.0.0.1.
certificate() { openssl req -newkey rsa:2048 -nodes -days 2 -subj "/CN=$1" -keyout "$dir/tls/$1.key" "${@:2}" 2> /dev/null; }
certificate prottune-test-ca -x509 -out "$dir/ca.crt"
certificate prottune-test-store -out "$dir/tls/store.csr"
openssl x509 -req -in "$dir/tls/store.csr" -CA "$dir/ca.crt" -CAkey "$dir/tls/prottune-test-ca.key" -CAcreateserial \
    -CAserial "$dir/tls/serial" -days 2 -extfile <(echo "subjectAltName=IP:127.0.0.1") -out "$dir/tls/store.crt" 2> /dev/null
cat "$dir/tls/store.crt" "$dir/tls/prottune-test-store.key" > "$dir/tls/store.pem"

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
[client.rgw.b]
rgw data = $dir/rgw
rgw frontends = beast endpoint=127.0.0.1:$sts_port ssl_endpoint=127.0.0.1:$tls_port ssl_certificate=$dir/tls/store.pem
rgw s3 auth use sts = true
rgw sts key = $token_key
rgw sts min session duration = 1
[client]
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
    --access-key="$access" --secret-key="$secret" --caps="oidc-provider=*" > /dev/null
# The user may take a role that may do everything with S3, for a while.
timeout 60 radosgw-admin role create --role-name=trainer --assume-role-policy-doc='{"Version": "2012-10-17", "Statement":
    [{"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/prottune"]}, "Action": ["sts:AssumeRole"]}]}' > /dev/null
timeout 60 radosgw-admin role-policy put --role-name=trainer --policy-name=all --policy-doc='{"Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"}]}' > /dev/null
radosgw -n client.rgw.a
radosgw -n client.rgw.b
curl -fsS --retry 60 --retry-delay 1 --retry-connrefused -o /dev/null "127.0.0.1:$rgw_port" -o /dev/null "127.0.0.1:$sts_port"

printf 'http://127.0.0.1:%s' "$sts_port" > "$dir/url_sts"
printf 'https://127.0.0.1:%s' "$tls_port" > "$dir/url_tls"
cat > "$dir/env" <<ENV
S3_ENDPOINT=http://127.0.0.1:$rgw_port
S3_ACCESS_KEY=$access
S3_SECRET_KEY=$secret
ENV
