"""Schedules as files: what `pipelines/schedules/*.yaml` say is what Kubeflow Pipelines runs.

A file holds one schedule:

    name: deeploc-daily            # also the recurring run's name
    graph: finetune                # or predict
    cron: "0 30 2 * * *"           # second minute hour day month weekday, in the server's time (UTC)
    experiment: prottune
    parameters: {source: s3://prottune/data/deeploc1.fasta}

Kubeflow Pipelines cannot change a recurring run and takes two of one name. So the hash of all that decides a
schedule stands in its description: one that is there unchanged is left alone, another is made anew.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_origin

from pipelines.backend import Backend, BackendFlags, Version
from pipelines.compiling import GRAPHS, compiled
from pipelines.images import REGISTRY_VARIABLE, images
from pipelines.parameters import parameters
from pipelines.submitting import check_for_pods
from prottune.errors import ConfigError

FOLDER = Path(__file__).parent / "schedules"
NUM_TIMES = 5
_MARK = "prottune schedule "
_CRON_FIELDS = 6
_PAUSED = "DISABLE"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One file's content."""

    name: str
    cron: str
    graph: str = GRAPHS[0]
    experiment: str = "prottune"
    service_account: str = "prottune-run"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in fields(self):
            kind, value = (Mapping, "a mapping") if entry.name == "parameters" else (str, "a word")
            if not isinstance(found := getattr(self, entry.name), kind):
                raise ConfigError(f"{entry.name}: got {found!r}, expected {value}")
        if self.graph not in GRAPHS:
            raise ConfigError(f"graph: got {self.graph!r}, expected one of {', '.join(GRAPHS)}")
        next_times(self.cron)
        known = parameters(self.graph)
        for name, value in self.parameters.items():
            if name not in known:
                raise ConfigError(f"parameters: {self.graph} has none called {name!r}")
            _check_type(name, value, known[name].annotation)
        missing = [
            name for name, each in known.items() if each.default is each.empty and name not in self.parameters
        ]
        if missing:
            raise ConfigError(f"parameters: {', '.join(missing)} is missing")
        check_for_pods(self.graph, self.parameters)


def read_schedule(path: Path) -> Schedule:
    """Read one file.

    Raises: ConfigError that names the file, and what is wrong in it.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from None
    known = [entry.name for entry in fields(Schedule)]
    if not isinstance(content, dict) or not {"name", "cron"} <= set(content):
        raise ConfigError(f"{path}: expected at least name and cron")
    if strange := [str(name) for name in content if name not in known]:
        raise ConfigError(f"{path}: unknown {', '.join(strange)}; expected {', '.join(known)}")
    try:
        return Schedule(**content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def next_times(cron: str, count: int = NUM_TIMES, after: datetime | None = None) -> list[datetime]:
    """When a schedule starts its next runs, in UTC.

    Raises: ConfigError for an expression that is not of six fields, or never comes true.
    """
    from croniter import CroniterError, croniter

    if len(str(cron).split()) != _CRON_FIELDS:
        raise ConfigError(f"cron: got {cron!r}, expected six fields: second minute hour day month weekday")
    try:
        times = croniter(str(cron).replace("?", "*"), after or datetime.now(UTC), second_at_beginning=True)
        return [times.get_next(datetime) for _ in range(count)]
    except (CroniterError, ValueError) as error:
        raise ConfigError(f"cron: {cron!r}: {error}") from None


def apply(paths: list[Path], flags: BackendFlags) -> list[str]:
    """Put the files' schedules on the server; returns a line each, and one for each of ours in none of them.

    Those are left alone, and so are other people's.

    Raises: ConfigError for a file that is wrong, or whose name another's schedule has, before anything is
        changed.
    """
    wanted = [_with_images(read_schedule(path)) for path in paths]
    names = [schedule.name for schedule in wanted]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two files hold a schedule called {', '.join(twice)}")
    backend = Backend(flags)
    there = _by_name(backend)
    if taken := [name for name in names if not all(map(_is_ours, there.get(name, [])))]:
        raise ConfigError(
            f"somebody else's schedule is called {', '.join(taken)}, as `schedule list` shows; nothing was "
            "changed: rename yours, or `schedule delete` the other"
        )
    versions = {graph: backend.version_of(compiled(graph)) for graph in {each.graph for each in wanted}}
    lines = [_apply_one(backend, each, versions[each.graph], there.get(each.name, [])) for each in wanted]
    others = sorted(name for name in there if name not in names and any(map(_is_ours, there[name])))
    return lines + [
        f"{name}: in none of these files, left as it is (`schedule delete {name}` ends it)" for name in others
    ]


def _with_images(schedule: Schedule) -> Schedule:
    """A schedule with the images of the environment's registry, where its file names none."""
    if not os.environ.get(REGISTRY_VARIABLE):
        return schedule
    return replace(schedule, parameters=images() | dict(schedule.parameters))


def _apply_one(backend: Backend, wanted: Schedule, version: Version, there: list[Any]) -> str:
    description = f"{_MARK}{_digest(wanted, version)}"
    kept = [entry for entry in there if entry.description == description]
    if len(there) == 1 and kept:
        return f"{wanted.name}: unchanged"
    paused = bool(there) and all(entry.mode == _PAUSED for entry in there)
    backend.schedule(
        wanted.name,
        description,
        experiment_id=backend.experiment(wanted.experiment),
        cron_expression=wanted.cron,
        params=dict(wanted.parameters),
        pipeline_id=version.pipeline_id,
        version_id=version.version_id,
        service_account=wanted.service_account or None,
        enabled=not paused,
    )
    for entry in there:  # after the new one is there: a failure between leaves two, and the next apply one
        backend.delete(entry)
    words = "made" if not there else "made anew, paused as it was" if paused else "made anew"
    return f"{wanted.name}: {words}; next run {next_times(wanted.cron, 1)[0]:%Y-%m-%d %H:%M:%S} UTC"


def listed(flags: BackendFlags) -> list[str]:
    """A line for each schedule on the server."""
    lines = []
    for name, entries in sorted(_by_name(Backend(flags)).items()):
        for entry in entries:
            cron = entry.trigger.cron_schedule.cron if entry.trigger and entry.trigger.cron_schedule else "?"
            state = "paused" if entry.mode == _PAUSED else "runs"
            ours = "" if _is_ours(entry) else " (not of these files)"
            lines.append(f"{name}: {cron}, {state}{ours}")
    return lines or ["no schedules"]


def change(name: str, verb: str, flags: BackendFlags) -> str:
    """Pause, resume or delete the schedule of a name; returns a line.

    Raises: ConfigError if there is none.
    """
    backend = Backend(flags)
    there = _by_name(backend).get(name, [])
    if not there:
        raise ConfigError(f"no schedule is called {name!r}; `python -m pipelines schedule list` names them")
    act = {"pause": backend.pause, "resume": backend.resume, "delete": backend.delete}[verb]
    is_done = {"pause": _PAUSED, "resume": "ENABLE", "delete": None}[verb]
    changed = [entry for entry in there if entry.mode != is_done]
    for entry in changed:
        act(entry)
    return f"{name}: {verb}d" if changed else f"{name}: unchanged"


def preview(paths: list[Path]) -> list[str]:
    """The next times of each file's schedule; nothing is asked or sent."""
    lines = []
    for schedule in map(read_schedule, paths):
        lines.append(f"{schedule.name}: {schedule.graph}, {schedule.cron!r}")
        lines += [f"  {time:%Y-%m-%d %H:%M:%S} UTC" for time in next_times(schedule.cron)]
    return lines


def files(paths: list[Path]) -> list[Path]:
    """The files that are named, or all of `pipelines/schedules`.

    Raises: ConfigError if there are none.
    """
    found = paths or sorted(FOLDER.glob("*.yaml"))
    if not found:
        raise ConfigError(f"{FOLDER}: no schedule in it; write one or name a file")
    return found


def _by_name(backend: Backend) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for entry in backend.schedules():
        found.setdefault(str(entry.display_name), []).append(entry)
    return found


def _is_ours(entry: Any) -> bool:
    """Whether `apply` has made a recurring run."""
    return str(entry.description or "").startswith(_MARK)


def _digest(schedule: Schedule, version: Version) -> str:
    content = asdict(schedule) | {"version": version.name}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _check_type(name: str, value: Any, kind: Any) -> None:
    kind = get_origin(kind) or kind  # of dict[str, Any]: dict
    plain: Any = (int, float) if kind is float else kind
    if not isinstance(value, plain) or (kind is not bool and isinstance(value, bool)):
        words = {dict: "an object", list: "a list"}.get(kind, kind.__name__)
        raise ConfigError(f"parameters: {name}: got {value!r}, expected {words}")
