"""A docker daemon of the tests' own: own socket and folders, no bridge, nothing left when it ends."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

PROGRAMS = ("dockerd", "docker", "mmdebstrap", "setpriv", "unshare", "umount", "make")
LABEL = "prottune-test"
"""Every container carries it; what is left over is found by it."""
BASE = "localhost/prottune-base:bookworm"
SUITE = "bookworm"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
LEFT_OUT = ("doc", "info", "locale", "man")
"""Folders of /usr/share that Debian's own slim images leave out too."""

_SOCKET, _LOG = "docker.sock", "dockerd.log"
_START_SECONDS = 60
_STOP_SECONDS = 60
_CLONE_NEWNET = 0x40000000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Daemon:
    """A daemon that runs, and how it is reached."""

    client: docker.DockerClient
    environment: Mapping[str, str]
    """What programs need to find it."""

    def run(self, image: str, *command: str, **options: Any) -> tuple[int, str]:
        """Run a container to its end; returns its exit code and all that it printed."""
        container = self.started(image, *command, **options)
        try:
            code = int(container.wait(timeout=900)["StatusCode"])
            return code, container.logs().decode("utf-8", "replace")
        finally:
            container.remove(force=True, v=True)

    def started(self, image: str, *command: str, **options: Any) -> Container:
        """Start a container; whoever starts one removes it."""
        container = self.client.containers.create(
            image, command=list(command) or None, labels={LABEL: "1"}, **options
        )
        try:
            container.start()
        except BaseException:
            container.remove(force=True, v=True)
            raise
        return container


def missing() -> str:
    """What keeps a daemon from running here; empty if nothing does."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} absent (apt-get install docker.io mmdebstrap)"
    if os.geteuid() != 0:
        return "needs root"
    made = subprocess.run(["unshare", "--mount", "--net", "true"], check=False, capture_output=True)
    return made.stderr.decode().strip()


@contextmanager
def running(folder: Path) -> Iterator[Daemon]:
    """Run a daemon with everything below one folder; its containers, mounts and data end with the block."""
    address = f"unix://{folder / _SOCKET}"
    words = ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec"]
    words += ["--pidfile", folder / "pid", "--host", address]
    # The network here stays as it is; a container that asks for more files than there are would not start.
    words += ["--bridge=none", "--iptables=false", "--ip-forward=false"]
    words += ["--default-ulimit", "nofile=1024:4096"]
    with (folder / _LOG).open("wb") as out:  # setpriv: however the tests end, the daemon does too
        process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *words], stdout=out, stderr=out)
    try:
        client = _client_of(folder, process)
        try:
            yield Daemon(client, {"DOCKER_HOST": address, "DOCKER_BUILDKIT": "0"})
        finally:
            for container in client.containers.list(all=True, filters={"label": LABEL}):
                container.remove(force=True, v=True)
            client.close()
    finally:
        _end(process)
        _unmount_below(folder)
        subprocess.run(["rm", "-rf", folder / "data"], check=False)  # gigabytes, which pytest would keep


def import_base(daemon: Daemon, folder: Path) -> None:
    """Make the image that the others build upon: Debian's Python and nothing else."""
    archive = folder / "base.tar"
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    # Without this hook a package that needs all of perl would merge / and /usr.
    words += ["--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr"]
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    words += [f"--customize-hook=copy-in {certificates} /etc/ssl/certs", SUITE, str(archive)]
    subprocess.run(words, check=True, timeout=600)
    daemon.client.api.import_image_from_file(str(archive), *BASE.split(":"), changes=[f"ENV PATH={_PATH}"])
    archive.unlink()


@contextmanager
def network_of(container: Container) -> Iterator[None]:
    """Inside, this thread's network is a container's: what it opens stays there, also after the block."""
    container.reload()
    setns = ctypes.CDLL(None, use_errno=True).setns
    with (
        open("/proc/thread-self/ns/net", "rb") as own,
        open(f"/proc/{container.attrs['State']['Pid']}/ns/net", "rb") as other,
    ):
        if setns(other.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            setns(own.fileno(), _CLONE_NEWNET)


def _client_of(folder: Path, process: subprocess.Popen[bytes]) -> docker.DockerClient:
    """Wait until the daemon listens; only a dead one is given up."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / _SOCKET).exists():
            return docker.DockerClient(base_url=f"unix://{folder / _SOCKET}", timeout=900)
        time.sleep(0.1)
    raise AssertionError(f"dockerd did not start: {(folder / _LOG).read_text()[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """TERM, wait, KILL; only our own child."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unmount_below(folder: Path) -> None:
    """A daemon leaves its network namespace mounted; one that was killed leaves more."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed(places):
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", place], check=False, capture_output=True)
