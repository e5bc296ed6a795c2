"""A real Kubernetes API server for custom resources, and etcd behind it, on this machine only.

It validates, defaults, prunes and numbers objects as a cluster's does. It has no pods, leases or
namespaces, and no controller: any namespace's name is taken.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from crd_schemas import FILES, definition_of, folder_of_schemas

PROGRAMS = ("etcd", "apiextensions-apiserver")
_VARIABLE = "PROTTUNE_API_SERVER"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prottune-tests/api-server"
_TIER = "api-server"
_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_TRIES = 3
_WITHOUT = (
    *("NamespaceLifecycle", "MutatingAdmissionWebhook", "ValidatingAdmissionWebhook"),
    *("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"),
)
"""What would ask a whole cluster before it lets anything in."""


@dataclass(frozen=True)
class ApiServer:
    """A running server, and the files that show who it is and who asks."""

    url: str
    authority: Path
    certificate: Path
    key: Path

    def client(self) -> httpx.Client:
        """Somebody who may do everything."""
        context = ssl.create_default_context(cafile=str(self.authority))
        context.load_cert_chain(self.certificate, self.key)
        return httpx.Client(base_url=self.url, verify=context, trust_env=False, timeout=30.0)

    def kubeconfig(self, path: Path, namespace: str) -> Path:
        """A file that the Python client finds this server by."""
        files = {"client-certificate": str(self.certificate), "client-key": str(self.key)}
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "real",
            "clusters": [{"name": "real", "cluster": cluster}],
            "users": [{"name": "tester", "user": files}],
            "contexts": [
                {"name": "real", "context": {"cluster": "real", "user": "tester", "namespace": namespace}}
            ],
        }
        path.write_text(json.dumps(content))
        return path


def absent() -> list[str]:
    """Programs that a server needs and that are not here."""
    programs = [name for name in PROGRAMS if not os.access(_folder() / name, os.X_OK)]
    return programs + ([] if shutil.which("openssl") else ["openssl"])


def _folder() -> Path:
    return Path(os.environ.get(_VARIABLE) or _CACHE)


@contextlib.contextmanager
def running(place: Path) -> Iterator[ApiServer]:
    """Start etcd and the server below an empty folder, with the custom resources of KServe and Trainer.

    Where programs are absent the test is skipped, or fails if this tier is required.
    """
    if absent():
        required = _TIER in os.environ.get("PROTTUNE_REQUIRED_TIERS", "").split(",")
        told = f"{', '.join(absent())} absent in {_folder()} (make api-server, or name it: {_VARIABLE})"
        (pytest.fail if required else pytest.skip)(f"not run here: {_TIER}: {told}")
    folder_of_schemas()
    _write_certificates(place)
    with contextlib.ExitStack() as stack:
        for attempt in range(_TRIES):
            try:
                server = stack.enter_context(_started(_folder(), place, place / f"try-{attempt}"))
                break
            except _PortTakenError:
                if attempt == _TRIES - 1:
                    raise
        _define_resources(server)
        yield server


class _PortTakenError(Exception):
    """A program has ended at once: another one has taken a port that was free."""


@contextlib.contextmanager
def _started(programs: Path, place: Path, own: Path) -> Iterator[ApiServer]:
    own.mkdir()
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    etcd, peer, port = (sock.getsockname()[1] for sock in held)
    for sock in held:
        sock.close()
    server = ApiServer(
        f"https://127.0.0.1:{port}", own / "certs/apiserver.crt", place / "admin.crt", place / "admin.key"
    )
    with (
        _process([programs / "etcd", *_etcd_flags(own, etcd, peer)], own / "etcd.log") as store,
        _process([programs / PROGRAMS[1], *_server_flags(place, own, etcd, port)], own / "server.log") as api,
    ):
        _wait_until_healthy(server, (store, api), own)
        yield server


def _etcd_flags(own: Path, port: int, peer: int) -> list[str]:
    client, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    return [
        f"--data-dir={own / 'etcd'}",
        "--name=test",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={other}",
        f"--initial-advertise-peer-urls={other}",
        f"--initial-cluster=test={other}",
    ]


def _server_flags(place: Path, own: Path, etcd: int, port: int) -> list[str]:
    """Whoever has a certificate of system:masters may do everything; nobody else is let in."""
    nowhere = own / "nowhere"
    cluster = {"name": "n", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "n", "context": {"cluster": "n", "user": "n"}}
    content = {"apiVersion": "v1", "kind": "Config", "current-context": "n", "clusters": [cluster]}
    nowhere.write_text(json.dumps(content | {"users": [{"name": "n", "user": {}}], "contexts": [context]}))
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={own / 'certs'}",
        f"--client-ca-file={place / 'ca.crt'}",
        *(f"--{word}kubeconfig={nowhere}" for word in ("", "authentication-", "authorization-")),
        "--authentication-skip-lookup",
        "--enable-priority-and-fairness=false",
        f"--disable-admission-plugins={','.join(_WITHOUT)}",
    ]


@contextlib.contextmanager
def _process(command: list[Path | str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_healthy(server: ApiServer, processes: tuple[subprocess.Popen[bytes], ...], own: Path) -> None:
    """Only the server of this folder shows the certificate that lies there."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            words = "\n".join((own / name).read_text()[-2000:] for name in ("etcd.log", "server.log"))
            if "address already in use" in words:
                raise _PortTakenError(words)
            raise RuntimeError(f"the API server has ended:\n{words}")
        with contextlib.suppress(httpx.HTTPError, OSError), server.client() as client:
            if client.get("/healthz").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"no healthy API server after {_READY_SECONDS:.0f} s: {own / 'server.log'}")


def _write_certificates(place: Path) -> None:
    """An authority for one day, and somebody of system:masters, who may do everything."""
    new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    for arguments in (
        f"req -x509 {new} -subj /CN=test-authority -keyout ca.key -out ca.crt",
        f"req -x509 {new} -subj /O=system:masters/CN=tester -CA ca.crt -CAkey ca.key "
        "-keyout admin.key -out admin.crt",
    ):
        subprocess.run(["openssl", *arguments.split()], cwd=place, check=True, capture_output=True)


def _define_resources(server: ApiServer) -> None:
    """Load KServe's and Trainer's definitions, and wait until their objects are served."""
    with server.client() as client:
        for resource in FILES:
            definition = deepcopy(definition_of(resource))
            definition["spec"].pop("conversion", None)  # asks a webhook, and none is here
            made = client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=definition)
            made.raise_for_status()
            (version,) = [entry["name"] for entry in definition["spec"]["versions"] if entry["storage"]]
            plural, _, group = resource.partition(".")
            deadline = time.monotonic() + _READY_SECONDS
            is_served = f"/apis/{group}/{version}/namespaces/lab/{plural}"
            is_published = f"/openapi/v3/apis/{group}/{version}"
            while client.get(is_served).status_code != 200 or not client.get(is_published).content:
                assert time.monotonic() < deadline, f"{resource} is not served"
                time.sleep(0.05)
