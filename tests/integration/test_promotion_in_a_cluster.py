"""The steps deploy and promote as in a cluster: a real MLflow server, and a small cluster with KServe."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judged_models import report_on
from kfp.dsl import Metrics, Model
from kubernetes import client, config
from mlflow_server import Server, mlflow_server
from small_cluster import Call, Object, SmallCluster, serving
from small_endpoint import GOLDEN
from small_kserve import LEASES, RIGHTS, SERVICES, SmallKServe, controlled
from small_store import Store
from toy_proteins import steps_run, toy_flags

from components.deployment import deploy as deploy_step
from components.registration import promote as promote_step
from prottune.artifacts import new_folder
from prottune.cluster import connection
from prottune.errors import DeploymentError
from prottune.registration.champion import find_champion
from prottune.registration.stage import register
from prottune.storage import upload_folder
from prottune.tracking.mlflow_store import mlflow_client

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROMOTION = "prottune-promotion"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def kserve(
    mlflow: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[SmallKServe]:
    """A cluster that nothing was ever deployed to, seen as a step's pod sees it."""
    with serving(SmallCluster()) as cluster, controlled(cluster) as running:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow.uri)
        monkeypatch.setenv("PROTTUNE_UNSENT", str(tmp_path / "unsent"))
        monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
        (tmp_path / "token").write_text("secret")
        (tmp_path / "namespace").write_text("lab")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")

        def found(client_configuration: client.Configuration) -> None:
            client_configuration.host = cluster.url  # a real one would be https, with a certificate

        monkeypatch.setattr(config, "load_incluster_config", found)
        yield running


def trained(folder: Path) -> str:
    """A model whose artifact lies in the store, as challenger; returns its version."""
    with new_folder(folder, "train", None) as draft:
        (draft.path / "golden.json").write_text(json.dumps({"golden": GOLDEN}))
        (draft.path / "prottune.json").write_text(json.dumps({"dataset_digest": folder.name}))
    upload_folder(folder, uri := f"s3://models/{folder.parent.name}/{folder.name}")
    return register(folder, uri, report_on(folder), str(folder)).version


def deployed(folder: Path, version: str) -> str:
    model = Model(uri=f"minio://models/{folder.parent.name}/{folder.name}")  # as Kubeflow Pipelines writes it
    url = deploy_step.python_func(model, version, "auto", 1, 0, Metrics())
    return str(url)


def promoted(version: str, compared_with: str) -> tuple[bool, str]:
    metrics = Metrics()
    reason = promote_step.python_func(version, compared_with, metrics)
    return bool(metrics.metadata["promoted"]), str(reason)


def champion() -> str:
    found = find_champion()
    return found.version if found else ""


def test_a_promotion_follows_the_rollout_and_holds_the_lease_while_aliases_move(
    kserve: SmallKServe, tmp_path: Path
) -> None:
    before, version = champion(), trained(tmp_path / "a")
    seen: list[tuple[bool, bool]] = []

    def watch(call: Call, written: Object) -> None:
        kserve.reconcile(call, written)
        if call.resource == LEASES and written["metadata"]["name"] == PROMOTION:
            seen.append(("holderIdentity" in written["spec"], champion() == version))

    kserve.cluster.after_write = watch
    assert deployed(tmp_path / "a", version) == kserve.url
    assert (kserve.served, seen) == ([version], [])
    is_champion, reason = promoted(version, before)
    assert is_champion, reason
    assert (seen[0], seen[-1]) == ((True, False), (False, True))
    assert champion() == version
    assert {(call.verb, call.resource) for call in kserve.cluster.calls} <= RIGHTS


def test_of_two_promotions_at_once_one_wins_and_the_other_says_so(
    kserve: SmallKServe, tmp_path: Path
) -> None:
    before, versions = champion(), [trained(tmp_path / name) for name in ("a", "b")]
    outcomes: dict[str, tuple[bool, str]] = {}

    def work(version: str) -> None:
        outcomes[version] = promoted(version, before)

    threads = [threading.Thread(target=work, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [version for version, (is_champion, _) in outcomes.items() if is_champion]
    (loser,) = set(versions) - {winner}
    assert champion() == winner
    assert outcomes[loser][1] == (
        f"the champion is now version {winner}, but version {loser} was compared with {before or 'none'}; "
        "evaluate it again"
    )
    assert kserve.cluster.get(LEASES, PROMOTION)["spec"]["leaseTransitions"] == 1, "each has held it once"


def test_a_rollout_that_fails_leaves_champion_and_endpoint_as_they_were(
    kserve: SmallKServe, tmp_path: Path
) -> None:
    before, first = champion(), trained(tmp_path / "a")
    deployed(tmp_path / "a", first)
    assert promoted(first, before)[0]
    second = trained(tmp_path / "b")
    kserve.fate = {second: "wrong"}
    with pytest.raises(DeploymentError, match=f"version {first} serves again"):
        deployed(tmp_path / "b", second)
    assert (champion(), kserve.serving) == (first, first)
    model = kserve.cluster.get(SERVICES, "prottune")["spec"]["predictor"]["model"]
    assert model["args"] == [f"--model-version={first}"]


def test_the_graph_promotes_nothing_when_its_deployment_fails(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "pipelines", "run", "--runs", str(runs), *toy_flags(tmp_path)]
    ended = subprocess.run([*command, "--deploy-to", "kserve"], capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert "a cluster reads models at s3:// addresses" in ended.stderr.splitlines()[-1]
    assert steps_run(runs) & {"register", "promote"} == {"register"}
    registry: Any = mlflow_client(f"sqlite:///{runs / 'mlflow.db'}")
    assert set(registry.get_registered_model("prottune").aliases) == {"challenger"}
