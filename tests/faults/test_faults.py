"""Trainings that are killed, cut short, damaged or out of disk, and that end as if nothing had happened.

`make integration` kills 20 times, `make faults` 300 times; FAULTS_KILLS and FAULTS_SEED choose.
"""

import os
import random
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from lives import CommandLife, ForkedLife, Run, final_state, finish, names, newest, sleep_until
from safetensors import SafetensorError
from tiny_tokens import make_tokens

from prottune.artifacts import read_manifest
from prottune.records import Split
from prottune.training.checkpoints import Checkpoints
from prottune.training.examples import read_examples
from prottune.training.settings import TrainConfig
from prottune.training.snapshots import Best, Outcome, Pace, Place, Snapshot

NUM_KILLS = int(os.environ.get("FAULTS_KILLS") or 20)
SEED = int(os.environ.get("FAULTS_SEED") or time.time_ns() % 1_000_000)
SHARE_OF_COMMANDS = 0.2
SHARE_OF_A_LIFE = 0.7
"""Kills fall into this part of an uninterrupted life: a life that goes on from a checkpoint is shorter."""
MODES = {"one rank": 0.4, "all processes": 0.35, "SIGTERM": 0.25}

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600 + 60 * NUM_KILLS)]

CONFIG = TrainConfig(
    base_model="tiny",
    learning_rate=1e-3,
    epochs=20,
    patience=0,
    tokens_per_batch=256,
    precision="fp32",
    num_processes=2,
    checkpoint_every=4,
    rank_timeout_seconds=120,
)
SHORT = replace(CONFIG, epochs=10)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tokens(tmp_path_factory.mktemp("data") / "tokens")


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@dataclass
class Tally:
    """What was done to the runs."""

    modes: Counter[str] = field(default_factory=Counter)
    landed: Counter[str] = field(default_factory=Counter)
    num_runs: int = 0
    num_commands: int = 0
    most_lost: int = 0
    """Steps between the newest whole checkpoint and a SIGKILL."""

    @property
    def num_kills(self) -> int:
        return self.modes.total()


def test_a_run_that_is_killed_at_random_again_and_again_ends_as_one_that_was_left_alone(
    tokens: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw, tally, begun = random.Random(SEED), Tally(), time.monotonic()
    with capsys.disabled():
        print(f"\n{NUM_KILLS} kills, seed {SEED} (FAULTS_SEED={SEED} draws the same)", flush=True)
    alone = Run(tokens, tmp_path / "alone", CONFIG)
    assert finish(alone) == [0, 0], alone.said()
    expected = final_state(alone)
    begun_again = time.monotonic()
    assert finish(Run(tokens, tmp_path / "twin", CONFIG)) == [0, 0]
    span = time.monotonic() - begun_again
    while tally.num_kills < NUM_KILLS:
        run = Run(tokens, tmp_path / f"run-{tally.num_runs}", CONFIG)
        while not run.is_done:
            if tally.num_kills < NUM_KILLS:
                live_and_be_killed(run, draw, span, tally)
            else:
                assert finish(run) == [0, 0], run.said()
        if (
            len(list(run.folder.glob("random-*"))) < CONFIG.num_processes
        ):  # a rank died after the model was whole
            shutil.rmtree(run.model)
            assert finish(run) == [0, 0], run.said()
        assert final_state(run) == expected, run.folder
        tally.num_runs += 1
        shutil.rmtree(run.folder)
    with capsys.disabled():
        print(report(tally, time.monotonic() - begun), flush=True)


def live_and_be_killed(run: Run, draw: random.Random, span: float, tally: Tally) -> None:
    """Start a run again and kill it at a random moment, unless it ends before."""
    (run.folder / "told").unlink(missing_ok=True)
    mode = draw.choices(list(MODES), list(MODES.values()))[0]
    as_command, moment, victim = (
        draw.random() < SHARE_OF_COMMANDS,
        draw.uniform(0, SHARE_OF_A_LIFE * span),
        draw.randrange(2),
    )
    stale = run.curve.stat().st_ino if run.curve.exists() else None
    with CommandLife(run) if as_command else ForkedLife(run) as life:
        if as_command:  # importing takes longer than training: most moments shall lie after it
            sleep_until(lambda: life.is_over or (run.curve.exists() and run.curve.stat().st_ino != stale))
        time.sleep(moment)
        was_over = life.is_over
        if mode == "one rank":
            life.kill_one(victim)
        elif mode == "SIGTERM":
            life.terminate()
        else:
            life.kill_all()
        codes = life.wait()
    if was_over or (run.is_done and set(codes) == {0}):
        assert set(codes) == {0}, f"{codes}: {run.said()}"
        return
    tally.modes[mode] += 1
    tally.num_commands += as_command
    tally.landed[where_it_landed(run)] += 1
    kept = names(run)
    newest_step = read_manifest(newest(run)).facts["step"] if kept else 0
    if mode == "SIGTERM":
        if 143 in codes and not as_command:
            assert newest_step >= run.last_point, "a run that was asked to end lost a step"
    else:
        tally.most_lost = max(tally.most_lost, run.last_step - newest_step)


def where_it_landed(run: Run) -> str:
    if list(run.kept.glob("*.partial")):
        return "during a write"
    return "between two" if names(run) else "before the first"


def report(tally: Tally, seconds: float) -> str:
    def told(counter: Counter[str]) -> str:
        return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))

    return (
        f"{tally.num_kills} kills ({told(tally.modes)}), {tally.num_commands} of them of the whole command; "
        f"against checkpoint writes: {told(tally.landed)}; at most {tally.most_lost} steps lost to a "
        f"SIGKILL, a checkpoint being due every {CONFIG.checkpoint_every}. All {tally.num_runs} runs ended "
        "with the weights, optimizer, curve and random numbers of the run that was left alone. "
        f"Seed {SEED}, {seconds:.0f} s"
    )


@pytest.mark.parametrize("num_processes", [1, 3])
def test_any_number_of_ranks_goes_on_bit_for_bit(tokens: Path, tmp_path: Path, num_processes: int) -> None:
    """From three ranks on, the order in which gradients are summed shows in the last bits."""
    config = replace(SHORT, num_processes=num_processes)
    run, alone = (Run(tokens, tmp_path / name, config) for name in ("run", "alone"))
    stop_after(run, 8)
    assert finish(run) == finish(alone) == [0] * num_processes, run.said()
    assert final_state(run) == final_state(alone)


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2), (3, 2)])
def test_another_number_of_ranks_goes_on_and_reads_each_protein_once_an_epoch(
    tokens: Path, tmp_path: Path, first: int, second: int
) -> None:
    run = Run(tokens, tmp_path / "run", replace(SHORT, num_processes=first))
    stop_after(run, 8)
    run = replace(run, config=replace(SHORT, num_processes=second))
    assert finish(run) == [0] * second, run.said()
    num_tokens = int(read_examples(tokens, Split.TRAIN, 3).num_tokens_N.sum())
    state = final_state(run)["state"]
    assert state["outcome"]["num_tokens"] == SHORT.epochs * num_tokens
    assert state["place"]["ended"]


def test_a_run_that_ended_is_not_trained_again_only_written_again(tokens: Path, tmp_path: Path) -> None:
    run = Run(tokens, tmp_path / "run", replace(SHORT, num_processes=1))
    assert finish(run) == [0], run.said()
    before, curve = final_state(run), (run.model / "history.jsonl").read_bytes()
    shutil.rmtree(run.model)
    assert finish(run) == [0], run.said()
    assert final_state(run) == before
    assert (run.model / "history.jsonl").read_bytes() == curve


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_leads_to_the_same_end(
    tokens: Path, tmp_path: Path
) -> None:
    config = replace(SHORT, num_processes=1)
    run, alone = (Run(tokens, tmp_path / name, config) for name in ("run", "alone"))
    stop_after(run, 9)
    *_, older, damaged = names(run)
    weights = run.kept / str(damaged) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 4
    weights.write_bytes(content)
    assert finish(run) == finish(alone) == [0], run.said()
    assert f"checkpoint {damaged} refused: {weights}: damaged" in run.said()
    assert f"going on from checkpoint {older}" in run.said()
    assert final_state(run) == final_state(alone)
    assert not weights.exists(), "it was removed when newer ones were whole"


def stop_after(run: Run, step: int) -> None:
    """Let a run come so far, end it by SIGTERM, and see that no step is lost."""
    with ForkedLife(run) as life:
        sleep_until(lambda: run.last_step >= step or life.is_over)
        life.terminate()
        assert set(life.wait()) == {143}, run.said()
    assert read_manifest(newest(run)).facts["step"] >= run.last_point >= step


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for two checkpoints and a half; needs root."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("not run here: a full disk needs root and the right to mount")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_ends_the_run_by_name_and_the_checkpoint_before_stays_whole(
    tokens: Path, tmp_path: Path, small_disk: Path
) -> None:
    config = replace(SHORT, num_processes=1)
    alone = Run(tokens, tmp_path / "alone", config)
    assert finish(alone) == [0], alone.said()
    size = sum(path.stat().st_size for path in newest(alone).iterdir())
    run = Run(tokens, tmp_path / "run", config, checkpoints=str(small_disk / "kept"))
    subprocess.run(["mount", "-o", f"remount,size={int(2.5 * size)}", str(small_disk)], check=True)
    assert finish(run) == [3], run.said()
    assert re.search(r"kept: the checkpoint of step \d+ could not be written \(.*No space left", run.said())
    kept = newest(run).name
    assert f"the newest whole one is {kept}: see to the place and start again" in run.said()
    assert [str(name) for name in names(run)][-1] == kept
    assert not run.is_done

    subprocess.run(["mount", "-o", f"remount,size={4 * size}", str(small_disk)], check=True)
    assert finish(run) == [0], run.said()
    assert final_state(run) == final_state(alone)


def test_a_disk_that_fills_up_anywhere_in_a_write_never_costs_the_checkpoint_before(
    small_disk: Path, tmp_path: Path
) -> None:
    draw = random.Random(SEED)
    checkpoints = Checkpoints(str(small_disk / "kept"), CONFIG, {}, str(tmp_path))
    tensors = {name: torch.zeros(100, 1000) for name in "ab"}
    best = Best(1, 0.5, 0.5, torch.zeros(4), {"weight": torch.zeros(100, 100)})
    fill = Snapshot(
        Place(step=1), Outcome(best), Pace(), tensors, {"weight/exp_avg": torch.zeros(9)}, b"{}\n"
    ).write
    checkpoints.write(1, {}, fill)
    ballast, reasons = small_disk / "ballast", list[str]()
    for _ in range(100):
        free = shutil.disk_usage(small_disk).free
        ballast.write_bytes(bytes(max(0, free - draw.randrange(1_100_000))))
        try:
            checkpoints.write(2, {}, fill)
        except (OSError, SafetensorError) as error:
            reasons.append(str(error))
        ballast.unlink()
        folder, _ = checkpoints.newest()
        assert folder is not None
        if folder.name != "step-00000001":
            shutil.rmtree(folder)
    assert len(reasons) > 50
    assert all("No space left" in reason for reason in reasons)
