"""How prottune reaches a Kubernetes API server, and what it asks again when it gets no answer.

Reads are repeated until the server answers. A write is never just repeated: its answer may have been lost
after it took effect. `Cluster.settle` reads, decides and writes, and starts over from reading.
"""

from __future__ import annotations

import json
import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from prottune.cluster.objects import PODS, Object, Resource
from prottune.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient
    from kubernetes.client.rest import ApiException

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts a pod's token and the name of its namespace."""
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
PATIENCE_SECONDS = 120.0
"""How long a call is repeated that gets no answer."""
_ONLY_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 8.0
_REFUSE_UNKNOWN_FIELDS = {"fieldValidation": "Strict"}
"""Without it an API server drops a field that it does not know, and only an HTTP header says so.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation"""
_NO_FINAL_ANSWER = (0, 401, 408, 410, 429)
"""Statuses after which the same question may be answered, beside all from 500 on."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class UnansweredError(ClusterError):
    """A call that got no answer, or one that is not final; it may have taken effect."""

    retry_after_seconds = 0.0


class ConflictError(UnansweredError):
    """What was to be written has been changed by somebody else since it was read."""


class ForbiddenError(ConfigError):
    """Who asks has no right to this."""


class MissingError(ClusterError):
    """The API server keeps nothing under this name, or has never heard of this kind of object."""


def in_cluster() -> bool:
    """Whether this program runs in a pod that may talk to its cluster."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (SERVICE_ACCOUNT / "token").is_file()


def connect(namespace: str = "", *, patience_seconds: float = PATIENCE_SECONDS) -> Cluster:
    """The cluster of this pod, else the current one of the kubeconfig.

    `namespace` is empty for the pod's own, or the kubeconfig's. A call that gets no answer is repeated for
    `patience_seconds`.

    Raises: ConfigError if there is no cluster to reach from here, or no namespace.
    """
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        if in_cluster():
            config.load_incluster_config(client_configuration=settings)
            found = (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        else:
            file = os.environ.get("KUBECONFIG")  # the client looks for it only when it is imported
            config.load_kube_config(file, client_configuration=settings)
            found = config.list_kube_config_contexts(file)[1]["context"].get("namespace", "default")
    except (config.ConfigException, OSError) as error:
        raise ConfigError(
            f"no cluster to reach from here ({' '.join(str(error).split())}); run in a pod with a service "
            "account, or name a kubeconfig (KUBECONFIG)"
        ) from error
    settings.retries = False  # we decide what is asked again
    return Cluster(client.ApiClient(settings), namespace or found, patience_seconds=patience_seconds)


class Cluster:
    """One namespace of a cluster. A call raises ClusterError when the server is away for two minutes, and
    ConfigError when it refuses for good (ForbiddenError for a right that is missing; an object that no
    webhook lets through)."""

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        *,
        read_seconds: float = READ_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._timeout = (CONNECT_SECONDS, read_seconds)  # a pair: the client ignores a lone float
        self._patience_seconds = patience_seconds
        self.namespace = namespace
        self.now, self.sleep = now, sleep

    @property
    def address(self) -> str:
        """Where the API server listens."""
        return str(self._client.configuration.host)

    def read(self, path: str) -> Any:
        """What the API server says at an address of its own, as /version.

        Raises: MissingError if it has nothing there.
        """
        return self._persist(lambda: self._ask("GET", path))

    def review(self, path: str, question: Object) -> Object:
        """Ask what is answered by an object and changes nothing: an access review."""
        answered: Object = self._persist(lambda: self._ask("POST", path, body=question))
        return answered

    def metadata(self, resource: Resource, name: str) -> Object | None:
        """Name, labels and annotations of one object, never its content; None if there is none of that name.

        A secret's values are not sent at all.
        """
        path = resource.path(self.namespace, name)
        try:
            found = self._persist(lambda: self._ask("GET", path, accept=_ONLY_METADATA))
        except MissingError:
            return None
        return dict(found["metadata"])

    def get(self, resource: Resource, name: str) -> Object | None:
        """One object; None if there is none of that name."""
        return self._persist(lambda: self._get(resource, name))

    def list(self, resource: Resource, *, labels: str = "", fields: str = "") -> list[Object]:
        """All objects whose labels and fields are as `name=value,name=value` says."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        found = self._persist(lambda: self._ask("GET", resource.path(self.namespace), query))
        items: list[Object] = found["items"]
        return items

    def settle(
        self, resource: Resource, name: str, should_be: Callable[[Object | None], Object | None]
    ) -> Object | None:
        """Make an object what it should be; returns what is there then.

        `should_be` gets what is there (None: nothing) and returns what should be there (None: nothing). What
        it returns unchanged is not written. It is asked again after a conflict and after an answer that was
        lost, so it decides by what it sees; what it raises ends the matter.
        """

        def once() -> Object | None:
            found = self._get(resource, name)
            wanted = should_be(deepcopy(found))
            if wanted == found:
                return found
            if found is None:
                return self._write("POST", resource.path(self.namespace), wanted)
            if wanted is None:
                self._delete(resource, found)
                return None
            return self._write("PUT", resource.path(self.namespace, name), wanted)

        return self._persist(once)

    def log(
        self, pod: str, container: str, *, lines: int = 0, previous: bool = False, since: str | None = None
    ) -> str:
        """The end of a container's log, or all of it (0 lines); empty if there is none to be had now.

        With `since` (empty: from the beginning) each line has its time before it, and none is from an earlier
        second than that.
        """
        query = {"container": container, "previous": str(previous).lower()}
        query["tailLines"] = str(lines) if lines else ""
        if since is not None:
            query |= {"timestamps": "true", "sinceTime": since}
        try:
            path = PODS.path(self.namespace, pod, "log")
            return str(self._ask("GET", path, query, answer="str"))
        except (ClusterError, ConfigError) as error:  # asked for to explain a failure, not to make another
            _log.info("no log of %s/%s: %s", pod, container, error)
            return ""

    def _get(self, resource: Resource, name: str) -> Object | None:
        try:
            found: Object = self._ask("GET", resource.path(self.namespace, name))
        except MissingError:
            return None
        return found

    def _write(self, method: str, path: str, content: Object | None) -> Object:
        try:
            written: Object = self._ask(method, path, _REFUSE_UNKNOWN_FIELDS, content)
        except MissingError as error:
            if method == "PUT":  # deleted since it was read
                raise ConflictError(str(error)) from error
            raise ConfigError(
                f"{error}; is what defines such objects installed, and namespace {self.namespace!r} there?"
            ) from error
        return written

    def _delete(self, resource: Resource, found: Object) -> None:
        metadata = found["metadata"]
        if metadata.get("deletionTimestamp"):
            return
        only = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        try:
            path = resource.path(self.namespace, metadata["name"])
            self._ask("DELETE", path, body={"preconditions": only})
        except MissingError:
            return

    def _persist(self, ask: Callable[[], T]) -> T:
        """Ask until there is a final answer, with growing pauses, each of a random length."""
        deadline, longest = self.now() + self._patience_seconds, _FIRST_PAUSE_SECONDS
        while True:
            try:
                return ask()
            except UnansweredError as error:
                pause = max(longest * random.uniform(0.5, 1), error.retry_after_seconds)  # noqa: S311
                if self.now() + pause > deadline:
                    raise ClusterError(f"{error}; given up after {self._patience_seconds:.0f} s") from error
                _log.info("%s; asked again in %.1f s", error, pause)
            self.sleep(pause)
            longest = min(2 * longest, _LONGEST_PAUSE_SECONDS)

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        answer: str = "object",
        accept: str = "*/*",
    ) -> Any:
        """One request, once."""
        from kubernetes.client.rest import ApiException
        from urllib3.exceptions import HTTPError

        where = f"{method} {self._client.configuration.host}{path}"
        try:
            return self._client.call_api(
                path,
                method,
                query_params=[(name, value) for name, value in (query or {}).items() if value],
                header_params={"Accept": accept, "Content-Type": "application/json"},
                body=body,
                response_type=answer,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=self._timeout,
            )
        except ApiException as error:
            raise _explained(where, error) from error
        except (HTTPError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UnansweredError(f"{where}: {type(error).__name__} ({reason})") from error


def _explained(where: str, error: ApiException) -> ClusterError | ConfigError:
    """The error that a refusal of the API server means, in one line."""
    try:
        reason = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        reason = error.body or error.reason
    line = f"{where}: {error.status} {' '.join(str(reason).split())[:500]}"
    if error.status == 403:
        return ForbiddenError(line)
    if error.status == 404:
        return MissingError(line)
    if error.status == 409:
        return ConflictError(line)
    if error.status in _NO_FINAL_ANSWER or error.status >= 500:
        unanswered = UnansweredError(line)
        wait = str((error.headers or {}).get("Retry-After", ""))
        unanswered.retry_after_seconds = float(wait) if wait.isdigit() else 0.0
        return unanswered
    return ConfigError(line)
