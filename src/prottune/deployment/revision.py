"""A revision of the endpoint: which model, of which version, with how many pods, as KServe is told.

Names of KServe and of our ServingRuntime are written here once; `manifests/` brings the runtime and the
service account.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from prottune.addresses import s3_uri
from prottune.artifacts import read_manifest
from prottune.cluster.objects import GPU, INFERENCE_SERVICES, Object, annotations_of, covers
from prottune.deployment.contract import MODEL_NAME
from prottune.deployment.settings import DeployConfig
from prottune.errors import ConfigError
from prottune.model.description import read_facts

RUNTIME = "prottune"
"""Name of the ServingRuntime that `manifests/` brings."""
MODE_ANNOTATION, MODE = "serving.kserve.io/deploymentMode", "Standard"
"""Always said: what a cluster does without it differs from install to install."""
_MODES = ("", MODE, "RawDeployment")
"""What KServe says of the mode: nothing yet, its name, the name that it had before."""
PREFIX = "prottune.dev/"
REVISION_ANNOTATION = f"{PREFIX}revision"
"""On the predictor's pods: tells those of one revision from those of another."""
VERSION_ANNOTATION = f"{PREFIX}model-version"
MODEL_DIGEST_ANNOTATION = f"{PREFIX}model-digest"
DATASET_DIGEST_ANNOTATION = f"{PREFIX}dataset-digest"
GRACE_SECONDS = 45
"""A pod that goes has this time: longer than its server drains (`ServeConfig.drain_seconds`)."""
_OLD_AND_NEW = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
"""No pod of the old revision goes before a new one is ready."""


@dataclass(frozen=True)
class Revision:
    """What an InferenceService says of one revision: its spec, and the annotations that are ours."""

    spec: Object
    annotations: dict[str, str]

    @classmethod
    def of_model(cls, folder: Path, model_uri: str, config: DeployConfig, model_version: str) -> Self:
        """The revision that serves a model folder, which lies at `model_uri` for the cluster.

        Raises: ConfigError if the cluster cannot read that address.
        """
        uri = s3_uri(model_uri)
        if not uri.startswith("s3://"):
            raise ConfigError(
                f"{uri}: a cluster reads models at s3:// addresses; upload the model, or take to=local"
            )
        manifest = read_manifest(folder, "train")
        told = {
            MODE_ANNOTATION: MODE,
            VERSION_ANNOTATION: model_version,
            MODEL_DIGEST_ANNOTATION: manifest.digest,
            DATASET_DIGEST_ANNOTATION: str(read_facts(folder).get("dataset_digest", "")),
        }
        spec = predictor(uri, config, model_version)
        content = json.dumps([spec, told], sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()[:16]
        return cls({"predictor": spec | {"annotations": {REVISION_ANNOTATION: name}}}, told)

    @classmethod
    def on(cls, service: Object) -> Self:
        """The revision that an InferenceService is on, whoever has put it there."""
        ours = {name: value for name, value in annotations_of(service).items() if _is_ours(name)}
        return cls(service["spec"], ours)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what `text` wrote; None stands for no revision at all."""
        content = json.loads(text)
        return cls(**content) if content else None

    @property
    def text(self) -> str:
        return json.dumps({"spec": self.spec, "annotations": self.annotations}, sort_keys=True)

    @property
    def name(self) -> str:
        """What its pods carry; empty for a revision that prottune did not make."""
        return annotations_of(self.spec.get("predictor", {})).get(REVISION_ANNOTATION, "")

    @property
    def version(self) -> str:
        return self.annotations.get(VERSION_ANNOTATION, "")

    @property
    def model_uri(self) -> str:
        return str(self.spec["predictor"].get("model", {}).get("storageUri", ""))

    @property
    def replicas(self) -> int:
        return int(self.spec["predictor"].get("minReplicas") or 1)

    def __str__(self) -> str:
        return f"version {self.version}" if self.version else "a revision that prottune did not make"

    def is_on(self, service: Object) -> bool:
        """Whether an InferenceService says all that this revision says."""
        told = self.annotations.items() <= annotations_of(service).items()
        return told and covers(service["spec"], self.spec)

    def put_on(self, service: Object | None) -> Object:
        """The InferenceService on this revision; labels and annotations of others stay as they are."""
        metadata = {"name": MODEL_NAME} if service is None else service["metadata"]
        others = {name: value for name, value in annotations_of(service or {}).items() if not _is_ours(name)}
        metadata = metadata | {"annotations": others | self.annotations}
        return (service or {}) | {
            "apiVersion": INFERENCE_SERVICES.api_version,
            "kind": INFERENCE_SERVICES.kind,
            "metadata": metadata,
            "spec": self.spec,
        }


def check_mode(service: Object) -> None:
    """Raises: ConfigError if KServe runs an InferenceService in another mode than Standard."""
    mode = service.get("status", {}).get("deploymentMode", "")
    if mode not in _MODES:
        raise ConfigError(
            f"InferenceService {MODEL_NAME} is in mode {mode}, expected {MODE}; KServe never changes that, "
            "so delete it first (a new one that is in another mode means a KServe before 0.16)"
        )


def predictor(uri: str, config: DeployConfig, model_version: str) -> Object:
    """What an InferenceService says of the pods that serve the model at an s3:// address."""
    model: Object = {
        "modelFormat": {"name": "prottune", "version": "1"},
        "runtime": RUNTIME,
        "protocolVersion": "v2",
        "storageUri": uri,
        "args": [f"--model-version={model_version}"],
    }
    if resources := _resources(config):
        model["resources"] = resources
    return {
        "minReplicas": config.replicas,
        "maxReplicas": config.replicas,
        "serviceAccountName": config.service_account,
        "automountServiceAccountToken": False,
        "deploymentStrategy": _OLD_AND_NEW,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "model": model,
    }


def _resources(config: DeployConfig) -> Object:
    """What the settings ask for; what they leave open is as the ServingRuntime says."""
    gpus = {GPU: str(config.serving_gpus)} if config.serving_gpus else {}
    memory = {"memory": config.memory} if config.memory else {}
    requests = ({"cpu": config.cpu} if config.cpu else {}) | memory | gpus
    asked = {"requests": requests, "limits": memory | gpus}
    return {name: amounts for name, amounts in asked.items() if amounts}


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX) or name == MODE_ANNOTATION
