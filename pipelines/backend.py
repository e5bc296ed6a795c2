"""Kubeflow Pipelines as the operator's program speaks to it: few calls, and every refusal in one line."""

import contextlib
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prottune import __version__
from prottune.errors import ConfigError, ServiceError

ADDRESS_VARIABLE = "KF_PIPELINES_ENDPOINT"
"""Environment variable of kfp's own client for the address."""
_POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where a pod finds the token of its own account, if its manifest asks for one."""
_OWN_NAMESPACE = "kubeflow"
"""Where Kubeflow Pipelines itself is: its service is there, whatever the namespace of the runs."""
_PAGE_SIZE = 100


class NotLetInError(ConfigError):
    """Kubeflow Pipelines does not know who asks, or does not let them do this."""


@dataclass(frozen=True, kw_only=True)
class BackendFlags:
    """Which Kubeflow Pipelines, and as whom."""

    host: str = ""
    """Address of Kubeflow Pipelines, as http://localhost:8080; empty: KF_PIPELINES_ENDPOINT, or the service
    inside the cluster."""
    namespace: str = ""
    """Namespace of the runs: a profile of yours, where Kubeflow has several users. A standalone Kubeflow
    Pipelines runs all in its own; empty there."""
    token_file: str = ""
    """File with a bearer token; empty: the pod's own account, or none."""


@dataclass(frozen=True)
class Version:
    """A pipeline version that the backend holds."""

    pipeline_id: str
    version_id: str
    name: str
    is_new: bool
    """Whether it was uploaded just now."""


class Backend:
    """One Kubeflow Pipelines server.

    Its methods raise ConfigError where it refuses what is asked, NotLetInError where it refuses who asks, and
    ServiceError where it does not answer.
    """

    def __init__(self, flags: BackendFlags) -> None:
        """Raises: ConfigError for a token file that is none; ServiceError if nobody answers."""
        self._host = flags.host or os.environ.get(ADDRESS_VARIABLE, "")
        self._namespace = flags.namespace or None
        with self._errors("connect"):
            self._client = _client(self._host, _token(flags.token_file))

    def version(self) -> str:
        """The server's version; empty if it tells none.

        Its API server calls it `tag_name`, its UI in front of that `apiServerTagName`.
        """
        with self._errors("version"):
            api = self._client.healthzs.api_client
            said = api.call_api(
                "/apis/v1beta1/healthz",
                "GET",
                header_params={"Accept": "application/json"},
                response_type="object",
                auth_settings=["Bearer"],
                _return_http_data_only=True,
            )
        return str(said.get("apiServerTagName") or said.get("tag_name") or "")

    def version_of(self, package: Path) -> Version:
        """Find the version with the content of a compiled graph, or upload it.

        Its name holds the content's hash, so the same content is uploaded once, whoever submits it.
        """
        import yaml

        content = package.read_bytes()
        pipeline = next(yaml.load_all(content, yaml.CSafeLoader))["pipelineInfo"]["name"]
        name = f"{__version__}-{hashlib.sha256(content).hexdigest()[:12]}"
        with self._errors(f"pipeline {pipeline}"):
            pipeline_id = self._pipeline_called(pipeline) or self._new_pipeline(pipeline)
            for found in self._pages("pipeline_versions", self._client.list_pipeline_versions, pipeline_id):
                if found.display_name == name:
                    return Version(pipeline_id, found.pipeline_version_id, name, is_new=False)
            made = self._client.upload_pipeline_version(str(package), name, pipeline_id=pipeline_id)
        return Version(pipeline_id, made.pipeline_version_id, name, is_new=True)

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made if it is not there."""
        with self._errors(f"experiment {name}"):
            return str(self._client.create_experiment(name, namespace=self._namespace).experiment_id)

    def start(
        self, version: Version, experiment_id: str, name: str, values: Mapping[str, Any], service_account: str
    ) -> str:
        """Start a run; returns its id."""
        with self._errors(f"run {name}"):
            made = self._client.run_pipeline(
                experiment_id,
                name,
                params=dict(values),
                pipeline_id=version.pipeline_id,
                version_id=version.version_id,
                service_account=service_account or None,
            )
        return str(made.run_id)

    def run(self, run_id: str) -> Any:
        """A run as it is now."""
        with self._errors(f"run {run_id}"):
            return self._client.get_run(run_id)

    def run_page(self, run_id: str) -> str:
        """Address of a run's page in the UI."""
        return f"{self._host or 'the Kubeflow Pipelines UI'}/#/runs/details/{run_id}"

    def schedules(self) -> list[Any]:
        """All recurring runs."""
        with self._errors("schedules"):
            return list(
                self._pages("recurring_runs", self._client.list_recurring_runs, namespace=self._namespace)
            )

    def schedule(self, name: str, description: str, **what: Any) -> None:
        """Make a recurring run; missed times are not made up for, and one run goes at a time."""
        with self._errors(f"schedule {name}"):
            self._client.create_recurring_run(
                job_name=name, description=description, no_catchup=True, max_concurrency=1, **what
            )

    def pause(self, schedule: Any) -> None:
        """Let a recurring run start no further runs."""
        with self._errors(f"schedule {schedule.display_name}"):
            self._client.disable_recurring_run(schedule.recurring_run_id)

    def resume(self, schedule: Any) -> None:
        """Let a paused recurring run go on."""
        with self._errors(f"schedule {schedule.display_name}"):
            self._client.enable_recurring_run(schedule.recurring_run_id)

    def delete(self, schedule: Any) -> None:
        """Remove a recurring run; runs that it started stay."""
        with self._errors(f"schedule {schedule.display_name}"):
            self._client.delete_recurring_run(schedule.recurring_run_id)

    def _pipeline_called(self, name: str) -> str:
        """The id of the namespace's own pipeline of a name; empty if there is none.

        kfp's `get_pipeline_id` names no namespace, so where Kubeflow has several users it sees only what all
        of them share, and never what `_new_pipeline` has made.
        """
        wanted = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]}
        page = self._client.list_pipelines(namespace=self._namespace, filter=json.dumps(wanted))
        return str(page.pipelines[0].pipeline_id) if page.pipelines else ""

    def _new_pipeline(self, name: str) -> str:
        import kfp_server_api

        entry = kfp_server_api.V2beta1Pipeline(display_name=name, namespace=self._namespace)
        return str(self._client.pipelines.pipeline_service_create_pipeline(entry).pipeline_id)

    def _pages(self, field: str, listing: Any, *words: Any, **more: Any) -> Iterator[Any]:
        token = ""
        while True:
            page = listing(*words, page_token=token, page_size=_PAGE_SIZE, **more)
            yield from getattr(page, field) or []
            token = page.next_page_token
            if not token:
                return

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        import kfp_server_api
        import urllib3

        where = self._host or "Kubeflow Pipelines inside the cluster"
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # kfp's client prints links of its own
                yield
        except kfp_server_api.ApiException as error:
            said = f"{where}: {what}: {error.status} {_reason(error)}"
            if error.status in (401, 403):
                raise NotLetInError(
                    f"{said}; give --token-file, or --namespace of a profile of yours"
                ) from None
            raise (ConfigError if error.status in (400, 404) else ServiceError)(said) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            why = _first_line(error).rsplit(": ", 1)[-1].strip("')\"")
            raise ServiceError(f"{where}: {what}: no answer ({why})") from None
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{where}: {what}: {_first_line(error)}") from None


def _client(host: str, token: str) -> Any:
    import kfp

    class Client(kfp.Client):  # type: ignore[misc]
        """kfp's client; its own asks five times for a server's health and logs a traceback each.

        And, with a kubeconfig, each look at the token makes it forget the way through the API server.
        """

        def _load_config(self, *words: Any, **more: Any) -> Any:
            config = super()._load_config(*words, **more)
            refresh, address = config.refresh_api_key_hook, config.host

            def refreshed(found: Any) -> None:
                refresh(found)
                found.host = address

            if refresh is not None:
                config.refresh_api_key_hook = refreshed
            return config

        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
            return self.healthzs.healthz_service_get_healthz()

    credentials = None
    if not token and _POD_TOKEN.exists():
        credentials = kfp.client.ServiceAccountTokenVolumeCredentials(str(_POD_TOKEN))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "only works with KFP 2": so do we
        return Client(
            host=host or None,
            namespace=_OWN_NAMESPACE,
            existing_token=token or None,
            credentials=credentials,
        )


def _token(path: str) -> str:
    if not path:
        return ""
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"--token-file {path}: {error.strerror}") from None
    if not token or any(character.isspace() for character in token):
        raise ConfigError(f"--token-file {path}: expected one token and nothing else")
    return token


def _reason(error: Any) -> str:
    try:
        said = json.loads(error.body or "{}")
        return str(said.get("error_message") or said.get("message") or said.get("error") or error.reason)[
            :300
        ]
    except (ValueError, AttributeError):
        return str(error.reason)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
