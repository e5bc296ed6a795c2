"""Runs sent to a small Kubeflow Pipelines server over its REST API, by kfp's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_kfp
from kubernetes.config import kube_config

from pipelines import submitting
from pipelines.__main__ import main
from pipelines.compiling import compiled
from pipelines.parameters import submit_flags, values_of
from pipelines.submitting import SubmitFlags
from prottune import __version__
from prottune.errors import ConfigError, ServiceError
from prottune.flags import parse_flags

STEPS = [("1", "ingest"), ("2", "train"), ("3", "train-driver"), ("4", "root")]


@pytest.fixture
def backend() -> Iterator[small_kfp.Backend]:
    with small_kfp.running(small_kfp.Backend()) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(submitting, "POLL_SECONDS", 0.0)
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp's client reads a context file from there
    for name in ("KF_PIPELINES_ENDPOINT", "KF_PIPELINES_UI_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def submit(backend: small_kfp.Backend, *words: str) -> int:
    return main(["submit", "--host", backend.url, "--source", "s3://bucket/deeploc.fasta", *words])


def details(**states: str) -> dict[str, Any]:
    tasks = [
        {"task_id": number, "display_name": name, "state": states[name.replace("-", "_")]}
        for number, name in STEPS
        if name.replace("-", "_") in states
    ]
    return {"run_details": {"task_details": tasks}}


def test_a_run_gets_the_parameters_that_were_given_and_the_graphs_own_defaults(
    backend: small_kfp.Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(backend, "--epochs", "3", "--experiment", "night", "--run-name", "third") == 0
    (run,) = backend.runs
    values = run["runtime_config"]["parameters"]
    assert (values["source"], values["epochs"], values["head"]) == (
        "s3://bucket/deeploc.fasta",
        3,
        "attention",
    )
    assert (run["display_name"], run["service_account"]) == ("third", "prottune-run")
    assert backend.experiments[0]["display_name"] == "night"
    said = capsys.readouterr().out
    assert f"run third: {backend.url}/#/runs/details/{run['run_id']}" in said


def test_what_a_pod_is_given_can_be_chosen(backend: small_kfp.Backend) -> None:
    selector = '{"pool": "gpu"}'
    tolerations = '[{"key": "nvidia.com/gpu", "operator": "Exists"}]'
    words = [
        "--num-gpus",
        "4",
        "--num-processes",
        "4",
        "--node-selector",
        selector,
        "--tolerations",
        tolerations,
    ]
    assert submit(backend, *words, "--torch-image", "registry/prottune-torch@sha256:1") == 0
    values = backend.runs[0]["runtime_config"]["parameters"]
    assert values["num_gpus"] == 4
    assert values["node_selector"] == {"pool": "gpu"}
    assert values["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert values["torch_image"] == "registry/prottune-torch@sha256:1"


def test_images_come_from_the_registry_that_the_environment_names(
    backend: small_kfp.Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTTUNE_REGISTRY", "registry.example/lab/")
    assert submit(backend, "--torch-image", "mine") == 0
    values = backend.runs[0]["runtime_config"]["parameters"]
    assert values["light_image"] == f"registry.example/lab/prottune-light:{__version__}"
    assert values["torch_image"] == "mine"


def test_equal_content_is_uploaded_once(
    backend: small_kfp.Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(backend) == submit(backend) == 0
    assert len(backend.pipelines) == len(backend.versions) == 1
    assert len(backend.runs) == 2
    assert compiled("finetune").read_bytes() in backend.versions[0]["package"]
    said = capsys.readouterr().out
    assert said.count("uploaded: version") == said.count("already there: version") == 1


def test_every_profile_has_a_pipeline_of_its_own_and_finds_it_again(backend: small_kfp.Backend) -> None:
    backend.multi_user = True
    for namespace in ("ann", "ann", "bob", "bob"):
        assert submit(backend, "--namespace", namespace) == 0
    assert [each["namespace"] for each in backend.pipelines] == ["ann", "bob"]
    assert [each["pipeline_id"] for each in backend.versions] == [
        each["pipeline_id"] for each in backend.pipelines
    ]
    used = [run["pipeline_version_reference"]["pipeline_id"] for run in backend.runs]
    ann, bob = (each["pipeline_id"] for each in backend.pipelines)
    assert used == [ann, ann, bob, bob]


def test_a_standalone_server_has_one_pipeline_whatever_namespace_is_named(backend: small_kfp.Backend) -> None:
    for words in (["--namespace", "ann"], [], ["--namespace", "bob"]):
        assert submit(backend, *words) == 0
    assert len(backend.pipelines) == len(backend.versions) == 1


def test_a_version_on_a_later_page_is_found(backend: small_kfp.Backend) -> None:
    backend.page_size = 2
    assert submit(backend) == 0
    for number in range(5):
        backend.versions.insert(0, backend.versions[-1] | {"display_name": f"other-{number}"})
    assert submit(backend) == 0
    assert len(backend.versions) == 6


def test_another_graph_is_another_pipeline(backend: small_kfp.Backend) -> None:
    words = ["submit", "predict", "--host", backend.url, "--source", "s3://bucket/proteome.fasta"]
    assert main(words) == 0
    assert backend.pipelines[0]["display_name"] == "prottune-predict"
    assert backend.runs[0]["runtime_config"]["parameters"]["model"] == "registry"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--head", "median"], "head='median'"),
        (["--epochs", "many"], "--epochs: got 'many', expected a whole number"),
        (["--epoch", "3"], "unknown flag --epoch (did you mean --epochs?)"),
        (["--checkpoints", "/home/me"], "checkpoints='/home/me': a pod cannot write that; give an s3://"),
        (["--checkpoints", "https://a/b"], "checkpoints='https://a/b': a pod cannot write that; give an s3"),
        (["--deploy-to", "local"], "deploy_to='local': the step `deploy` has no torch"),
        (["--num-processes", "4"], "num_gpus=1, num_processes=4: expected one GPU for each process, or 0"),
        (["--num-gpus", "4"], "num_gpus=4, num_processes=1: expected one GPU for each process, or 0"),
        (["--num-gpus=-1"], "num_gpus=-1: expected at least 0"),
        (["--evaluate-gpus", "2"], "evaluate_gpus=2: expected 1 or 0; one process computes there"),
        (["--node-selector", '{"pool": 1}'], "node_selector: 'pool' is 1, expected words"),
        (["--tolerations", '["gpu"]'], "tolerations: got 'gpu', expected objects, as in a pod"),
        (["--node-selector", "pool=gpu"], "node_selector: got 'pool=gpu', expected JSON of an object"),
        (["--tolerations", "{}"], "tolerations: got '{}', expected JSON of a list"),
        (["--token-file", "/nowhere"], "--token-file /nowhere: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    words: list[str], line: str, backend: small_kfp.Backend
) -> None:
    with pytest.raises(ConfigError) as refused:
        submit(backend, *words)
    assert line in str(refused.value)
    assert backend.calls == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "num_nodes=2: checkpoints='', expected an s3:// prefix"),
        (["--checkpoints", "s3://b/c"], "num_nodes=2: num_gpus=1, expected 0; the step's own pod only waits"),
        (["--checkpoints", "s3://b/c", "--num-gpus", "0", "--num-processes", "4"], "node_gpus=1, num_proc"),
    ],
)
def test_several_nodes_that_could_not_train_together_are_refused_before_anything_is_sent(
    words: list[str], line: str, backend: small_kfp.Backend
) -> None:
    with pytest.raises(ConfigError) as refused:
        submit(backend, "--num-nodes", "2", *words)
    assert line in str(refused.value)
    assert backend.calls == []


def test_several_nodes_that_can_train_together_are_sent(backend: small_kfp.Backend) -> None:
    words = ["--num-nodes", "2", "--num-gpus", "0", "--checkpoints", "s3://bucket/checkpoints"]
    assert submit(backend, *words) == 0
    assert backend.runs[0]["runtime_config"]["parameters"]["num_nodes"] == 2


def test_a_model_in_a_folder_of_this_machine_is_none_for_a_pod(
    backend: small_kfp.Backend, tmp_path: Path
) -> None:
    words = ["--host", backend.url, "--source", "s3://bucket/proteome.fasta", "--model", str(tmp_path)]
    with pytest.raises(ConfigError, match=r"model='.*' is a folder of this machine: a pod cannot read that"):
        main(["submit", "predict", *words])
    with pytest.raises(ConfigError, match=r"base_model='file://.*' is a folder of this machine"):
        submit(backend, "--base-model", tmp_path.as_uri())
    assert backend.calls == []


@pytest.mark.parametrize(
    "words",
    [
        ["--num-gpus", "0", "--num-processes", "4", "--evaluate-gpus", "0"],
        ["--num-gpus", "4", "--num-processes", "4"],
        ["--checkpoints", "minio://bucket/checkpoints"],
        ["--deploy-to", "local", "--light-image", "mine", "--torch-image", "mine"],
    ],
)
def test_what_a_pod_can_do_is_sent(words: list[str]) -> None:
    flags = parse_flags(submit_flags("finetune", SubmitFlags), ["--source", "s3://b/k", *words], "submit", "")
    submitting.check_for_pods("finetune", values_of(flags, "finetune"))


def test_one_process_predicts_and_more_gpus_would_idle(backend: small_kfp.Backend) -> None:
    words = ["--host", backend.url, "--source", "s3://bucket/proteome.fasta", "--num-gpus", "2"]
    with pytest.raises(ConfigError, match="num_gpus=2: expected 1 or 0; one process computes there"):
        main(["submit", "predict", *words])
    assert backend.calls == []


def test_a_local_file_is_no_source_for_a_pod(backend: small_kfp.Backend) -> None:
    with pytest.raises(ConfigError, match=r"source='proteins.fasta': a pod cannot read that; give an s3://"):
        main(["submit", "--host", backend.url, "--source", "proteins.fasta"])


def test_a_token_comes_from_a_file_and_goes_with_every_call(
    backend: small_kfp.Backend, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("abc123\n")
    assert submit(backend, "--token-file", str(file)) == 0
    assert {each.removeprefix("Bearer ").removeprefix("Bearer: ") for each in backend.tokens} == {"abc123"}


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, ConfigError, "give --token-file"),
        (403, ConfigError, "give --token-file"),
        (500, ServiceError, "500"),
    ],
)
def test_a_refusal_of_the_server_is_one_line(
    status: int, kind: type[Exception], words: str, backend: small_kfp.Backend
) -> None:
    backend.refuse = {"POST runs": status}
    with pytest.raises(kind, match=words) as refused:
        submit(backend)
    assert str(refused.value).startswith(f"{backend.url}: run finetune ")
    assert "\n" not in str(refused.value)


def test_a_server_that_wants_to_know_who_asks_says_so_at_once(backend: small_kfp.Backend) -> None:
    backend.refuse = {"GET": 401}
    with pytest.raises(ConfigError, match=r"connect: 401 .*give --token-file"):
        submit(backend)
    assert backend.calls == ["GET healthz"]


def test_nobody_at_the_address_is_one_line() -> None:
    with pytest.raises(ServiceError, match=r"http://127.0.0.1:9: .*no answer"):
        main(["submit", "--host", "http://127.0.0.1:9", "--source", "s3://b/k"])


def test_without_an_address_it_is_looked_for_where_kubeflow_is_and_not_where_the_runs_are(
    backend: small_kfp.Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "kubeconfig"
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "default"}}
    clusters = [{"name": "c", "cluster": {"server": backend.url}}]
    users = [{"name": "u", "user": {"token": "t"}}]
    whole = {"clusters": clusters, "users": users, "contexts": [context], "current-context": "c"}
    file.write_text(json.dumps(whole))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))  # read when it is imported
    assert main(["submit", "--source", "s3://b/k", "--namespace", "my-profile"]) == 0
    assert backend.proxied == {"/api/v1/namespaces/kubeflow"}
    assert backend.experiments[0]["namespace"] == "my-profile"
    assert len(backend.runs) == 1


def test_a_run_that_is_followed_tells_each_change_once(
    backend: small_kfp.Backend, capsys: pytest.CaptureFixture[str]
) -> None:
    backend.states = [
        {"state": "PENDING"},
        {"state": "RUNNING"} | details(ingest="RUNNING", root="RUNNING"),
        {"state": "RUNNING"} | details(ingest="SUCCEEDED", train="RUNNING", train_driver="SUCCEEDED"),
        {"state": "SUCCEEDED"} | details(ingest="SUCCEEDED", train="SUCCEEDED"),
    ]
    assert submit(backend, "--wait", "--run-name", "n") == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  ingest: running",
        "  ingest: succeeded",
        "  train: running",
        "  train: succeeded",
        "run n: succeeded",
    ]


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_does_not_end_well_ends_the_command_so(state: str, backend: small_kfp.Backend) -> None:
    backend.states = [{"state": state} | details(ingest="SUCCEEDED", train="FAILED", root="FAILED")]
    with pytest.raises(ServiceError) as failed:
        submit(backend, "--wait", "--run-name", "n")
    assert str(failed.value) == f"run n {state.lower()}: train"


def test_a_silent_server_is_waited_for_and_then_given_up_with_the_runs_address(
    backend: small_kfp.Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.states = [{"state": "RUNNING"}]
    backend.refuse = {"GET runs": 500}
    monkeypatch.setattr(submitting, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(ServiceError, match=r"500 .*; the run itself goes on: http://.*/#/runs/details/"):
        submit(backend, "--wait")


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_expires_while_a_run_is_followed_is_no_wrong_flag_and_the_run_goes_on(
    status: int, backend: small_kfp.Backend
) -> None:
    backend.refuse = {"GET runs": status}
    with pytest.raises(ServiceError) as ended:
        submit(backend, "--wait")
    (run,) = backend.runs
    page = f"{backend.url}/#/runs/details/{run['run_id']}"
    assert f": {status} refused by the test; give --token-file" in str(ended.value)
    assert str(ended.value).endswith(f"; the run itself goes on: {page}")
