"""A real server in a process of its own, with a real tiny model; each start takes seconds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from tiny_model import LABELS, write_tiny_model

from prottune.cluster import connection
from prottune.deployment.kserve import KServeDeployment
from prottune.deployment.local import LocalDeployment
from prottune.deployment.settings import DeployConfig
from prottune.deployment.stage import _deployment, deploy
from prottune.errors import ArtifactError, ConfigError, DeploymentError

CONFIG = DeployConfig()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", membrane=True)


def servers_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "prottune.serving" in words and str(folder) in words:
            found.append(process)
    return found


def gone(folder: Path, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while servers_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not servers_of(folder)


def test_a_finished_model_passes_behind_a_real_server_and_nothing_is_left(tiny_model: Path) -> None:
    report = deploy(tiny_model.as_uri(), CONFIG, "7")
    assert (report.model_version, report.num_golden, report.still_running) == ("7", 8, False)
    assert report.url.startswith("http://127.0.0.1:")
    assert 0 <= report.largest_difference <= CONFIG.max_probability_difference
    assert 0 < report.seconds_to_ready < CONFIG.ready_timeout_seconds
    assert servers_of(tiny_model) == []


def test_a_damaged_model_is_refused_before_a_server_starts(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        deploy(str(tmp_path / "model"), CONFIG, "7")


@pytest.mark.parametrize(
    ("model", "to", "kind"),
    [
        ("s3://models/1", "auto", KServeDeployment),
        ("minio://models/1", "auto", KServeDeployment),
        ("/home/jovyan/runs/model", "auto", LocalDeployment),
        ("file:///home/jovyan/runs/model", "auto", LocalDeployment),
        ("/home/jovyan/runs/model", "kserve", KServeDeployment),
        ("s3://models/1", "local", LocalDeployment),
    ],
)
def test_in_the_pod_of_a_notebook_a_model_of_its_disk_is_served_there(
    model: str, to: str, kind: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("of a pod")
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert type(_deployment(DeployConfig(to=to), model)) is kind


def test_without_torch_a_local_endpoint_is_refused_before_a_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    refused = pytest.raises(ConfigError, match=r"^a local endpoint needs torch, .* \(deploy_to=kserve\)$")
    with refused, LocalDeployment().endpoint(tmp_path / "model", "", CONFIG, "7"):
        pass


@pytest.mark.integration
def test_a_server_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    refused = pytest.raises(DeploymentError, match=r"ended with exit code 2: .*no manifest\.json")
    with refused, LocalDeployment().endpoint(tmp_path / "model", "", CONFIG, "7"):
        pass
    assert servers_of(tmp_path / "model") == []


@pytest.mark.integration
def test_a_server_that_is_late_is_stopped(tiny_model: Path) -> None:
    late = DeployConfig(ready_timeout_seconds=1)
    refused = pytest.raises(DeploymentError, match="not ready in time")
    with refused, LocalDeployment().endpoint(tiny_model, "", late, "7"):
        pass
    assert servers_of(tiny_model) == []


@pytest.mark.integration
def test_the_server_goes_when_the_block_fails(tiny_model: Path) -> None:
    with pytest.raises(ZeroDivisionError), LocalDeployment().endpoint(tiny_model, "", CONFIG, "7"):
        _ = 1 / 0
    assert servers_of(tiny_model) == []


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_does_not_outlive_a_killed_deployment(tiny_model: Path, number: int) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from prottune.deployment.local import LocalDeployment\n"
        "from prottune.deployment.settings import DeployConfig\n"
        "with LocalDeployment().endpoint(Path(sys.argv[1]), '', DeployConfig(), '7') as endpoint:\n"
        "    print(endpoint.url, flush=True); time.sleep(100)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tiny_model)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    url = parent.stdout.readline().strip()
    assert httpx.get(f"{url}/v2/health/live").status_code == 200
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    assert gone(tiny_model)


@pytest.fixture
def server(tiny_model: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m prottune.serving` as a person starts it, and its address once it is ready."""
    command = [sys.executable, "-m", "prottune.serving", "--model", str(tiny_model), "--port", "0"]
    command += ["--settle-seconds", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "listening on" in line)
            yield process, line.split()[-1]
        finally:
            process.kill()


@pytest.mark.integration
def test_the_server_binds_this_machine_only_logs_no_sequence_and_drains_at_term(
    server: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = server
    reply = httpx.post(f"{url}/v1/models/prottune:predict", content='{"instances": ["MKWWWWKTM"]}')
    assert list(reply.json()["predictions"][0]["probabilities"]) == list(LABELS)
    listening = [c for c in psutil.Process(process.pid).connections() if c.status == psutil.CONN_LISTEN]
    assert [c.laddr.ip for c in listening] == ["127.0.0.1"]
    process.terminate()
    _, log = process.communicate(timeout=30)
    assert process.returncode == 0
    (line,) = [json.loads(line) for line in log.splitlines() if '"route"' in line]
    assert (line["method"], line["status"]) == ("POST", 200)
    assert line["route"] == "/v1/models/{model_name}:predict"
    assert "MKWW" not in log


def test_a_model_stays_here_where_no_cluster_is_around() -> None:
    assert isinstance(_deployment(DeployConfig(), "s3://models/1"), LocalDeployment)
