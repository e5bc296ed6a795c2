"""The images, built as `make images` builds them, and the whole compiled graph run in them.

Every container runs as its pod would: the image's own user, a read-only root with a writable /tmp, no
capability, no way to gain any, and no network but a loopback.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker_daemon
import httpx
import pytest
import yaml
from docker.models.containers import Container
from docker_daemon import Daemon, network_of
from kfp import components, dsl, local
from mlflow.tracking import MlflowClient
from mlflow_server import Server
from offered_packages import offered_packages, places_here
from steps_in_containers import report_honestly, with_images
from tiny_model import write_tiny_model
from toy_proteins import toy_flags

from pipelines.compiling import compiled
from pipelines.executing import without_retries
from pipelines.parameters import run_flags, values_of
from pipelines.resources import USER
from prottune import __version__
from prottune.artifacts import read_manifest
from prottune.deployment.contract import check_endpoint
from prottune.deployment.settings import DeployConfig
from prottune.flags import parse_flags
from prottune.model.golden import read_golden

pytestmark = [pytest.mark.integration, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[2]
REGISTRY = "localhost"
LIGHT, TORCH = (f"{REGISTRY}/prottune-{target}:{__version__}" for target in ("light", "torch"))
MOST_BYTES_OF_LIGHT = 650_000_000
NUM_FAILURES = 30
COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "as", "ld", "make", "cmake", "nvcc", "ptxas", "rustc", "go")
INSTALLERS = ("pip", "setuptools", "wheel", "pkg_resources")

AS_A_POD: dict[str, Any] = {
    "read_only": True,
    "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,size=2g"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}
ALONE = AS_A_POD | {"network_mode": "none"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if why := docker_daemon.missing():
        required = os.environ.get("PROTTUNE_REQUIRED_TIERS", "").split(",")
        (pytest.fail if "docker" in required else pytest.skip)(f"not run here: docker: {why}")
    with docker_daemon.running(tmp_path_factory.mktemp("docker")) as running:
        yield running


@dataclass(frozen=True)
class Built:
    """What `make images` printed, and which settings of this machine it was given."""

    printed: list[str]
    settings: dict[str, str]
    places: dict[str, list[str]]


@pytest.fixture(scope="module")
def built(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder, served = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("served")
    begun = time.monotonic()
    docker_daemon.import_base(daemon, folder)
    base_seconds, begun = time.monotonic() - begun, time.monotonic()
    places = places_here()
    with offered_packages(places, served) as settings:
        chosen = {"CONTAINER_BUILDER": "docker", "REGISTRY": REGISTRY, "BASE": docker_daemon.BASE}
        chosen |= {"TORCH": "cpu", "BUILD_FLAGS": "--network host"} | settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        words = ["make", "--no-print-directory", "images", *(f"{n}={v}" for n, v in chosen.items())]
        done = subprocess.run(
            words, cwd=ROOT, env=environment | dict(daemon.environment),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-6000:] + done.stdout
    print(f"base {base_seconds:.0f} s, images {time.monotonic() - begun:.0f} s: {done.stdout}")
    return Built(done.stdout.splitlines(), settings, places)


@pytest.fixture(scope="module")
def images(built: Built) -> tuple[str, str]:
    return LIGHT, TORCH


@pytest.fixture(scope="module")
def network(daemon: Daemon, images: tuple[str, str]) -> Iterator[Container]:
    """A loopback that containers share, with nothing behind it."""
    wait = "import signal; signal.sigwait([signal.SIGTERM])"
    container = daemon.started(LIGHT, "python3", "-c", wait, **ALONE)
    try:
        yield container
    finally:
        container.remove(force=True)


@pytest.fixture
def mlflow(network: Container, tmp_path: Path) -> Iterator[tuple[str, MlflowClient]]:
    """A real MLflow server on the shared loopback: its address there, and its database from here."""
    with network_of(network):
        server = Server(tmp_path)
        server.start()
        try:
            server.wait()
        except BaseException:
            server.kill()
            raise
    try:
        yield server.uri, MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    finally:
        server.kill()


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that the containers' user may write to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


@pytest.fixture(params=[LIGHT, TORCH], ids=["light", "torch"])
def image(request: pytest.FixtureRequest, images: tuple[str, str]) -> str:
    return str(request.param)


def files_of(daemon: Daemon, image: str) -> dict[str, int]:
    """Every file of an image with its mode, as root sees it."""
    script = "find / -xdev -type f -printf '%m %p\\n'"
    code, said = daemon.run(image, "sh", "-c", script, user="0", network_mode="none")
    assert code == 0, said[-2000:]
    return {path: int(mode, 8) for mode, _, path in (line.partition(" ") for line in said.splitlines())}


def test_make_images_prints_names_and_sizes(built: Built, daemon: Daemon) -> None:
    sizes = {name: daemon.client.images.get(name).attrs["Size"] for name in (LIGHT, TORCH)}
    assert built.printed == [f"{name}  {size / 1e6:.0f} MB" for name, size in sizes.items()]


def test_the_light_image_is_light(daemon: Daemon, images: tuple[str, str]) -> None:
    assert daemon.client.images.get(LIGHT).attrs["Size"] <= MOST_BYTES_OF_LIGHT


def test_the_torch_image_is_the_light_one_and_more(daemon: Daemon, images: tuple[str, str]) -> None:
    light, torch = (daemon.client.images.get(name).attrs["RootFS"]["Layers"] for name in images)
    assert torch[:-1] == light


def test_an_image_says_what_it_is_and_runs_as_a_number(daemon: Daemon, image: str) -> None:
    config = daemon.client.images.get(image).attrs["Config"]
    kind = image.split(":", maxsplit=1)[0].rpartition("-")[2]
    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): value for name, value in config["Labels"].items()}
    assert len(labels.pop("description")) > 20
    assert len(labels.pop("revision")) >= 7
    torch = {"dev.prottune.torch": "cpu"} if kind == "torch" else {}
    assert (
        labels
        == {
            "title": f"prottune-{kind}",
            "version": __version__,
            "licenses": "Apache-2.0",
            "base.name": docker_daemon.BASE,
        }
        | torch
    )
    assert (config["User"], config["WorkingDir"]) == (f"{USER}:{USER}", "/tmp")


def test_nothing_that_builds_or_lends_rights_is_left(daemon: Daemon, image: str) -> None:
    files = files_of(daemon, image)
    assert [path for path, mode in files.items() if mode & 0o6000] == []
    names = {path.rsplit("/", 1)[1]: path for path in files if "/bin/" in path or "/sbin/" in path}
    assert [path for name, path in names.items() if name in COMPILERS] == []
    ours = {path: mode for path, mode in files.items() if path.startswith("/opt/prottune/")}
    assert [path for path in ours if path.split("site-packages/")[-1].split("/")[0] in INSTALLERS] == []
    assert [
        path for path in files if path.startswith(("/root/.cache", "/build", "/opt/tools", "/tmp/"))
    ] == []
    assert [path for path, mode in ours.items() if mode & 0o022] == []


def test_an_image_tells_nothing_of_the_machine_that_built_it(
    built: Built, daemon: Daemon, image: str
) -> None:
    found = daemon.client.images.get(image)
    told = json.dumps([found.history(), found.attrs])
    secret = [*built.settings.values(), *(place for places in built.places.values() for place in places)]
    assert [word for word in [*secret, "PIP_", "127.0.0.1"] if word in told] == []


def test_the_torch_image_has_the_build_of_torch_that_was_asked_for_and_light_has_none(
    daemon: Daemon, images: tuple[str, str]
) -> None:
    assert [path for path in files_of(daemon, LIGHT) if "/site-packages/torch/" in path] == []
    files = files_of(daemon, TORCH)
    assert [
        path for path in files if "/site-packages/nvidia/" in path or "/site-packages/triton/" in path
    ] == []
    script = "import torch; print(torch.__version__, torch.version.cuda)"
    assert daemon.run(TORCH, "python", "-c", script, **ALONE) == (0, "2.13.0+cpu None\n")


def test_the_program_answers_as_the_images_user_and_as_any_other(daemon: Daemon, image: str) -> None:
    for user in ("", "1000650000:0"):
        code, said = daemon.run(image, **ALONE, **({"user": user} if user else {}))
        assert (code, said.splitlines()[0]) == (0, "usage: prottune <verb> [flags]")


def test_a_container_has_a_name_a_home_and_nothing_to_write_to_but_tmp(daemon: Daemon, image: str) -> None:
    script = (
        "import getpass, os, pathlib, socket, sys\n"
        "print(os.getuid(), getpass.getuser(), pathlib.Path.home(), sys.getfilesystemencoding())\n"
        "print(socket.if_nameindex())\n"
        "for place in ('/', '/opt/prottune', '/var/tmp', '/tmp'):\n"
        "    try: (pathlib.Path(place) / 'x').write_text('x'); print(place)\n"
        "    except OSError: pass\n"
    )
    code, said = daemon.run(image, "python", "-c", script, **ALONE)
    assert (code, said.splitlines()) == (0, [f"{USER} prottune /tmp utf-8", "[(1, 'lo')]", "/tmp"])


def test_each_verb_does_its_work_in_its_image(
    daemon: Daemon, network: Container, mlflow: tuple[str, MlflowClient], shared: Path
) -> None:
    uri, client = mlflow
    options = AS_A_POD | {"network_mode": f"container:{network.id}", "working_dir": str(shared)}
    options |= {"volumes": {str(shared): {"bind": str(shared), "mode": "rw"}}}
    options["environment"] = {"MLFLOW_TRACKING_URI": uri, "PROTTUNE_PIPELINE_RUN": "by-verbs"}

    def verb(image: str, words: str) -> str:
        code, said = daemon.run(image, "prottune", *words.split(), **options)
        assert code == 0, f"{words}: {said}"
        return said

    verb(LIGHT, "sample --output sample.fasta --num-proteins 400")
    assert "records: 400 proteins" in verb(LIGHT, "ingest --source sample.fasta --records records")
    verb(LIGHT, "tokenize --records records --tokens tokens --max-residues 200")
    small = "--base-model tiny --epochs 1 --num-processes 2 --tokens-per-batch 4096"
    verb(TORCH, f"train --tokens tokens --model model --checkpoints checkpoints {small}")
    verb(TORCH, "evaluate --records records --model model --report report --min-gate-proteins 10")
    verb(LIGHT, f"register --model model --uri {shared}/model --report report")
    verb(TORCH, "predict --model model --source sample.fasta --output table.csv")
    assert verb(TORCH, "explain --model model --sequence MKTAYIAKQRMKTAYIAKQR")

    assert len((shared / "table.csv").read_text().splitlines()) == 401
    assert read_manifest(shared / "model", "train").settings["num_processes"] == 2
    assert client.get_model_version_by_alias("prottune", "challenger").version == 1
    (experiment,) = client.search_experiments(filter_string="name = 'prottune'")
    (run,) = client.search_runs([experiment.experiment_id], "tags.`prottune.pipeline_run` = 'by-verbs'")
    assert run.data.metrics["ingest/num_proteins"] == 400


def test_the_endpoint_answers_as_the_manifest_starts_it(
    daemon: Daemon, images: tuple[str, str], tmp_path: Path
) -> None:
    model = write_tiny_model(tmp_path / "model")
    runtime = yaml.safe_load((ROOT / "manifests/base/serving-runtime.yaml").read_text())
    (pod,) = runtime["spec"]["containers"]
    volumes = {str(model): {"bind": "/mnt/models", "mode": "ro"}}
    words = [*pod["command"], *pod["args"], "--model-version", "7"]
    server = daemon.started(TORCH, *words, **ALONE, volumes=volumes)
    try:
        with network_of(server):
            url = f"http://127.0.0.1:{pod['ports'][0]['containerPort']}"
            wait_until_ready(f"{url}{pod['readinessProbe']['httpGet']['path']}", server)
            difference = check_endpoint(url, read_golden(model), DeployConfig(), "7")
        assert difference < DeployConfig.max_probability_difference
        server.stop(timeout=30)
        assert server.wait()["StatusCode"] == 0
    finally:
        server.remove(force=True)


def wait_until_ready(url: str, server: Container) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        server.reload()
        assert server.status == "running", server.logs().decode()
        time.sleep(0.2)
    raise AssertionError(server.logs().decode())


@pytest.fixture
def runner(daemon: Daemon, shared: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes kfp.local run every step in a container, with these options beside those of a pod."""
    report_honestly(monkeypatch)
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)

    def start(**options: Any) -> None:
        steps, workspace = shared / "steps", shared / "workspace"
        for folder in (steps, workspace):
            folder.mkdir()
            os.chown(folder, USER, USER)
        local.init(
            local.DockerRunner(**AS_A_POD, **options), pipeline_root=str(steps), workspace_root=str(workspace)
        )

    return start


@pytest.mark.filterwarnings("ignore:Task .* have no effect in the current local runner:UserWarning")
def test_the_whole_compiled_graph_runs_in_the_images_and_promotes(
    runner: Any, network: Container, mlflow: tuple[str, MlflowClient], shared: Path
) -> None:
    uri, client = mlflow
    environment = {"MLFLOW_TRACKING_URI": uri, "PROTTUNE_PIPELINE_RUN": "in-containers"}
    runner(network_mode=f"container:{network.id}", environment=environment)
    # Without a cluster `deploy` serves the model itself, and for that it needs torch; in one, KServe serves.
    committed = compiled("finetune").read_text(encoding="utf-8")
    graph = with_images(committed, {"light_image": LIGHT, "torch_image": TORCH}, {"deploy": TORCH})
    words = [*toy_flags(shared / "steps"), "--num-processes", "2"]
    words += ["--checkpoints", str(shared / "steps" / "checkpoints")]
    values = values_of(parse_flags(run_flags(), words, "finetune", ""), "finetune")
    for path in (shared / "steps").rglob("*"):
        os.chown(path, USER, USER)
    begun = time.monotonic()
    components.load_component_from_text(without_retries(graph))(**values)
    print(f"the graph in containers: {time.monotonic() - begun:.0f} s")

    (run,) = (shared / "steps").glob("prottune-finetune-*")
    ended = {path.parent.name for path in run.glob("*/executor_output.json")}
    main_path = {"ingest", "compare", "tokenize", "train", "evaluate", "register", "deploy", "promote"}
    assert ended == main_path | {"finish"}
    assert read_manifest(run / "train" / "model", "train").settings["num_processes"] == 2
    metrics = json.loads((run / "evaluate" / "report" / "metrics.json").read_text())
    assert metrics["gate"]["accuracy"] > metrics["gate"]["baseline"]["accuracy"]
    assert {path.stat().st_uid for path in run.rglob("*")} == {USER}
    assert list((shared / "steps" / "checkpoints" / "in-containers").glob("step-*"))

    assert client.get_model_version_by_alias("prottune", "champion").version == 1
    (experiment,) = client.search_experiments(filter_string="name = 'prottune'")
    (tracked,) = client.search_runs([experiment.experiment_id])
    assert (tracked.info.status, tracked.data.tags["prottune.pipeline_run"]) == ("FINISHED", "in-containers")
    assert tracked.data.metrics["deploy/num_golden"] == 8


def test_every_failing_step_is_told_as_a_failure(runner: Any, images: tuple[str, str]) -> None:
    runner(network_mode="none")

    @dsl.container_component
    def failing():  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec(image=LIGHT, command=["sh", "-c", "exit 3"])

    failures = 0
    for _ in range(NUM_FAILURES):
        with suppress(RuntimeError):
            failing()
            continue
        failures += 1
    assert failures == NUM_FAILURES
