"""checkov on all that a cluster is given: no check fails, but for those named here with a reason.

It knows Deployments and Pods, and passes over custom resources in silence; so their pods are shown to it as
plain Pods. It has an environment of its own (`make integration` makes it) and asks nobody.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from planted import FAULTS
from pods import Pod, plain_pod, pods_of
from rendering import OVERLAYS, rendered

from prottune.deployment.revision import predictor
from prottune.deployment.settings import DeployConfig

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).parents[2] / ".venv-checkov/bin/checkov"

ACCEPTED = {
    (
        "CKV_K8S_11",
        "",
    ): "no limit of processors: it slows a pod down while they lie idle; requests share them",
    ("CKV_K8S_15", ""): "images are pulled if they are not there: their names hold a version or a digest",
    ("CKV_K8S_35", ""): "the programs that need keys read them from their environment",
    ("CKV_K8S_43", ""): "digests are those of the operator's registry, and go into an overlay (example)",
    ("CKV_K8S_8", "in-trainingruntime"): "a training ends by itself, and the others end one that hangs",
    ("CKV_K8S_9", "in-trainingruntime"): "nobody asks a training anything",
    ("CKV_K8S_29", "in-servingruntime"): "a ServingRuntime has no place for it; its container says all of it",
}
"""Check of checkov that fails on purpose, and in which resources (part of the name; empty: all) -> why."""


@dataclass(frozen=True)
class Scan:
    """What checkov said of a folder."""

    failed: set[tuple[str, str, str]]
    """Check, resource, and what the check asks for."""
    seen: set[str]
    """Resources that some check has looked at, as `StatefulSet.kubeflow.prottune-database`."""


def scanned(folder: Path) -> Scan:
    """Scan a folder of manifests; whomever checkov would ask on the way does not answer."""
    if not PROGRAM.is_file():
        refuse = pytest.fail if "checkov" in os.environ.get("PROTTUNE_REQUIRED_TIERS", "") else pytest.skip
        refuse("not run here: checkov: `make integration` installs it into .venv-checkov")
    nowhere = "http://127.0.0.1:9"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BC_", "CKV_"))}
    alone = {"HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "https_proxy": nowhere, "LOG_LEVEL": "ERROR"}
    words = ["--directory", str(folder), "--framework", "kubernetes", "--output", "json", "--skip-download"]
    said = subprocess.run(
        [PROGRAM, *words], capture_output=True, text=True, check=False, env=kept | alone, cwd=folder
    )
    assert said.returncode in (0, 1), said.stderr
    report = json.loads(said.stdout)
    assert report["summary"]["parsing_errors"] == 0
    results = report["results"]
    return Scan(
        {(each["check_id"], each["resource"], each["check_name"]) for each in results["failed_checks"]},
        {each["resource"] for kind in ("failed_checks", "passed_checks") for each in results[kind]},
    )


def shown(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All objects, and the pods inside custom resources once more as plain Pods."""
    hidden = [each for each in documents if each["kind"].endswith("Runtime")]
    return documents + [
        plain_pod(as_joined(pod), f"in-{each['kind'].lower()}", each["metadata"]["namespace"])
        for each in hidden
        for pod in pods_of(each)
    ]


def as_joined(pod: Pod) -> Pod:
    """A pod of ours; KServe joins what a ServingRuntime says of it with the deployment's InferenceService."""
    if not pod.where.startswith("ServingRuntime"):
        return pod
    return Pod(pod.where, {**pod.spec, **predictor("s3://b/m", DeployConfig(), "1")}, pod.labels)


def written(folder: Path, documents: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(documents))
    return folder


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Scan:
    """Every overlay, in one go: checkov takes seconds to start."""
    scratch = tmp_path_factory.mktemp("checkov")
    for name in OVERLAYS:
        written(scratch / name, shown(rendered(name, scratch / "copies")))
    for copy in (scratch / "copies").iterdir():
        shutil.rmtree(copy)
    return scanned(scratch)


def test_no_check_fails_but_those_that_are_accepted(scan: Scan) -> None:
    refused = [
        failed
        for failed in sorted(scan.failed)
        if not any(check == failed[0] and part in failed[1] for check, part in ACCEPTED)
    ]
    assert refused == []


def test_nothing_is_accepted_that_does_not_fail(scan: Scan) -> None:
    for check, part in ACCEPTED:
        assert any(check == failed and part in resource for failed, resource, _ in scan.failed), check


def test_every_pod_was_looked_at(scan: Scan) -> None:
    for namespace in ("kubeflow", "prottune"):
        pods = ("Deployment", "prottune-mlflow"), ("StatefulSet", "prottune-database")
        hidden = ("Pod", "in-servingruntime"), ("Pod", "in-trainingruntime")
        assert {f"{kind}.{namespace}.{name}" for kind, name in pods + hidden} <= scan.seen
    assert "StatefulSet.kubeflow.prottune-store" in scan.seen


def test_planted_faults_are_found(tmp_path: Path) -> None:
    documents = rendered("gpu", tmp_path)
    (pod,) = (pod for each in documents if each["kind"] == "TrainingRuntime" for pod in pods_of(each))
    planted = [
        plain_pod(Pod(pod.where, fault.planted(pod.spec)), f"planted-{number}", "kubeflow")
        for number, fault in enumerate(FAULTS)
    ]
    found = {
        (check, resource) for check, resource, _ in scanned(written(tmp_path / "planted", planted)).failed
    }
    missed = [
        fault
        for number, fault in enumerate(FAULTS)
        if not any(check == fault.check and f".planted-{number}" in resource for check, resource in found)
    ]
    assert missed == []
