"""Every way prottune refuses, and the exit code that each way ends a program with.

A message is one line that says what was wrong, where (file:line, accession, key), what it got, what
was expected, and what to do when there is one thing to do. Show at most five examples, with the count.
"""

from __future__ import annotations


class ProttuneError(Exception):
    """Base of all errors that prottune raises on purpose; never raised itself."""

    exit_code = 2


class ConfigError(ProttuneError, ValueError):
    """A setting that no stage can work with."""


class DataError(ProttuneError, ValueError):
    """The input breaks a written rule of docs/data.md."""


class ArtifactError(ProttuneError):
    """A folder that a stage reads is missing, partial, damaged or of another format."""


class ServiceError(ProttuneError):
    """Something outside failed (object store, tracking server, endpoint); trying again may help."""

    exit_code = 3


class StorageError(ServiceError):
    """The place that a URI names refused, vanished or answered nonsense; carries the URI."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code
        """The store's own word for why it refused, if it gave one: NoSuchKey, AccessDenied."""


class StoreAwayError(StorageError):
    """The place that a URI names did not answer, or was too busy to; asking again may help at once."""


class HungError(ServiceError):
    """A training process kept the others waiting too long; trying again goes on from the last checkpoint."""


class TrackingError(ServiceError):
    """The MLflow server or registry could not be reached or refused."""


class ClusterError(ServiceError):
    """A Kubernetes API server could not be reached, or somebody else holds what is needed."""


class TrainJobError(ServiceError):
    """A training over several nodes ended without a model; trying again goes on from the last checkpoint."""


class DeploymentError(ServiceError):
    """An endpoint did not become ready or failed its contract test; carries its last words."""


class DivergedError(ProttuneError):
    """Training left the finite numbers; starting again with the same settings ends the same way."""

    exit_code = 4


def error_named(name: str) -> type[ProttuneError]:
    """Find an error class by name, for an error that crossed a process border as text.

    Raises: LookupError for a name that is not in this tree.
    """
    waiting: list[type[ProttuneError]] = [ProttuneError]
    while waiting:
        kind = waiting.pop()
        if kind.__name__ == name:
            return kind
        waiting.extend(kind.__subclasses__())
    raise LookupError(f"no prottune error is called {name!r}")
