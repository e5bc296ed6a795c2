"""Trainings that are killed and started again: each start is a life.

Most lives are ranks forked from a server that has imported torch once, started as torchrun starts them; that
makes a life cost tenths of a second. Others are the command itself, with its parent, torchrun and ranks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil
import torch

from prottune.artifacts import MANIFEST_FILE, read_manifest
from prottune.errors import ArtifactError, ProttuneError
from prottune.training.checkpoints import STAGE, Name
from prottune.training.settings import TrainConfig
from prottune.training.stage import train

PATIENCE_SECONDS = 240
"""A life that does not end by itself for so long has hung, and the test fails."""
LAUNCHER_SECONDS = 2

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["prottune.training.stage", "prottune.training.worker", "prottune.model.base"])


@dataclass(frozen=True)
class Run:
    """One training that is to be finished, however often it is killed."""

    tokens: Path
    folder: Path
    config: TrainConfig
    checkpoints: str = ""
    """Where checkpoints go; empty: a folder below `folder`."""

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def kept(self) -> Path:
        return Path(self.checkpoints) if self.checkpoints else self.folder / "kept"

    @property
    def is_done(self) -> bool:
        return (self.model / MANIFEST_FILE).is_file()

    @property
    def last_point(self) -> int:
        """The last step that anybody outside was told of."""
        told = self.folder / "told"
        return int((told.read_text().split() or ["0"])[-1]) if told.exists() else 0

    @property
    def curve(self) -> Path:
        """Where rank 0 writes points, each as soon as its step is taken."""
        return self.model.with_name("model.partial") / "history.jsonl"

    @property
    def last_step(self) -> int:
        """The last step in that file."""
        lines = self.curve.read_text().splitlines() if self.curve.exists() else []
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def said(self) -> str:
        """What the ranks of the last forked life wrote to stderr."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("stderr-*")))


class Life:
    """One start of a run; whatever happens in the block, none of its processes is left."""

    def kill_all(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()


class ForkedLife(Life):
    """All ranks of a run, as a launcher would start them."""

    def __init__(self, run: Run) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        world_size = run.config.num_processes
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.ranks = [
            _forks.Process(target=_be_a_rank, args=(run, rank, world_size, port), daemon=True)
            for rank in range(world_size)
        ]
        for process in self.ranks:
            process.start()

    def kill_one(self, number: int) -> None:
        """Kill one rank; the others hear of it, or are ended by the launcher, as torchrun does."""
        self.ranks[number % len(self.ranks)].kill()
        until = time.monotonic() + LAUNCHER_SECONDS
        for process in self.ranks:
            process.join(max(0.0, until - time.monotonic()))
        self.kill_all()

    def kill_all(self) -> None:
        for process in self.ranks:
            process.kill()

    def terminate(self) -> None:
        for process in self.ranks:
            process.terminate()

    def wait(self) -> list[int]:
        """Exit codes, once all have ended by themselves."""
        until = time.monotonic() + PATIENCE_SECONDS
        try:
            for process in self.ranks:
                process.join(max(0.0, until - time.monotonic()))
            codes = [process.exitcode for process in self.ranks]
        finally:
            self.kill_all()
        assert None not in codes, f"ranks hang: {codes}"
        return [code for code in codes if code is not None]

    @property
    def is_over(self) -> bool:
        return all(not process.is_alive() for process in self.ranks)


class CommandLife(Life):
    """`prottune train` with all that it starts."""

    def __init__(self, run: Run) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        chosen = {n: value for n, value in asdict(run.config).items() if value != getattr(TrainConfig, n)}
        settings = chosen | {"tokens": run.tokens, "model": run.model, "checkpoints": run.kept}
        flags = [
            word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        self._log = (run.folder / "stderr-command").open("w")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(run.folder)}
        command = [sys.executable, "-m", "prottune", "train", *flags]
        self.parent = subprocess.Popen(command, stderr=self._log, stdout=self._log, env=environment)

    def tree(self) -> list[psutil.Process]:
        try:
            top = psutil.Process(self.parent.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill_one(self, number: int) -> None:
        if ranks := [process for process in self.tree() if _is_rank(process)]:
            _kill(ranks[number % len(ranks)])

    def kill_all(self) -> None:
        for process in self.tree():
            _kill(process)
        self.parent.wait()
        self._log.close()

    def terminate(self) -> None:
        self.parent.terminate()

    def wait(self) -> list[int]:
        below = self.tree()
        try:
            return [self.parent.wait(PATIENCE_SECONDS)]
        finally:
            _, alive = psutil.wait_procs(below, timeout=10)
            for process in alive:
                _kill(process)
            assert not alive, f"left behind: {alive}"

    @property
    def is_over(self) -> bool:
        return self.parent.poll() is not None


def _is_rank(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return "prottune.training.worker" in words and "torch.distributed.run" not in words


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _be_a_rank(run: Run, rank: int, world_size: int, port: int) -> None:
    """The whole life of one rank in its own process."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(os.open(run.folder / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size}
    place |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "GLOO_SOCKET_IFNAME": "lo",
        "TMPDIR": run.folder,
    }
    os.environ |= {name: str(value) for name, value in place.items()}
    torch.set_num_threads(1)
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    told = (run.folder / "told").open("a")

    def tell(point: dict[str, float | int]) -> None:
        told.write(f"{point['step']}\n")
        told.flush()

    try:
        train(run.tokens, run.model, run.config, tell, str(run.kept))
    except ProttuneError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_code)
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    random_state = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
    (run.folder / f"random-{rank}").write_text(random_state)


def names(run: Run) -> list[Name]:
    """The checkpoints that have a manifest, oldest first."""
    found = [
        name for path in run.kept.glob(f"step-*/{MANIFEST_FILE}") if (name := Name.parse(path.parent.name))
    ]
    return sorted(found)


def newest(run: Run) -> Path:
    """The newest whole checkpoint."""
    for name in reversed(names(run)):
        try:
            read_manifest(run.kept / str(name), STAGE)
        except ArtifactError:
            continue
        return run.kept / str(name)
    raise AssertionError(f"{run.kept}: no whole checkpoint")


def final_state(run: Run) -> dict[str, Any]:
    """All that a run ends with, from weights to random numbers, less what clocks decide."""
    folder = newest(run)
    state = json.loads((folder / "state.json").read_text())
    del state["outcome"]["training_seconds"], state["pace"]["seconds_before"]
    points = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    curve = [{name: value for name, value in point.items() if "per_second" not in name} for point in points]
    made = {"checkpoint": read_manifest(folder).files, "model": read_manifest(run.model, "train").files}
    hashes = {
        f"{what}/{name}": entry["sha256"]
        for what, files in made.items()
        for name, entry in files.items()
        if name.endswith(".safetensors")
    }
    random = {path.name: path.read_text() for path in sorted(run.folder.glob("random-*"))}
    return {"state": state, "curve": curve, **hashes, **random}


def finish(run: Run) -> list[int]:
    """Let a run go to its end in forked ranks."""
    with ForkedLife(run) as life:
        return life.wait()


def sleep_until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
