"""What the checks share: the operator's flags, and the cluster, which is reached once."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.backend import BackendFlags
from pipelines.checks.finding import NotCheckedError
from pipelines.images import images
from prottune.cluster.connection import Cluster, connect, in_cluster
from prottune.errors import ConfigError, ProttuneError

PATIENCE_SECONDS = 1.0
"""How long a call to the API server is repeated; a check has no minutes."""


@dataclass(frozen=True, kw_only=True)
class DoctorFlags(BackendFlags):
    """Which cluster, which servers, and what the next run will ask for."""

    json: bool = False
    """Print JSON instead of a table."""
    only: str = ""
    """Names of the checks to make, with commas between; empty: all."""
    store: str = ""
    """s3:// prefix below which the store is tried; empty: where Kubeflow Pipelines keeps artifacts, as
    manifests/base/kfp-launcher.yaml says."""
    num_gpus: int | None = None
    """GPUs of a pod that computes, as for submit; None: as many as submit asks for if nothing is said."""
    light_image: str = field(default_factory=lambda: images()["light_image"])
    """Image of the steps without torch, as for submit."""
    torch_image: str = field(default_factory=lambda: images()["torch_image"])
    """Image of the steps with torch, as for submit."""
    runs: Path = Path("runs")
    """Folder that keeps the runs of this machine."""


class Surroundings:
    """Where the doctor looks from."""

    def __init__(self, flags: DoctorFlags) -> None:
        self.flags = flags
        self.in_pod = in_cluster()
        """Whether the doctor has the account that a step would have."""
        self._lock = threading.Lock()
        self._reached: tuple[Cluster, str] | ProttuneError | None = None

    def reached(self) -> tuple[Cluster, str]:
        """The cluster and its version.

        Raises: NotCheckedError if there is none to reach from here; ClusterError or ConfigError if it does
            not answer.
        """
        with self._lock:
            if self._reached is None:
                self._reached = self._reach()
        if isinstance(self._reached, ProttuneError):
            raise self._reached
        return self._reached

    def cluster(self) -> Cluster:
        """The cluster, for whoever only wants to ask it something.

        Raises: NotCheckedError if there is none, or it does not answer.
        """
        try:
            return self.reached()[0]
        except NotCheckedError as error:
            raise NotCheckedError(str(error).partition(" (")[0]) from error
        except ProttuneError as error:
            raise NotCheckedError("the API server does not answer (see cluster)") from error

    def _reach(self) -> tuple[Cluster, str] | ProttuneError:
        try:
            cluster = connect(self.flags.namespace, patience_seconds=PATIENCE_SECONDS)
        except ConfigError as error:
            why, _, advice = str(error).rpartition("; ")
            return NotCheckedError(why, advice)
        try:
            return cluster, str(cluster.read("/version").get("gitVersion", "of an unknown version"))
        except ProttuneError as error:
            return error
