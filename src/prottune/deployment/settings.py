"""Settings and report of deployment."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prottune.errors import ConfigError
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE

_NAME = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
"""What Kubernetes takes for a name."""


@dataclass(frozen=True, kw_only=True)
class DeployConfig:
    """Where a model is served and how strictly its endpoint is checked."""

    to: str = "auto"
    """auto (kserve in a pod of a cluster for a model in the store, else local), local (a server on this
    machine, checked and stopped again), or kserve (a cluster)."""
    max_probability_difference: float = MAX_GOLDEN_DIFFERENCE
    """Largest difference between a golden probability and the endpoint's answer."""
    ready_timeout_seconds: int = 120
    """A local endpoint must be ready within this time."""
    rollout_seconds: int = 1200
    """In a cluster all pods must be ready within this time: a node, the image, the model."""
    replicas: int = 1
    """Pods that serve in a cluster; with two or more a node may fail."""
    serving_gpus: int = 0
    """GPUs of each pod that serves in a cluster; 0: as the ServingRuntime says."""
    cpu: str = ""
    """Processor of each pod that serves in a cluster, as 2 or 500m; empty: as the ServingRuntime says."""
    memory: str = ""
    """Memory of each pod that serves in a cluster, as 8Gi; empty: as the ServingRuntime says."""
    namespace: str = ""
    """Namespace that serves; empty: this pod's own, or the kubeconfig's."""
    service_account: str = "prottune-serve"
    """Account of the pods that serve; KServe fetches the model with its secret."""
    endpoint: str = ""
    """Address at which the cluster's endpoint is checked; empty: the one that KServe tells."""

    def __post_init__(self) -> None:
        if self.to not in ("auto", "local", "kserve"):
            raise ConfigError(f"to={self.to!r}: expected one of auto, local, kserve")
        if not 0 < self.max_probability_difference < 1:
            raise ConfigError(
                f"max_probability_difference={self.max_probability_difference}: expected between 0 and 1"
            )
        if self.ready_timeout_seconds < 1:
            raise ConfigError(f"ready_timeout_seconds={self.ready_timeout_seconds}: expected at least 1")
        self._check_cluster()

    def _check_cluster(self) -> None:
        for name, least in (("rollout_seconds", 1), ("replicas", 1), ("serving_gpus", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least {least}")
        for name, pattern, example in (
            ("cpu", r"|[1-9]\d*m?", "2 or 500m"),
            ("memory", r"|[1-9]\d*[MG]i", "8Gi or 512Mi"),
            ("namespace", rf"|{_NAME}", "a namespace's name"),
            ("service_account", _NAME, "a service account's name"),
            ("endpoint", r"|https?://\S+", "an http:// or https:// address"),
        ):
            if not re.fullmatch(pattern, value := getattr(self, name)):
                raise ConfigError(f"{name}={value!r}: expected {example}")


@dataclass(frozen=True, kw_only=True)
class DeployReport:
    """What was deployed and what its endpoint answered."""

    url: str
    model_version: str
    num_golden: int
    largest_difference: float
    seconds_to_ready: float
    still_running: bool
    """False for a local endpoint: it is checked and stopped."""
