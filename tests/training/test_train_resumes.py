"""The train stage with checkpoints, in real processes: stopped, killed, hung, diverged, and started again."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from small_store import Store

from prottune.artifacts import read_manifest
from prottune.errors import ConfigError, HungError
from prottune.model.base import find_base
from prottune.training.checkpoints import STAGE, Checkpoints, Name
from prottune.training.job import Job, dead_rank, present
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig
from prottune.training.stage import train
from prottune.training.worker import run_rank

CONFIG = TrainConfig(
    base_model="tiny",
    learning_rate=1e-3,
    epochs=3,
    tokens_per_batch=256,
    precision="fp32",
    checkpoint_every=3,
)
LABELS = ("Nucleus", "Cytoplasm", "Peroxisome")
ENDLESS = replace(CONFIG, epochs=100_000)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stage's private folders lie below the test's own, so that its processes can be told by them."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes, whoever their parent is now, whose command line names something below a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def ranks_of(folder: Path) -> list[psutil.Process]:
    return [process for process in processes_of(folder) if "torch.distributed.run" not in process.cmdline()]


def newest(kept: Path) -> Path:
    names = sorted(name for path in kept.iterdir() if (name := Name.parse(path.name)))
    return kept / str(names[-1])


def final_state(kept: Path) -> dict[str, Any]:
    """All that the newest checkpoint holds, less what clocks decide."""
    folder = newest(kept)
    files = read_manifest(folder, STAGE).files
    state = json.loads((folder / "state.json").read_text())
    del state["outcome"]["training_seconds"], state["pace"]["seconds_before"]
    points = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for point in points:
        point.pop("train/tokens_per_second", None)
    hashes = {name: entry["sha256"] for name, entry in files.items() if name.endswith(".safetensors")}
    return {"state": state, "history": points, **hashes}


def at_step(step: int, do: Callable[[], object]) -> Callable[[dict[str, float | int]], None]:
    """A receiver of points that does something once, when that step has been taken."""
    done = []

    def receive(point: dict[str, float | int]) -> None:
        if point["step"] >= step and not done:
            done.append(True)
            do()

    return receive


def test_a_run_that_was_asked_to_end_loses_no_step_and_goes_on_to_the_same_end(
    make_token_folder, tmp_path: Path, scratch: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens, kept = make_token_folder(), tmp_path / "kept"
    seen: list[int] = []

    def terminate(point: dict[str, float | int]) -> None:
        seen.append(int(point["step"]))
        if point["step"] >= 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        train(tokens, tmp_path / "model", CONFIG, terminate, str(kept))
    assert ended.value.code == 128 + signal.SIGTERM
    assert processes_of(scratch) == []
    assert list(tmp_path.glob("model*")) == []
    last_step = json.loads((newest(kept) / "history.jsonl").read_text().splitlines()[-1])["step"]
    assert last_step == read_manifest(newest(kept)).facts["step"] >= seen[-1]

    points: list[dict[str, float | int]] = []
    with caplog.at_level("INFO"):
        report = train(tokens, tmp_path / "model", CONFIG, points.append, str(kept))
    assert f"going on from checkpoint step-{last_step:08d}" in caplog.text
    steps = [point["step"] for point in points if "train/loss" in point]
    assert steps == list(range(1, report.num_steps + 1)), "the curve is whole, each point in it once"
    assert report.epochs_run == CONFIG.epochs
    assert final_state(kept) == uninterrupted(tokens, tmp_path)


def run_here(tokens: Path, folder: Path, place: str, config: TrainConfig = CONFIG) -> None:
    """A run in this very process, from the newest checkpoint in a place."""
    folder.mkdir()
    checkpoints = Checkpoints(place, config, {}, str(folder))
    resume_from, checkpoints = checkpoints.newest()
    base = find_base(config.base_model, config.base_revision, folder)
    job = Job(str(tokens), str(folder), config, base, "", "custom", LABELS, 0, "head_tail", checkpoints)
    job = replace(job, resume_from=str(resume_from or ""))
    run_rank(job, Ranks(0, 1, torch.device("cpu")))


def uninterrupted(tokens: Path, tmp_path: Path) -> dict[str, Any]:
    run_here(tokens, tmp_path / "alone", str(tmp_path / "kept-alone"))
    return final_state(tmp_path / "kept-alone")


@pytest.mark.parametrize(
    "changes",
    [{"freeze_layers": 1}, {"freeze_layers": -1}, {"lora_rank": 4}, {"tokens_per_pass": 64, "head": "cls"}],
    ids=str,
)
def test_every_way_of_fine_tuning_goes_on_bit_for_bit(
    make_token_folder, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config, tokens = replace(CONFIG, epochs=2, checkpoint_every=5, **changes), make_token_folder()
    run_here(tokens, tmp_path / "first", str(tmp_path / "kept"), config)
    whole, weights = final_state(tmp_path / "kept"), (tmp_path / "first/model.safetensors").read_bytes()
    assert read_manifest(newest(tmp_path / "kept")).facts["step"] > 5
    shutil.rmtree(newest(tmp_path / "kept"))
    run_here(tokens, tmp_path / "second", str(tmp_path / "kept"), config)
    assert final_state(tmp_path / "kept") == whole
    assert (tmp_path / "second/model.safetensors").read_bytes() == weights


def test_a_run_keeps_itself_in_a_store_and_goes_on_from_the_newest_that_is_whole(
    store: Store, make_token_folder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, tokens = replace(CONFIG, epochs=2, checkpoint_every=5), make_token_folder()
    run_here(tokens, tmp_path / "first", "s3://bucket/run", config)
    *_, last = sorted({key.split("/")[2] for key in store.objects})
    expected = store.objects[f"bucket/run/{last}/optimizer.safetensors"]
    damaged = bytearray(store.objects[f"bucket/run/{last}/model.safetensors"])
    damaged[-9] ^= 1
    store.objects[f"bucket/run/{last}/model.safetensors"] = bytes(damaged)
    run_here(tokens, tmp_path / "second", "s3://bucket/run", config)
    assert f"checkpoint {last} refused: " in caplog.text
    *_, fresh = names = sorted({key.split("/")[2] for key in store.objects})
    assert last not in names
    assert fresh > last, "a name is never used twice"
    assert store.objects[f"bucket/run/{fresh}/optimizer.safetensors"] == expected
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]


@pytest.mark.integration
def test_a_rank_that_hangs_ends_the_job_within_its_time_plus_5_seconds(
    make_token_folder, tmp_path: Path, scratch: Path
) -> None:
    hung: list[float] = []

    def hang() -> None:
        ranks_of(scratch)[-1].send_signal(signal.SIGSTOP)
        hung.append(time.monotonic())

    config = replace(ENDLESS, num_processes=2, rank_timeout_seconds=20)
    with pytest.raises(
        HungError, match=r"rank \d waited 20 s for the others: one of them has hung; start again"
    ):
        train(make_token_folder(), tmp_path / "model", config, at_step(5, hang), str(tmp_path / "kept"))
    assert time.monotonic() - hung[0] < 20 + 5
    assert processes_of(scratch) == []


@pytest.mark.integration
def test_a_rank_that_dies_without_a_word_ends_one_that_hangs(
    make_token_folder, tmp_path: Path, scratch: Path
) -> None:
    died: list[float] = []

    def hang_and_die() -> None:
        hanging, dying = ranks_of(scratch)
        hanging.send_signal(signal.SIGSTOP)
        dying.kill()
        died.append(time.monotonic())

    config = replace(ENDLESS, num_processes=2)
    with pytest.raises(RuntimeError, match=r"a training process was killed \(rank \d\); last words"):
        train(make_token_folder(), tmp_path / "model", config, at_step(5, hang_and_die))
    assert time.monotonic() - died[0] < 5
    assert processes_of(scratch) == []


def test_a_rank_that_left_without_a_goodbye_is_known_to_be_dead(tmp_path: Path) -> None:
    with present(3, tmp_path):
        assert dead_rank(tmp_path) is None
    assert dead_rank(tmp_path) is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "rank-000003.pid").write_text(str(ended.pid))
    assert dead_rank(tmp_path) == 3


def test_a_batch_that_does_not_fit_into_memory_names_the_setting(
    make_token_folder, make_base_folder, tmp_path: Path
) -> None:
    tokens = make_token_folder()
    base = find_base(str(make_base_folder(intermediate_size=500_000)), "", tmp_path)
    config = replace(CONFIG, tokens_per_batch=4096)
    job = Job(str(tokens), str(tmp_path), config, base, "", "custom", LABELS, 0, "head_tail")
    used = psutil.Process().memory_info().vms
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), before[1]))  # the batch alone would take more
    try:
        with pytest.raises(
            ConfigError,
            match=r"rank 0 of 1 ran out of memory on cpu \(.*\); lower tokens_per_pass \(now 0, tokens",
        ):
            run_rank(job, Ranks(0, 1, torch.device("cpu")))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
