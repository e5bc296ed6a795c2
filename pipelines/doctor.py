"""`python -m pipelines doctor`: what would end a run after hours, looked at in seconds before it starts.

Every check looks at one thing and tells what it found and what to do. All go side by side, each within its
time; one that breaks, hangs or may not look says so and stops no other. Nothing is changed anywhere, but for
objects below a prefix of the store that are removed again.
"""

import json
import logging
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.checks import cluster, here, kubeflow, namespace, services
from pipelines.checks.finding import Finding, NotCheckedError, failed
from pipelines.checks.surroundings import DoctorFlags, Surroundings
from prottune.cluster.connection import ForbiddenError
from prottune.errors import ConfigError, ProttuneError, ServiceError

WIDTH = 110


@dataclass(frozen=True)
class Check:
    """One thing to look at."""

    name: str
    look: Callable[[Surroundings], Finding]
    seconds: float = 20.0
    """So long it may take."""


CHECKS = (
    Check("versions", here.versions),
    Check("graphs", here.graphs, 60.0),
    Check("schedules", here.schedules, 60.0),
    Check("manifests", here.manifests, 60.0),
    Check("torch", here.torch, 60.0),
    Check("disk", here.disk),
    Check("store", services.store, 30.0),
    Check("mlflow", services.mlflow),
    Check("cluster", cluster.cluster),
    Check("pipelines", kubeflow.pipelines),
    Check("trainer", kubeflow.trainer, 30.0),
    Check("kserve", kubeflow.kserve, 30.0),
    Check("rights", cluster.rights),
    Check("rights-of-runs", cluster.rights_of_runs),
    Check("gpus", cluster.gpus),
    Check("settings", namespace.settings),
    Check("secrets", namespace.secrets),
    Check("accounts", namespace.accounts),
    Check("runtimes", namespace.runtimes),
    Check("images", namespace.images),
)


def doctor(flags: DoctorFlags) -> int:
    """Make the checks and print what they found; returns the exit code.

    Raises: ConfigError for the name of a check that there is not.
    """
    checks = _chosen(flags.only)
    stdout = sys.stdout  # kfp's client is kept quiet by another one, also where it never comes back
    with _quiet():
        found = findings(checks, Surroundings(flags))
    lines = [as_json(found)] if flags.json else table(found)
    print("\n".join(lines), file=stdout, flush=True)
    sys.stdout = stdout
    return ServiceError.exit_code if any(each.state == "failed" for each in found.values()) else 0


def _chosen(names: str) -> Sequence[Check]:
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [check.name for check in CHECKS]
    if strange := [name for name in wanted if name not in known]:
        raise ConfigError(f"--only: got {', '.join(strange)}, expected some of {', '.join(known)}")
    return [check for check in CHECKS if not wanted or check.name in wanted]


def findings(checks: Sequence[Check], surroundings: Surroundings) -> dict[str, Finding]:
    """Make checks side by side; what each found, by name, in their order."""
    found: dict[str, Finding] = {}

    def make(check: Check) -> None:
        found[check.name] = finding(check, surroundings)

    threads = [threading.Thread(target=make, args=(check,), daemon=True) for check in checks]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for check, thread in zip(checks, threads, strict=True):
        thread.join(max(0.0, begun + check.seconds - time.monotonic()))
    known = dict(found)
    return {check.name: known.get(check.name) or _late(check) for check in checks}


def finding(check: Check, surroundings: Surroundings) -> Finding:
    """Make one check; whatever it raises is told in one line."""
    try:
        return check.look(surroundings)
    except NotCheckedError as error:
        return Finding("not checked", str(error), error.advice)
    except ForbiddenError as error:
        return Finding("not checked", f"not allowed to see it: {error}", "ask an administrator")
    except (ProttuneError, subprocess.TimeoutExpired) as error:
        return failed(" ".join(str(error).split()))
    except Exception as error:  # a bug of a check, or of a library that it asks; the others go on
        return failed(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _late(check: Check) -> Finding:
    return failed(f"no answer within {check.seconds:g} s", "is what it asks overloaded, or out of reach?")


def as_json(found: dict[str, Finding]) -> str:
    """The findings as JSON."""
    entries = [{"check": name, **vars(each)} for name, each in found.items()]
    return json.dumps({"checks": entries}, indent=2)


def table(found: dict[str, Finding]) -> list[str]:
    """The findings as lines of plain text that a terminal does not break."""
    name_width = max(map(len, found))
    lines = []
    for name, each in found.items():
        start = f"{name:{name_width}}  {each.state:11}  "
        lines += _wrapped(each.found, start)
        if each.advice:
            lines += _wrapped(f"-> {each.advice}", " " * len(start))
    return [*lines, "", _summary(found)]


def _wrapped(text: str, start: str) -> list[str]:
    return textwrap.wrap(
        text or "-", WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False
    )


def _summary(found: dict[str, Finding]) -> str:
    states = [each.state for each in found.values()]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(("ok", *states)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep libraries from logging what a finding says."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
