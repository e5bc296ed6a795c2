"""Checks of this machine: they need no cluster and no server."""

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipelines.checks.finding import Finding, NotCheckedError, failed, listed, ok, warning
from pipelines.checks.surroundings import Surroundings
from pipelines.compiling import GRAPHS, compile_graph, compiled
from prottune import __version__

ROOT = Path(__file__).resolve().parents[2]
LEAST_FREE_GB = 20
"""Three checkpoints of ProtBERT of 6 GB each (docs/reliability.md), one being written, and the model."""
_TORCH_SECONDS = 60
_ASK_TORCH = (
    "import torch; print(torch.__version__, torch.version.cuda or '', torch.cuda.device_count(), "
    "torch.cuda.get_device_name(0) if torch.cuda.is_available() else '', sep='|')"
)


def versions(_: Surroundings) -> Finding:
    """Whether Python and the packages are the ones that prottune was tested with."""
    return judged_versions(ROOT)


def judged_versions(root: Path) -> Finding:
    """Compare what is installed with the requirements of a checkout.

    Raises: NotCheckedError if it is none.
    """
    from packaging.specifiers import SpecifierSet

    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        wanted = [pinned(root / f"requirements/{name}.in") for name in ("light", "pipelines", "torch")]
    except OSError as error:
        raise NotCheckedError(f"{error.filename}: not there, so this is no checkout") from None
    needed, of_torch = wanted[0] | wanted[1] | {"prottune": __version__}, wanted[2]
    python = ".".join(map(str, sys.version_info[:3]))
    wrong = [f"Python {python}, expected {project['requires-python']}"]
    if python in SpecifierSet(project["requires-python"]):
        wrong = []
    others, told = _differences(needed), "requirements/set-up.sh .venv installs what is expected"
    if wrong or others:
        return failed(listed(wrong + others), told)
    if others := _differences(of_torch):
        return warning(f"for training and serving on this machine: {listed(others)}", told)
    told = f"Python {python}, prottune {__version__}, kfp {needed['kfp']}"
    return ok(f"{told}; {len(needed) + len(of_torch)} packages as required")


def pinned(path: Path) -> dict[str, str]:
    """Package -> the one version that a file takes; others are not fixed by it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [found for line in lines if (found := re.match(r"([\w-]+)==(\S+)", line))]
    return {found[1]: found[2] for found in pins}


def _differences(wanted: dict[str, str]) -> list[str]:
    lines = []
    for name, expected in wanted.items():
        try:
            found = version(name).partition("+")[0]  # 2.13.0+cpu is 2.13.0
        except PackageNotFoundError:
            found = "missing"
        if found != expected:
            lines.append(f"{name} {found}, expected {expected}")
    return lines


def graphs(_: Surroundings) -> Finding:
    """Whether the committed graphs are what the sources would compile to."""
    return judged_graphs({graph: compiled(graph) for graph in GRAPHS})


def judged_graphs(committed: dict[str, Path]) -> Finding:
    """Compile graphs and compare the bytes with files; nothing is written but in a scratch folder."""
    with tempfile.TemporaryDirectory(prefix="prottune-doctor-") as scratch:
        stale = [
            graph
            for graph, path in committed.items()
            if compile_graph(Path(scratch) / f"{graph}.yaml", graph).read_bytes() != _bytes(path)
        ]
    if stale:
        return failed(f"pipelines/compiled: {listed(stale)} differs from its sources", "make compile")
    return ok(f"pipelines/compiled is current: {listed(list(committed))}")


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def schedules(_: Surroundings) -> Finding:
    """Whether the schedules can be read, and when each starts its next run."""
    from pipelines.scheduling import files

    return judged_schedules(files([]))


def judged_schedules(paths: list[Path]) -> Finding:
    """Read schedules.

    Raises: ConfigError for one that is wrong.
    """
    from pipelines.scheduling import next_times, read_schedule

    read = [read_schedule(path) for path in paths]
    times = [f"{each.name}: next {next_times(each.cron, 1)[0]:%Y-%m-%d %H:%M} UTC" for each in read]
    return ok("; ".join(times))


def manifests(_: Surroundings) -> Finding:
    """Whether kustomize renders every overlay."""
    from pipelines.manifests import OVERLAYS, kustomize_command, rendered

    command = kustomize_command()
    if command is None:
        raise NotCheckedError("neither kustomize nor a kubectl from 1.22 on is here", "install kubectl")
    with tempfile.TemporaryDirectory(prefix="prottune-doctor-") as scratch:
        counts = {name: len(rendered(name, command, Path(scratch))) for name in OVERLAYS}
    told = ", ".join(f"{name} ({count} objects)" for name, count in counts.items())
    return ok(f"{' '.join(command)} renders {told}")


def torch(_: Surroundings) -> Finding:
    """Whether torch can be loaded here, and which GPUs it finds."""
    said = subprocess.run(
        [sys.executable, "-c", _ASK_TORCH],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TORCH_SECONDS,
    )
    if said.returncode:
        return torch_finding("", (said.stderr.strip().splitlines() or ["it ended without a word"])[-1])
    return torch_finding(said.stdout.strip().splitlines()[-1], "")


def torch_finding(answer: str, error: str) -> Finding:
    """What torch's answer (version|CUDA|number of GPUs|name) or its last words mean."""
    advice = "nothing, if models are trained and served on a cluster only; else requirements/set-up.sh .venv"
    if error:
        return warning(f"torch cannot be loaded: {error[:200]}", advice)
    found, cuda, number, name = answer.split("|")
    if name:
        return ok(f"torch {found}, {number} GPU{'s' if number != '1' else ''} ({name})")
    build = f"built for CUDA {cuda}, but finds no GPU" if cuda else "built for processors"
    return ok(f"torch {found}, {build}: trainings on this machine run on processors")


def disk(surroundings: Surroundings) -> Finding:
    """Whether there is room for the runs of this machine."""
    place = surroundings.flags.runs.absolute()
    while not place.exists():
        place = place.parent
    return disk_finding(surroundings.flags.runs, shutil.disk_usage(place).free)


def disk_finding(place: Path, num_free_bytes: int) -> Finding:
    """What a number of free bytes means for runs."""
    free = f"{num_free_bytes / 1e9:,.0f} GB free for {place}/"
    if num_free_bytes >= LEAST_FREE_GB * 1e9:
        return ok(free)
    advice = f"a training of ProtBERT takes up to {LEAST_FREE_GB} GB: make room, or name another disk: --runs"
    return warning(free, advice)
