"""The doctor: each check tells what is well and what is not, on small servers, and stops no other."""

from __future__ import annotations

import io
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import small_kfp
import small_mlflow
from healthy_cluster import controller, made_healthy, node
from small_cluster import SmallCluster, serving
from small_store import Store

from pipelines import doctor as program
from pipelines import manifests
from pipelines.__main__ import main
from pipelines.checks import here, services
from pipelines.checks.finding import Finding, State
from pipelines.checks.namespace import doubt_of
from pipelines.checks.surroundings import DoctorFlags, Surroundings
from pipelines.compiling import compiled
from pipelines.doctor import CHECKS, WIDTH, Check, finding, findings
from pipelines.manifests import rendered
from prottune.cluster.objects import SECRETS
from prottune.cluster.rights import calls_of
from prottune.errors import ConfigError

NAMES = [check.name for check in CHECKS]
ON_A_CLUSTER = NAMES[NAMES.index("cluster") :]
ROLES = {each["metadata"]["name"]: each for each in manifests.objects("Role")}
NUM_CALLS = len(calls_of(ROLES["prottune-run"]))
ACCOUNT = "system:serviceaccount:lab:prottune-run"
BY_DIGEST = {
    "light_image": "registry.example/prottune-light@sha256:0",
    "torch_image": "registry.example/prottune-torch@sha256:1",
}


@pytest.fixture(scope="module")
def running() -> Iterator[SmallCluster]:
    with serving(SmallCluster()) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: SmallCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallCluster:
    """A cluster with nothing wrong, to which the kubeconfig points."""
    monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path / "kubeconfig")))
    return made_healthy(running)


@pytest.fixture
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)


def look(name: str, **flags: Any) -> Finding:
    """What one check finds."""
    (check,) = (each for each in CHECKS if each.name == name)
    return finding(check, Surroundings(DoctorFlags(**flags)))


def test_a_cluster_with_all_that_is_needed_is_well(cluster: SmallCluster) -> None:
    asked = [name for name in ON_A_CLUSTER if name != "pipelines"]
    found = {name: look(name, **BY_DIGEST) for name in asked}
    assert {name: each for name, each in found.items() if each.state != "ok"} == {}
    assert found["cluster"].found.startswith("Kubernetes v1.33.2 at http://127.0.0.1:")
    assert found["trainer"].found.startswith("Trainer v2.3.0: TrainJob, TrainingRuntime served")
    assert found["kserve"].found.startswith("KServe v0.20.0: InferenceService, ServingRuntime served")
    assert found["rights"].found == (
        f"you may make all {NUM_CALLS} calls of manifests/base/role.yaml in namespace lab"
    )
    assert found["gpus"].found.startswith("nvidia.com/gpu: 12 on 2 of 3 nodes that take pods")
    assert "nothing was pulled" in found["images"].found
    assert cluster.writes == []


def test_without_a_cluster_only_what_is_here_is_looked_at(
    no_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [*ON_A_CLUSTER, "disk", "store", "mlflow"]
    assert main(["doctor", "--json", "--only", ",".join(names)]) == 0
    entries = {each["check"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert sorted(entries) == sorted(names)
    for name in ON_A_CLUSTER:
        assert entries[name]["state"] == "not checked"
        assert entries[name]["found"].startswith("no cluster to reach from here"), name
    assert entries["disk"]["state"] in ("ok", "warning")
    assert entries["store"]["found"] == "S3_ENDPOINT is not set here"
    assert entries["mlflow"]["found"] == "MLFLOW_TRACKING_URI is not set here"


def test_a_silent_api_server_fails_once_and_the_others_say_why_they_did_not_look(
    cluster: SmallCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "down", True)
    assert main(["doctor", "--only", "cluster,gpus,secrets"]) == 3
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("cluster  failed       GET http://127.0.0.1:")
    assert "gpus     not checked  the API server does not answer (see cluster)" in others
    assert others[-1] == "0 ok, 1 failed, 2 not checked"


def test_the_table_fits_a_terminal_and_says_what_to_do(
    cluster: SmallCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.remove("servingruntimes.serving.kserve.io", "prottune")
    assert main(["doctor", "--only", "settings, runtimes, accounts, kserve"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH
    at = next(number for number, line in enumerate(lines) if line.startswith("runtimes"))
    assert lines[at] == "runtimes  failed       not in namespace lab: ServingRuntime prottune"
    assert lines[at + 1].startswith("                       -> kubectl apply -k manifests/overlays/...")


@pytest.mark.parametrize("words", [["--only", "moon"], ["--moon"], ["word"], ["--num-gpus", "x"]])
def test_wrong_flags_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        main(["doctor", *words])
    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_a_check_that_hangs_or_breaks_fails_in_one_line_and_stops_no_other() -> None:
    over = threading.Event()

    def hang(_: Surroundings) -> Finding:
        over.wait(30)
        return Finding("ok", "late")

    def broken(_: Surroundings) -> Finding:
        raise RuntimeError("first line\nsecond line")

    def well(_: Surroundings) -> Finding:
        return Finding("ok", "well")

    checks = [Check("hangs", hang, 0.05), Check("breaks", broken), Check("well", well)]
    found = findings(checks, Surroundings(DoctorFlags()))
    over.set()
    assert [(name, each.state, each.found) for name, each in found.items()] == [
        ("hangs", "failed", "no answer within 0.05 s"),
        ("breaks", "failed", "RuntimeError: first line second line"),
        ("well", "ok", "well"),
    ]


def test_a_client_that_keeps_stdout_to_itself_does_not_keep_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def takes_stdout(_: Surroundings) -> Finding:
        sys.stdout = io.StringIO()  # as a client does for the time of a call, and this one never comes back
        return Finding("ok", "well")

    monkeypatch.setattr(program, "CHECKS", (Check("greedy", takes_stdout),))
    before = sys.stdout
    assert program.doctor(DoctorFlags()) == 0
    taken, sys.stdout = sys.stdout, before
    assert taken is before
    assert capsys.readouterr().out.startswith("greedy  ok           well")


# This machine


def test_what_is_installed_is_what_the_requirements_say() -> None:
    found = look("versions")
    assert found.state == "ok", found
    assert f"kfp {here.pinned(here.ROOT / 'requirements/pipelines.in')['kfp']}" in found.found


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(here.ROOT / "requirements", tmp_path / "requirements")
    shutil.copy(here.ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "pin", "state"),
    [("pipelines", "kfp", "failed"), ("light", "minio", "failed"), ("torch", "captum", "warning")],
)
def test_another_version_is_told_and_fails_where_a_run_needs_it(
    file: str, pin: str, state: State, checkout: Path
) -> None:
    path = checkout / f"requirements/{file}.in"
    found = here.pinned(path)[pin]
    path.write_text(path.read_text().replace(f"{pin}=={found}", f"{pin}==99.0"))
    judged = here.judged_versions(checkout)
    assert judged.state == state
    assert f"{pin} {found}, expected 99.0" in judged.found


def test_another_python_and_no_checkout_are_told(checkout: Path) -> None:
    project = checkout / "pyproject.toml"
    project.write_text(
        project.read_text().replace('requires-python = ">=3.11"', 'requires-python = ">=3.99"')
    )
    assert "expected >=3.99" in here.judged_versions(checkout).found
    shutil.rmtree(checkout / "requirements")
    gone = finding(Check("versions", lambda _: here.judged_versions(checkout)), Surroundings(DoctorFlags()))
    assert (gone.state, "no checkout" in gone.found) == ("not checked", True)


def test_where_there_are_no_manifests_what_follows_from_them_is_not_checked(
    cluster: SmallCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "FOLDER", tmp_path)
    manifests.base.cache_clear()
    try:
        found = [look(name) for name in ("rights", "settings", "runtimes", "trainer")]
    finally:
        manifests.base.cache_clear()
    assert {(each.state, each.found.partition(": ")[2]) for each in found} == {
        ("not checked", "not there, so this is no checkout")
    }


def test_a_graph_that_differs_from_its_sources_is_named_and_left_alone(tmp_path: Path) -> None:
    stale = tmp_path / "predict.yaml"
    stale.write_bytes(compiled("predict").read_bytes() + b"# changed by hand\n")
    assert here.judged_graphs({"predict": compiled("predict")}).state == "ok"
    found = here.judged_graphs({"predict": stale})
    assert (found.state, found.advice) == ("failed", "make compile")
    assert found.found == "pipelines/compiled: predict differs from its sources"
    assert stale.read_bytes().endswith(b"# changed by hand\n")


def test_schedules_are_read_and_their_next_time_is_told(tmp_path: Path) -> None:
    assert "deeploc-daily: next 20" in look("schedules").found
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: x\ncron: '* * *'\n")
    found = finding(
        Check("schedules", lambda _: here.judged_schedules([broken])), Surroundings(DoctorFlags())
    )
    assert found.state == "failed"
    assert found.found.startswith(f"{broken}: cron: got '* * *', expected six fields")


def test_manifests_that_do_not_render_are_told_with_the_words_of_kustomize(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="manifests/overlays/gpu: no such patch"):
        rendered("gpu", ["sh", "-c", "echo no such patch >&2; exit 1"], tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look("manifests").state == "not checked"


@pytest.mark.parametrize(
    ("answer", "error", "state", "words"),
    [
        ("2.13.0+cu130|13.0|2|NVIDIA H200", "", "ok", "torch 2.13.0+cu130, 2 GPUs (NVIDIA H200)"),
        ("2.13.0+cpu||0|", "", "ok", "built for processors"),
        ("2.13.0+cu130|13.0|0|", "", "ok", "built for CUDA 13.0, but finds no GPU"),
        ("", "ImportError: libcudart.so", "warning", "torch cannot be loaded: ImportError: libcudart.so"),
    ],
)
def test_torch_and_its_gpus_are_told(answer: str, error: str, state: State, words: str) -> None:
    found = here.torch_finding(answer, error)
    assert (found.state, words in found.found) == (state, True)


def test_torch_is_asked_in_a_program_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho a warning\necho '2.13.0|13.0|1|NVIDIA H200'\n")
    other.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(other))
    assert look("torch").found == "torch 2.13.0, 1 GPU (NVIDIA H200)"
    other.write_text("#!/bin/sh\necho 'Traceback' >&2\necho 'ModuleNotFoundError: torch' >&2\nexit 1\n")
    assert look("torch").found == "torch cannot be loaded: ModuleNotFoundError: torch"


def test_little_room_for_runs_is_a_warning() -> None:
    assert here.disk_finding(Path("runs"), 21 * 10**9) == Finding("ok", "21 GB free for runs/")
    little = here.disk_finding(Path("runs"), 19 * 10**9)
    assert (little.state, "--runs" in little.advice) == ("warning", True)


# The store and MLflow


def test_a_store_is_tried_and_left_as_it_was(store: Store) -> None:
    store.objects["prottune/runs/mine"] = b"untouched"
    found = look("store")
    assert found == Finding(
        "ok", f"s3://prottune/runs at {store.url}: written, read, listed, written in parts, cleaned up"
    )
    assert store.objects == {"prottune/runs/mine": b"untouched"}
    assert [key.rpartition("/")[2] for key in store.deletes] == ["large", "small"]
    assert all(key.startswith("prottune/runs/doctor-") for key in store.deletes)


@pytest.mark.parametrize(
    ("method", "code", "start", "advice"),
    [
        ("PUT", "AccessDenied", "writing: s3://lab/x/doctor-", "let the key read, write, list and delete"),
        ("PUT", "NoSuchBucket", "writing: s3://lab/x/doctor-", "make the bucket"),
        ("PUT", "SignatureDoesNotMatch", "writing: s3://lab/x/doctor-", "S3_SECRET_KEY"),
        ("POST", "AccessDenied", "writing in parts: s3://lab/x/doctor-", "parts of uploads"),
        (
            "DELETE",
            "AccessDenied",
            "deleting: s3://lab/x/doctor-",
            "let the key read, write, list and delete",
        ),
    ],
)
def test_a_store_that_refuses_is_told_with_the_step_and_what_to_do(
    method: str, code: str, start: str, advice: str, store: Store
) -> None:
    store.refuse = {method: code}
    found = look("store", store="s3://lab/x/")
    assert found.state == "failed"
    assert found.found.startswith(start)
    assert code in found.found
    assert advice in found.advice
    assert bool(store.objects) == (method == "DELETE")


def test_a_store_that_is_wrongly_named_or_has_no_key_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert look("store", store="lab/x").found == "--store lab/x: expected s3://BUCKET/PREFIX"
    monkeypatch.delenv("S3_SECRET_KEY")
    found = look("store")
    assert (found.state, "S3_SECRET_KEY is not" in found.found) == ("failed", True)


def test_a_store_that_is_away_fails_within_the_time_of_a_check(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "STORE_SECONDS", 0.1)
    monkeypatch.setenv("S3_ENDPOINT", "http://127.0.0.1:9")
    found = look("store", store="s3://lab/x/")
    assert (found.state, "Connection refused); asked again for 0.1 s" in found.found) == ("failed", True)
    assert found.advice.startswith("look at S3_ENDPOINT and S3_SECURE")


PODS_HOST = "prottune-mlflow:5000"


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[small_mlflow.Server]:
    with small_mlflow.running(small_mlflow.Server({PODS_HOST})) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        yield server


def test_mlflow_is_asked_by_the_name_that_pods_use(mlflow: small_mlflow.Server, no_cluster: None) -> None:
    assert look("mlflow").state == "ok"
    assert mlflow.hosts == [mlflow.host, PODS_HOST]


def test_the_name_that_pods_use_is_the_clusters(mlflow: small_mlflow.Server, cluster: SmallCluster) -> None:
    def elsewhere(content: dict[str, Any]) -> None:
        content["data"]["MLFLOW_TRACKING_URI"] = "http://tracking.lab.svc"

    cluster.change("configmaps", "prottune", elsewhere)
    found = look("mlflow")
    assert (found.state, found.found) == ("failed", f"{mlflow.url} answers 403 to Host tracking.lab.svc")
    assert found.advice.startswith("give tracking.lab.svc to MLflow's --allowed-hosts")


@pytest.mark.parametrize(
    ("status", "words", "advice"),
    [(401, "answers 401", "MLFLOW_TRACKING_TOKEN"), (500, "the database is away", "prottune-mlflow")],
)
def test_an_mlflow_that_refuses_fails(
    status: int, words: str, advice: str, mlflow: small_mlflow.Server, no_cluster: None
) -> None:
    mlflow.status = status
    found = look("mlflow")
    assert (found.state, words in found.found, advice in found.advice) == ("failed", True, True)


def test_an_mlflow_that_is_away_fails_and_keeps_its_password(
    no_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:private@127.0.0.1:9")
    found = look("mlflow")
    assert found.state == "failed"
    assert found.found.startswith("http://127.0.0.1:9: ConnectError")
    assert "private" not in str(found)


def test_a_database_of_this_machine_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert "will be made by the first run" in look("mlflow").found
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    assert look("mlflow").state == "warning"


# Kubeflow


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[small_kfp.Backend]:
    monkeypatch.setenv("HOME", str(tmp_path))
    with small_kfp.running(small_kfp.Backend()) as running:
        yield running


def test_kubeflow_pipelines_tells_its_version(backend: small_kfp.Backend) -> None:
    found = look("pipelines", host=backend.url)
    assert found == Finding("ok", f"Kubeflow Pipelines 2.17.0, SDK {version('kfp')}; 0 schedules on it")
    backend.tag = "2.16.1"
    assert look("pipelines", host=backend.url).state == "warning"
    assert backend.writes == []


def test_a_kubeflow_pipelines_that_refuses_or_is_away_fails(backend: small_kfp.Backend) -> None:
    backend.refuse = {"GET recurringruns": 403}
    found = look("pipelines", host=backend.url)
    assert (found.state, "403" in found.found, "--token-file" in found.advice) == ("failed", True, True)
    away = look("pipelines", host="http://127.0.0.1:9")
    assert (away.state, "port-forward" in away.advice) == ("failed", True)


def spec_of(cluster: SmallCluster, group: str, kind: str) -> dict[str, Any]:
    published = cluster.pages[f"/openapi/v3/apis/{group}"]["components"]["schemas"]
    found: dict[str, Any] = published[kind]["properties"]["spec"]["properties"]
    return found


def test_a_trainer_without_runtime_patches_spoils_only_runs_of_several_nodes(cluster: SmallCluster) -> None:
    spec = spec_of(cluster, "trainer.kubeflow.org/v1alpha1", "TrainJob")
    spec["podTemplateOverrides"] = spec.pop("runtimePatches")
    cluster.remove("deployments.apps", "kubeflow-trainer-controller-manager", "kubeflow-system")
    found = look("trainer")
    assert (found.state, found.found) == (
        "warning",
        "Trainer 2.1 (by its fields) does not know TrainJob spec.runtimePatches",
    )
    assert "2.2 or newer" in found.advice


def test_a_field_that_kserve_would_drop_fails_by_its_path(cluster: SmallCluster) -> None:
    predictor = spec_of(cluster, "serving.kserve.io/v1beta1", "InferenceService")["predictor"]["properties"]
    del predictor["deploymentStrategy"], predictor["model"]["properties"]["runtime"]
    assert look("kserve").found == (
        "KServe v0.20.0 does not know InferenceService spec.predictor.deploymentStrategy, "
        "InferenceService spec.predictor.model.runtime"
    )


def test_a_kserve_from_before_the_mode_standard_fails(cluster: SmallCluster) -> None:
    controller(cluster, "kserve", "kserve-controller-manager", "v0.15.2")
    assert look("kserve").found == "KServe v0.15.2 does not know the mode Standard"


def test_a_kind_that_is_not_served_is_told_and_one_without_a_schema_is_not_checked(
    cluster: SmallCluster,
) -> None:
    del cluster.pages["/openapi/v3/apis/serving.kserve.io/v1beta1"]
    found = look("kserve")
    assert (found.state, "publishes no schema" in found.found) == ("not checked", True)
    del cluster.pages["/apis/serving.kserve.io/v1beta1"]
    found = look("kserve")
    assert (found.state, found.found.startswith("not served: InferenceService")) == ("failed", True)
    del cluster.pages["/apis/trainer.kubeflow.org/v1alpha1"]
    found = look("trainer")
    assert (found.state, "only runs with num_nodes above 1" in found.advice) == ("warning", True)
    assert found.found.startswith("not served: TrainJob (trainer.kubeflow.org/v1alpha1), TrainingRuntime")


# The cluster and the namespace


def test_a_cluster_without_trainer_is_well_enough_for_runs_on_one_node(
    cluster: SmallCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    del cluster.pages["/apis/trainer.kubeflow.org/v1alpha1"]
    cluster.remove("trainingruntimes.trainer.kubeflow.org", "prottune")
    assert look("runtimes") == Finding(
        "warning",
        "not in namespace lab: TrainingRuntime prottune",
        "kubectl apply -k manifests/overlays/..., or name the namespace: --namespace (now lab); "
        "only runs with num_nodes above 1 need it",
    )
    assert main(["doctor", "--only", "trainer,kserve,runtimes"]) == 0
    assert capsys.readouterr().out.endswith("1 ok, 2 warning\n")
    cluster.remove("servingruntimes.serving.kserve.io", "prottune")
    assert look("runtimes").state == "failed"


def test_a_right_that_you_lack_is_a_warning_and_for_a_pod_a_failure(cluster: SmallCluster) -> None:
    cluster.denied = {("create", "trainjobs.trainer.kubeflow.org"), ("get", "pods/log")}
    found = look("rights")
    assert found.state == "warning"
    lacking = "create trainjobs.trainer.kubeflow.org, get pods/log"
    assert found.found.startswith(f"you may not {lacking}, of {NUM_CALLS} calls")
    surroundings = Surroundings(DoctorFlags())
    surroundings.in_pod = True
    (check,) = (each for each in CHECKS if each.name == "rights")
    assert finding(check, surroundings).state == "failed"


def test_a_right_that_runs_lack_fails(cluster: SmallCluster) -> None:
    cluster.denied_to = {ACCOUNT: {("update", "leases.coordination.k8s.io")}}
    found = look("rights-of-runs")
    assert found.state == "failed"
    lease = "update leases.coordination.k8s.io prottune"
    assert found.found.startswith(f"prottune-run may not {lease}-rollout, {lease}-promotion, of 20 calls ")
    assert "Roles prottune-run, prottune-run-launcher" in found.advice


def test_rights_are_asked_for_by_the_names_that_the_roles_give(cluster: SmallCluster) -> None:
    of_runs = [rule for role in ROLES.values() for rule in role["rules"]]
    cluster.rules = {"": ROLES["prottune-run"]["rules"], ACCOUNT: of_runs}
    assert look("rights") == Finding(
        "ok", "you may make all 18 calls of manifests/base/role.yaml in namespace lab"
    )
    del cluster.rules[""]
    assert look("rights-of-runs") == Finding(
        "ok", "prottune-run may make all 20 calls of manifests/base in namespace lab"
    )


def test_a_right_to_another_object_than_the_one_that_is_meant_is_none(cluster: SmallCluster) -> None:
    rules = json.loads(json.dumps(ROLES["prottune-run"]["rules"]).replace('"prottune-rollout"', '"other"'))
    cluster.rules = {"": rules}
    assert look("rights").found.startswith(
        "you may not get leases.coordination.k8s.io prottune-rollout, "
        "update leases.coordination.k8s.io prottune-rollout, of 18 calls"
    )


def test_an_account_whose_launcher_cannot_open_the_store_fails(cluster: SmallCluster) -> None:
    cluster.rules = {ACCOUNT: ROLES["prottune-run"]["rules"]}
    found = look("rights-of-runs")
    assert (found.state, found.found) == (
        "failed",
        "prottune-run may not get configmaps kfp-launcher, get secrets prottune-s3, of 20 calls of "
        "manifests/base in namespace lab",
    )


def test_who_may_not_ask_for_others_is_told_so(cluster: SmallCluster) -> None:
    cluster.denied = {("create", "localsubjectaccessreviews.authorization.k8s.io")}
    found = look("rights-of-runs")
    assert (found.state, found.found) == (
        "not checked",
        "you may not ask what prottune-run may in namespace lab",
    )


def test_gpus_are_counted_on_nodes_that_take_pods(cluster: SmallCluster) -> None:
    node(cluster, "gpu-2", gpus=8, ready="False")
    node(cluster, "gpu-3", gpus=8, closed=True)
    assert look("gpus", num_gpus=4).found.startswith("nvidia.com/gpu: 4 on 1 of 2 nodes")
    found = look("gpus", num_gpus=5)
    assert (found.state, found.advice.startswith("submit with --num-gpus 4")) == ("failed", True)
    cluster.denied = {("list", "nodes")}
    assert look("gpus").found == "not allowed to see nodes, so GPUs were not counted"
    assert look("gpus").state == "not checked"


@pytest.mark.parametrize(
    ("check", "resource", "name", "words"),
    [
        ("settings", "configmaps", "prottune", "no ConfigMap prottune in namespace lab"),
        ("settings", "configmaps", "kfp-launcher", "no ConfigMap kfp-launcher in namespace lab"),
        ("secrets", "secrets", "prottune-s3", "no Secret prottune-s3 in namespace lab"),
        ("accounts", "serviceaccounts", "prottune-run", "no ServiceAccount prottune-run in namespace lab"),
        (
            "runtimes",
            "servingruntimes.serving.kserve.io",
            "prottune",
            "not in namespace lab: ServingRuntime prottune",
        ),
    ],
)
def test_what_is_missing_in_the_namespace_fails_and_what_may_not_be_seen_is_not_checked(
    check: str, resource: str, name: str, words: str, cluster: SmallCluster
) -> None:
    cluster.remove(resource, name)
    found = look(check)
    assert (found.state, found.found) == ("failed", words)
    assert "--namespace" in found.advice
    cluster.denied = {("get", resource)}
    found = look(check)
    assert found.state == "not checked"
    assert found.found.startswith("not allowed to see it: GET ")


def test_a_runtime_whose_image_has_no_registry_is_a_warning(cluster: SmallCluster) -> None:
    def nameless(runtime: Any) -> None:
        runtime["spec"]["containers"][0]["image"] = "prottune-torch:0.1.0"

    cluster.change("servingruntimes.serving.kserve.io", "prottune", nameless)
    found = look("runtimes")
    assert found.state == "warning"
    assert "prottune-torch:0.1.0 names no registry, so nodes look for it" in found.found
    assert "manifests/overlays/example" in found.advice


def test_a_setting_without_a_value_and_a_store_with_a_scheme_fail(cluster: SmallCluster) -> None:
    cluster.change("configmaps", "prottune", lambda content: content["data"].pop("S3_ENDPOINT"))
    assert look("settings").found == "prottune has no S3_ENDPOINT"
    annotation = {"serving.kserve.io/s3-endpoint": "http://store:8333"}
    cluster.change("secrets", "prottune-s3", lambda each: each["metadata"].update(annotations=annotation))
    assert look("secrets").found == (
        "Secret prottune-s3: its annotation serving.kserve.io/s3-endpoint is 'http://store:8333'"
    )


def test_certificates_that_steps_are_told_of_must_be_there(cluster: SmallCluster) -> None:
    def told(file: str) -> None:
        cluster.change("configmaps", "prottune", lambda content: content["data"].update(AWS_CA_BUNDLE=file))

    told("/etc/prottune/ca/cabundle.crt")
    found = look("settings")
    assert found.state == "failed"
    assert found.found == (
        "steps trust /etc/prottune/ca/cabundle.crt, but there is no ConfigMap prottune-ca with cabundle.crt"
    )
    assert found.advice == "kubectl create configmap prottune-ca --from-file=cabundle.crt=YOUR-CA.pem"
    cluster.put("configmaps", {"metadata": {"name": "prottune-ca"}, "data": {"cabundle.crt": "PEM"}})
    assert look("settings").state == "ok"
    told("/etc/ssl/own.pem")
    assert look("settings").state == "warning"


def test_a_store_that_kserve_and_the_steps_name_differently_is_a_warning(cluster: SmallCluster) -> None:
    def elsewhere(content: dict[str, Any]) -> None:
        content["data"]["S3_ENDPOINT"] = "https://s3.example"

    cluster.change("configmaps", "prottune", elsewhere)
    found = look("secrets")
    assert found.state == "warning"
    assert found.found.startswith("KServe reads models from prottune-store:8333 (Secret prottune-s3), steps")
    cluster.denied = {("get", "configmaps")}
    assert look("secrets").state == "ok"


def test_the_values_of_secrets_are_never_asked_for(cluster: SmallCluster) -> None:
    (check,) = (each for each in CHECKS if each.name == "secrets")
    surroundings = Surroundings(DoctorFlags())
    assert finding(check, surroundings).state == "ok"
    assert set(surroundings.cluster().metadata(SECRETS, "prottune-s3") or {}) >= {"name", "annotations"}
    assert "data" not in (surroundings.cluster().metadata(SECRETS, "prottune-s3") or {})


def test_a_pull_secret_that_an_account_names_must_be_there(cluster: SmallCluster) -> None:
    def pulls(content: dict[str, Any]) -> None:
        content["imagePullSecrets"] = [{"name": "registry"}]

    cluster.change("serviceaccounts", "prottune-run", pulls)
    assert look("accounts").state == "failed"
    cluster.put("secrets", {"metadata": {"name": "registry"}})
    assert look("accounts").found.endswith("pull secrets registry")


@pytest.mark.parametrize(
    ("image", "doubt"),
    [
        ("registry.example/prottune@sha256:0", ""),
        ("localhost/prottune:1", ""),
        ("registry:5000/lab/prottune:1", ""),
        ("registry:5000/lab/prottune", "names no version"),
        ("registry.example/prottune:latest", "names no version"),
        ("prottune-torch:0.1.0", "names no registry"),
        ("lab/prottune-torch:0.1.0", "names no registry"),
        ("prottune@sha256:0", "names no registry"),
    ],
)
def test_an_images_name_tells_what_it_leaves_open(image: str, doubt: str) -> None:
    assert doubt_of(image).startswith(doubt)
    assert bool(doubt_of(image)) == bool(doubt)


def test_images_are_judged_by_what_became_of_their_pods(cluster: SmallCluster) -> None:
    assert look("images").state == "warning"
    light, torch = BY_DIGEST.values()
    ran = {"name": "main", "image": light, "imageID": light}
    waits = {
        "name": "main",
        "image": torch,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling: 401"}},
    }
    cluster.put("pods", {"metadata": {"name": "step-1"}, "status": {"containerStatuses": [ran]}})
    assert look("images", **BY_DIGEST).found.startswith(f"by name, {torch} have a registry")
    cluster.put("pods", {"metadata": {"name": "step-2"}, "status": {"containerStatuses": [waits]}})
    found = look("images", **BY_DIGEST)
    assert (found.state, found.found) == (
        "failed",
        f"nodes cannot pull {torch} (pod step-2: Back-off pulling: 401)",
    )
    cluster.put(
        "pods", {"metadata": {"name": "step-2"}, "status": {"containerStatuses": [ran | {"image": torch}]}}
    )
    assert look("images", **BY_DIGEST).found == f"pods of this namespace have run {light}, {torch}"
