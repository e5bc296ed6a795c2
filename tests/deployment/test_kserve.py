"""Deployments to a small cluster: what is written, what is waited for, what is there when something fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from crd_schemas import schema_of
from kubernetes import client
from small_cluster import Call, Refused
from small_kserve import CLUSTER_CONFIG as CONFIG
from small_kserve import LEASES, NAME, RIGHTS, SERVICES, SmallKServe, connected, deployed, free, spec_of

from prottune.artifacts import read_manifest
from prottune.cluster.objects import annotations_of
from prottune.deployment.kserve import KServeDeployment
from prottune.deployment.revision import Revision
from prottune.deployment.stage import deploy
from prottune.errors import ClusterError, ConfigError, DeploymentError
from prottune.serving.settings import ServeConfig


def test_the_first_deployment_makes_an_inference_service_that_the_schema_takes(
    kserve: SmallKServe, folder: Path
) -> None:
    kserve.cluster.schemas = {SERVICES: schema_of(SERVICES)}
    config = replace(CONFIG, replicas=1, serving_gpus=1, cpu="2", memory="8Gi")
    assert deployed(kserve, folder, "1", config) == 0.0
    made = kserve.cluster.get(SERVICES, NAME)
    assert made["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": "Standard",
        "prottune.dev/model-version": "1",
        "prottune.dev/model-digest": read_manifest(folder).digest,
        "prottune.dev/dataset-digest": "data-1",
    }
    predictor = made["spec"]["predictor"]
    assert predictor["model"] == {
        "modelFormat": {"name": "prottune", "version": "1"},
        "runtime": "prottune",
        "protocolVersion": "v2",
        "storageUri": "s3://models/1",
        "args": ["--model-version=1"],
        "resources": {
            "requests": {"cpu": "2", "memory": "8Gi", "nvidia.com/gpu": "1"},
            "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
        },
    }
    assert (predictor["minReplicas"], predictor["serviceAccountName"]) == (1, "prottune-serve")
    assert predictor["deploymentStrategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert predictor["terminationGracePeriodSeconds"] > ServeConfig.drain_seconds + 3
    assert kserve.served == ["1"]
    assert free(kserve)


def test_the_same_deployment_again_writes_nothing(kserve: SmallKServe, folder: Path) -> None:
    deployed(kserve, folder, "1")
    kserve.cluster.calls.clear()
    assert deployed(kserve, folder, "1") == 0.0
    assert kserve.cluster.calls != []
    assert kserve.cluster.writes == []


def test_what_a_webhook_fills_in_is_no_difference_but_a_changed_value_is(
    kserve: SmallKServe, folder: Path
) -> None:
    def defaults(call: Call, sent: Any) -> None:
        if call.resource == SERVICES:
            sent["spec"]["predictor"]["containerConcurrency"] = 0
            sent["spec"]["predictor"]["model"]["name"] = "kserve-container"
            sent["spec"]["predictor"]["model"]["resources"]["requests"]["cpu"] = "2"  # the same amount

    kserve.cluster.admit = defaults
    config = replace(CONFIG, cpu="2000m")
    deployed(kserve, folder, "1", config)
    kserve.cluster.calls.clear()
    deployed(kserve, folder, "1", config)
    assert kserve.cluster.writes == []
    kserve.cluster.change(SERVICES, NAME, lambda found: found["spec"]["predictor"].update(minReplicas=5))
    deployed(kserve, folder, "1", config)
    assert spec_of(kserve)["predictor"]["minReplicas"] == 1


def test_a_new_version_is_asked_only_when_its_own_pods_serve(kserve: SmallKServe, folder: Path) -> None:
    """Meanwhile KServe says Ready of the old pods, with an observedGeneration that is ahead of everything."""
    deployed(kserve, folder, "1")
    kserve.delay, begun = 3, kserve.seconds
    assert deployed(kserve, folder, "2") == 0.0
    assert kserve.served == ["1", "2"]
    assert 6 <= kserve.seconds - begun < 10
    assert free(kserve)


def test_annotations_and_labels_of_others_stay(kserve: SmallKServe, folder: Path) -> None:
    deployed(kserve, folder, "1")
    others = {"annotations": {"team": "membranes"}, "labels": {"cost": "7"}}
    kserve.cluster.change(
        SERVICES,
        NAME,
        lambda found: [found["metadata"].setdefault(k, {}).update(v) for k, v in others.items()],
    )
    deployed(kserve, folder, "2")
    metadata = kserve.cluster.get(SERVICES, NAME)["metadata"]
    assert (metadata["annotations"]["team"], metadata["labels"]) == ("membranes", {"cost": "7"})
    assert metadata["annotations"]["prottune.dev/model-version"] == "2"


def test_wrong_answers_bring_the_version_before_back_and_it_is_asked_too(
    kserve: SmallKServe, folder: Path, models: str
) -> None:
    deployed(kserve, folder, "1")
    before = kserve.cluster.get(SERVICES, NAME)
    kserve.fate = {"2": "wrong"}
    with pytest.raises(DeploymentError) as caught:
        deployed(kserve, folder, "2")
    line = str(caught.value)
    assert "sequence G1: a probability differs by 0.5000" in line
    assert line.endswith("; version 1 serves again (golden answers given, largest difference 0)")
    after = kserve.cluster.get(SERVICES, NAME)
    assert (after["spec"], after["metadata"]["annotations"]) == (
        before["spec"],
        before["metadata"]["annotations"],
    )
    assert kserve.served == ["1", "2", "1"]
    assert free(kserve)


def test_a_first_endpoint_that_does_not_prove_itself_is_deleted(kserve: SmallKServe, folder: Path) -> None:
    kserve.fate = {"1": "wrong"}
    with pytest.raises(DeploymentError, match="nothing served before, so the InferenceService was deleted"):
        deployed(kserve, folder, "1")
    assert kserve.cluster.named(SERVICES) == []
    assert free(kserve)


REASONS = {
    "no image": r'container kserve-container of pod \S+: ImagePullBackOff Back-off pulling image "prottune',
    "crash": r"CrashLoopBackOff .*; before, it ended with exit code 137 \(OOMKilled\); "
    r"its last words: loading \| MemoryError: model",
    "no node": r"was not ready after 60 s: 0 of 1 pods ready; pod \S+ is not scheduled: "
    r"0/3 nodes are available: 3 Insufficient nvidia\.com/gpu\.",
    "never": r"was not ready after 60 s: 0 of 1 pods ready; pod \S+: FailedMount secret prottune-s3 not",
    "no pod": r"0 of 1 pods ready; InternalError ServingRuntime prottune does not exist",
    "no quota": r"0 of 1 pods ready; FailedCreate pods is forbidden: exceeded quota: lab",
    "no controller": r"0 of 1 pods ready; no pod of it was made; is KServe's controller running\?",
}


@pytest.mark.parametrize("fate", REASONS)
def test_pods_that_do_not_start_are_explained_while_the_version_before_serves(
    kserve: SmallKServe, folder: Path, models: str, fate: str
) -> None:
    deployed(kserve, folder, "1")
    kserve.fate = {"2": fate}
    pod = f"prottune-predictor-{Revision.of_model(folder, 's3://models/2', CONFIG, '2').name}"
    noted = {
        "never": ("Pod", pod, "FailedMount", "secret prottune-s3 not found"),
        "no pod": ("InferenceService", NAME, "InternalError", "ServingRuntime prottune does not exist"),
        "no quota": ("ReplicaSet", pod, "FailedCreate", "pods is forbidden: exceeded quota: lab"),
    }
    if fate in noted:
        kind, name, reason, message = noted[fate]
        words = {"reason": reason, "message": message, "type": "Warning"}
        about = {"involvedObject": {"kind": kind, "name": name}}
        kserve.cluster.put("events", {"metadata": {"name": "e"}} | about | words)
    with pytest.raises(DeploymentError, match=REASONS[fate]) as caught:
        deployed(kserve, folder, "2", replace(CONFIG, rollout_seconds=60))
    assert "version 1 serves again" in str(caught.value)
    assert set(kserve.served) == {"1"}, "the version before served all the time"


def test_of_two_deployments_at_once_one_wins_and_the_other_says_so(kserve: SmallKServe, folder: Path) -> None:
    deployed(kserve, folder, "1")
    begun, go_on = threading.Event(), threading.Event()

    def first() -> None:
        place = KServeDeployment(connected(kserve))
        with place.endpoint(folder, "s3://models/2", CONFIG, "2"):
            begun.set()
            go_on.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(10)
    lease = kserve.cluster.get(LEASES, "prottune-rollout")["spec"]["holderIdentity"]
    second = connected(kserve)

    def renewing(seconds: float) -> None:
        kserve.sleep(seconds)
        edit = {"renewTime": f"{kserve.seconds}"}
        kserve.cluster.change(LEASES, "prottune-rollout", lambda found: found["spec"].update(edit))

    second.sleep = renewing  # the first one goes on renewing its lease while the second waits
    with pytest.raises(
        ClusterError, match=r"held by the rollout of version 2 \(.*try again when that is done"
    ):
        deployed(kserve, folder, "3", cluster=second)
    assert kserve.cluster.get(LEASES, "prottune-rollout")["spec"]["holderIdentity"] == lease
    go_on.set()
    thread.join()
    assert (kserve.serving, free(kserve)) == ("2", True)
    assert deployed(kserve, folder, "3") == 0.0


def by_hand(kserve: SmallKServe) -> None:
    """What somebody with kubectl does: another model, no rollout."""

    def edit(found: Any) -> None:
        found["metadata"]["annotations"] = {}
        found["spec"] = {"predictor": {"model": {"storageUri": "s3://models/other"}}}

    kserve.cluster.change(SERVICES, NAME, edit)


def test_whoever_changes_the_endpoint_during_a_rollout_is_left_alone(
    kserve: SmallKServe, folder: Path
) -> None:
    deployed(kserve, folder, "1")
    kserve.fate = {"2": "never"}
    cluster = connected(kserve)

    def meddled(seconds: float) -> None:
        kserve.sleep(seconds)
        by_hand(kserve)

    cluster.sleep = meddled
    with pytest.raises(DeploymentError, match=r"by somebody else.*which was left alone"):
        deployed(kserve, folder, "2", cluster=cluster)
    assert spec_of(kserve)["predictor"]["model"]["storageUri"] == "s3://models/other"
    assert free(kserve)


def test_who_was_quicker_between_reading_and_writing_is_left_alone(kserve: SmallKServe, folder: Path) -> None:
    deployed(kserve, folder, "1")

    def quicker(call: Call, sent: Any) -> None:
        if call.resource == LEASES and "prottune.dev/stable" in sent["metadata"].get("annotations", {}):
            by_hand(kserve)

    kserve.cluster.admit = quicker
    refused = pytest.raises(DeploymentError, match="was not deployed: a revision that prottune did not make")
    with refused:
        deployed(kserve, folder, "2")
    assert free(kserve)
    assert spec_of(kserve)["predictor"]["model"]["storageUri"] == "s3://models/other"


def test_what_others_write_between_reading_and_writing_stays(kserve: SmallKServe, folder: Path) -> None:
    deployed(kserve, folder, "1")
    labels = {"cost": "7"}

    class Late(client.ApiClient):
        """Sends each change of the endpoint a little later than somebody else."""

        def call_api(self, path: str, method: str, *args: Any, **kwargs: Any) -> Any:
            if (method, path.rpartition("/")[2]) == ("PUT", NAME) and "labels" not in labelled():
                kserve.cluster.change(SERVICES, NAME, lambda found: found["metadata"].update(labels=labels))
            return super().call_api(path, method, *args, **kwargs)

    def labelled() -> Any:
        return kserve.cluster.get(SERVICES, NAME)["metadata"]

    deployed(kserve, folder, "2", cluster=connected(kserve, Late))
    assert labelled()["labels"] == labels
    assert labelled()["annotations"]["prottune.dev/model-version"] == "2"
    changes = [call.verb for call in kserve.cluster.writes if call.resource == SERVICES]
    assert changes == ["create", "update", "update"], "a conflict, and once more from reading"


def test_a_service_that_prottune_did_not_make_is_what_to_go_back_to(
    kserve: SmallKServe, folder: Path
) -> None:
    model = {"storageUri": "s3://models/other", "ports": [{"containerPort": 8080}]}  # TCP, the server adds
    kserve.cluster.put(SERVICES, {"metadata": {"name": NAME}, "spec": {"predictor": {"model": model}}})
    before = spec_of(kserve)
    kserve.fate = {"2": "wrong"}
    words = "a revision that prottune did not make is back and ready; its answers were not looked at"
    with pytest.raises(DeploymentError, match=words):
        deployed(kserve, folder, "2")
    assert spec_of(kserve) == before
    assert annotations_of(kserve.cluster.get(SERVICES, NAME)) == {}


def test_a_service_in_another_mode_is_refused_before_anything_is_changed(
    kserve: SmallKServe, folder: Path
) -> None:
    deployed(kserve, folder, "1")
    before = spec_of(kserve)
    kserve.cluster.change(SERVICES, NAME, lambda found: found["status"].update(deploymentMode="Knative"))
    with pytest.raises(
        ConfigError, match="is in mode Knative, expected Standard; KServe never changes that, so delete"
    ):
        deployed(kserve, folder, "2")
    assert free(kserve)
    assert spec_of(kserve) == before


def test_a_kserve_that_takes_it_for_another_mode_is_told_apart_at_once(
    kserve: SmallKServe, folder: Path
) -> None:
    kserve.mode, begun = "Serverless", kserve.seconds
    with pytest.raises(
        DeploymentError, match=r"is in mode Serverless, .*so the InferenceService was deleted"
    ):
        deployed(kserve, folder, "1")
    assert kserve.seconds == begun


@pytest.mark.integration
def test_a_deployment_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'kserve', 'kfp'): sys.modules[name] = None\n"
        "import prottune.deployment.stage, prottune.deployment.kserve, prottune.model.golden\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_that_a_cluster_cannot_read_is_refused(kserve: SmallKServe, folder: Path) -> None:
    place = KServeDeployment(connected(kserve))
    with pytest.raises(ConfigError, match="a cluster reads models at s3:// addresses"):
        place.endpoint(folder, str(folder), CONFIG, "1").__enter__()
    assert kserve.cluster.calls == []


def test_a_right_that_is_missing_is_no_service_error_and_changes_nothing(
    kserve: SmallKServe, folder: Path
) -> None:
    kserve.cluster.denied.add(("create", SERVICES))
    with pytest.raises(ConfigError, match=r"403 inferenceservices\.serving\.kserve\.io is forbidden: User"):
        deployed(kserve, folder, "1")
    assert free(kserve)
    assert kserve.cluster.named(SERVICES) == []


def test_a_cluster_without_kserve_is_told_so(kserve: SmallKServe, folder: Path) -> None:
    def unknown(call: Call, sent: Any) -> None:
        if call.resource == SERVICES:
            raise Refused(404, "NotFound", "the server could not find the requested resource")

    kserve.cluster.admit = unknown
    with pytest.raises(ConfigError, match=r"404 .*is what defines such objects installed, and name"):
        deployed(kserve, folder, "1")


def test_an_address_that_is_named_is_asked_instead_of_the_one_told(kserve: SmallKServe, folder: Path) -> None:
    named = replace(CONFIG, endpoint=kserve.url + "/")
    kserve.url, url = "", kserve.url
    try:
        assert deployed(kserve, folder, "1", named) == 0.0
        with pytest.raises(DeploymentError, match="KServe tells no address of it; name one: --endpoint"):
            deployed(kserve, folder, "1")
    finally:
        kserve.url = url


def test_an_interrupted_deployment_puts_the_version_before_back(kserve: SmallKServe, folder: Path) -> None:
    deployed(kserve, folder, "1")
    before = spec_of(kserve)
    place = KServeDeployment(connected(kserve))
    with pytest.raises(KeyboardInterrupt), place.endpoint(folder, "s3://models/2", CONFIG, "2"):
        raise KeyboardInterrupt
    assert spec_of(kserve) == before
    assert free(kserve)


def test_a_deploy_step_that_is_asked_to_end_puts_the_version_before_back(
    kserve: SmallKServe, folder: Path, models: str, tmp_path: Path
) -> None:
    """As a pod is that Kubernetes ends while it waits for the new ones: the run was stopped."""
    deployed(kserve, folder, "1")
    before = spec_of(kserve)
    kserve.fate = {"2": "never"}
    code = (
        "from prottune.deployment.settings import DeployConfig\n"
        "from prottune.deployment.stage import deploy\n"
        "deploy('s3://models/2', DeployConfig(to='kserve'), '2')\n"
    )
    environment = os.environ | {"KUBECONFIG": str(kserve.cluster.kubeconfig(tmp_path / "config"))}
    kserve.cluster.calls.clear()
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as step:
        while step.poll() is None and ("list", "pods") not in asked(kserve):
            time.sleep(0.05)
        assert version_there(kserve) == "2"
        step.terminate()
    assert step.returncode == 128 + signal.SIGTERM
    assert (spec_of(kserve), version_there(kserve)) == (before, "1")
    assert free(kserve)


def asked(kserve: SmallKServe) -> set[tuple[str, str]]:
    return {(call.verb, call.resource) for call in list(kserve.cluster.calls)}


def version_there(kserve: SmallKServe) -> str:
    return str(annotations_of(kserve.cluster.get(SERVICES, NAME))["prottune.dev/model-version"])


def test_the_whole_stage_deploys_what_lies_in_the_store(
    kserve: SmallKServe, models: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kserve.cluster.kubeconfig(tmp_path / "config")))
    report = deploy("minio://models/1", CONFIG, "1")
    assert (report.url, report.num_golden, report.still_running) == (kserve.url, 2, True)
    assert kserve.cluster.named(SERVICES) == [NAME]


def test_a_deployment_asks_for_no_more_than_its_rights(
    kserve: SmallKServe, folder: Path, models: str
) -> None:
    used: set[tuple[str, str]] = set()
    for fates in ({"1": "wrong"}, {}, {"2": "crash"}, {"2": "never"}, {"2": "wrong"}):
        kserve.fate = fates
        kserve.cluster.logs.clear()
        for version in ("1", "2"):
            with pytest.raises(DeploymentError) if version in fates else nullcontext():
                deployed(kserve, folder, version, replace(CONFIG, rollout_seconds=10))
        used |= asked(kserve)
    assert used == RIGHTS
