"""A real S3 server for tests, one-node Ceph: it can be killed and brought back, and gives temporary keys."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode, urlsplit
from xml.etree.ElementTree import fromstring

import pytest
import urllib3
from minio import Minio
from minio.credentials import Credentials
from minio.helpers import sha256_hash
from minio.signer import sign_v4_sts
from minio.time import to_amz_date
from small_sts import Keys
from web_issuer import AUDIENCE, Issuer

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "curl", "openssl")
BUCKET = "prottune-test"
_GATEWAY = "client.rgw.a"


class RealS3:
    """A running radosgw with one bucket, all of whose files lie in one folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.env = dict(line.split("=", 1) for line in (place / "env").read_text().splitlines())
        self.url = self.env["S3_ENDPOINT"]
        self.url_sts, self.url_tls = ((place / name).read_text() for name in ("url_sts", "url_tls"))
        self.ca = place / "ca.crt"

    def client(self) -> Minio:
        """A client of the server's owner, who does what the tests do behind our back."""
        keys = self.env["S3_ACCESS_KEY"], self.env["S3_SECRET_KEY"]
        return Minio(urlsplit(self.url).netloc, *keys, secure=False, region="us-east-1")

    def flip_a_byte(self, key: str) -> None:
        """Change one bit in the middle of an object, as a bad disk would."""
        content = bytearray(self.client().get_object(BUCKET, key).data)
        content[len(content) // 2] ^= 1
        (self.place / "flipped").write_bytes(content)
        self.client().fput_object(BUCKET, key, str(self.place / "flipped"))

    def kill(self) -> None:
        """End the gateway at once, whatever it does; what it has written stays."""
        pid = int((self.place / "run" / f"{_GATEWAY}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists())

    def start(self) -> None:
        """Bring the gateway back; returns when it answers."""
        conf = os.environ | {"CEPH_CONF": str(self.place / "ceph.conf")}
        with (self.place / "out").open("a") as out:
            subprocess.run(
                ["radosgw", "-n", _GATEWAY], env=conf, check=True, stdout=out, stderr=out, timeout=60
            )
        wait_until(self._answers)

    def temporary(self, seconds: int) -> Keys:
        """Keys of the role that the test's user may take (AssumeRole)."""
        begun = datetime.now(UTC)
        said = self._asked(
            Action="AssumeRole",
            Version="2011-06-15",
            DurationSeconds=str(seconds),
            RoleArn="arn:aws:iam:::role/trainer",
            RoleSessionName="test",
        )
        found = {each.tag.rpartition("}")[2]: each.text or "" for each in fromstring(said).iter()}
        access, secret, token = (found[name] for name in ("AccessKeyId", "SecretAccessKey", "SessionToken"))
        return Keys(access, secret, token, begun + timedelta(seconds=seconds))

    def trust(self, issuer: Issuer) -> str:
        """Let whoever has a token of this issuer do everything with S3; returns the role that they take."""
        self._asked(
            **{
                "Action": "CreateOpenIDConnectProvider",
                "Version": "2010-05-08",
                "Url": issuer.url,
                "ClientIDList.member.1": AUDIENCE,
                "ThumbprintList.member.1": issuer.thumbprint,
            }
        )
        trusted = {
            "Effect": "Allow",
            "Principal": {"Federated": [f"arn:aws:iam:::oidc-provider/{issuer.host}"]},
            "Action": ["sts:AssumeRoleWithWebIdentity"],
            "Condition": {"StringEquals": {f"{issuer.host}:app_id": AUDIENCE}},
        }
        allowed = {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"}
        self._admin("role", "create", "--role-name=pod", "--assume-role-policy-doc", _policy(trusted))
        self._admin(
            "role-policy", "put", "--role-name=pod", "--policy-name=all", "--policy-doc", _policy(allowed)
        )
        return "arn:aws:iam:::role/pod"

    def _asked(self, **question: str) -> bytes:
        """What the gateway that gives temporary keys answers to its owner."""
        body, now = urlencode(question), datetime.now(UTC)
        address = urlsplit(f"{self.url_sts}/")
        headers = sign_v4_sts(
            method="POST",
            url=address,
            region="us-east-1",
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Host": address.netloc,
                "X-Amz-Date": to_amz_date(now),
            },
            credentials=Credentials(self.env["S3_ACCESS_KEY"], self.env["S3_SECRET_KEY"]),
            content_sha256=sha256_hash(body),
            date=now,
        )
        answer = urllib3.request("POST", address.geturl(), body=body, headers=headers)
        assert answer.status == 200, answer.data
        return answer.data

    def _admin(self, *words: str) -> None:
        conf = os.environ | {"CEPH_CONF": str(self.place / "ceph.conf")}
        subprocess.run(["radosgw-admin", *words], env=conf, check=True, capture_output=True, timeout=60)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(
                (urlsplit(self.url).hostname, urlsplit(self.url).port), timeout=1
            ).close()
            return True
        return False


def _policy(statement: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@contextmanager
def running(place: Path) -> Iterator[RealS3]:
    """A server of our own; without its programs the test is not run, and says which are absent."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent or os.geteuid() != 0:
        why = f"{', '.join(absent)} absent" if absent else "needs root"
        refuse = pytest.fail if "ceph" in os.environ.get("PROTTUNE_REQUIRED_TIERS", "") else pytest.skip
        refuse(f"not run here: ceph: {why} (apt-get install ceph-mon ceph-osd radosgw curl openssl)")
    script = Path(__file__).with_name("integration") / "rgw_up.sh"
    try:
        with (place / "out").open("w") as out:
            subprocess.run([script, place], check=True, stdout=out, stderr=subprocess.STDOUT, timeout=300)
        server = RealS3(place)
        server.client().make_bucket(BUCKET)
        yield server
    finally:
        for name in (_GATEWAY, "client.rgw.b", "osd.0", "mon.a"):
            stop(place / "run" / f"{name}.pid")


def stop(pid_file: Path) -> None:
    """TERM, wait, KILL; only the process whose number the file holds."""
    if not pid_file.is_file():
        return
    pid = int(pid_file.read_text())
    for number, seconds in ((signal.SIGTERM, 20), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not Path(f"/proc/{pid}").exists(), seconds)


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


class Wire:
    """A wire to a server that counts the bytes which go over it, and may do something at one of them."""

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.num_up, self.num_down = 0, 0
        self._at: tuple[str, int, Callable[[], None]] | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def at(self, direction: str, num_bytes: int, act: Callable[[], None]) -> None:
        """Count from now on, and act once so many bytes went up or down."""
        self.num_up, self.num_down = 0, 0
        self._at = (direction, num_bytes, act)

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                try:
                    far = socket.create_connection(self._target, timeout=5)
                    far.settimeout(None)
                except OSError:
                    near.close()
                    continue
                threading.Thread(target=self._join, args=(near, far), daemon=True).start()
                near = far = None  # theirs now: they close them

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            back = threading.Thread(target=self._carry, args=(far, near, "down"), daemon=True)
            back.start()
            self._carry(near, far, "up")
            back.join()

    def _carry(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._count(direction, len(data))
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _count(self, direction: str, num_bytes: int) -> None:
        with self._lock:
            self.num_up += num_bytes if direction == "up" else 0
            self.num_down += num_bytes if direction == "down" else 0
            reached = self.num_up if direction == "up" else self.num_down
            due = self._at if self._at and self._at[0] == direction and reached >= self._at[1] else None
            self._at = None if due else self._at
        if due:
            due[2]()


@contextmanager
def wire_to(url: str) -> Iterator[Wire]:
    wire = Wire(url)
    try:
        yield wire
    finally:
        wire.close()
