"""The train stage as others call it: real processes, real folders, and nobody left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest
import safetensors.torch
import torch

from prottune.artifacts import MANIFEST_FILE, read_manifest
from prottune.errors import ArtifactError, ConfigError, DataError, DivergedError
from prottune.model.base import find_base
from prottune.model.folder import load_model
from prottune.model.golden import read_golden
from prottune.model.inference import Predictor
from prottune.records import Split
from prottune.training.examples import read_examples
from prottune.training.job import Job
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig
from prottune.training.stage import train
from prottune.training.worker import run_rank

CONFIG = TrainConfig(base_model="tiny", learning_rate=1e-3, epochs=3, tokens_per_batch=256, precision="fp32")
ENDLESS = replace(CONFIG, epochs=100_000, patience=0)


def history(model: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (model / "history.jsonl").read_text().splitlines()]


def processes_of(folder: Path) -> list[psutil.Process]:
    """All processes, whoever their parent is now, whose command line names something below a folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stage's private folders lie below the test's own, so that its processes can be told by them."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_trained_folder_is_whole_and_answers_what_its_golden_file_says(
    make_token_folder, tmp_path: Path, scratch: Path
) -> None:
    tokens, model = make_token_folder(), tmp_path / "model"
    points: list[dict[str, float | int]] = []
    report = train(tokens, model, CONFIG, points.append)

    manifest = read_manifest(model, "train")
    assert manifest.inputs["tokens"] == read_manifest(tokens).digest
    assert manifest.settings["learning_rate"] == 1e-3
    assert report.model_digest == manifest.digest
    assert points == history(model)
    steps = [point["step"] for point in points if "train/loss" in point]
    assert steps == list(range(1, report.num_steps + 1))
    epochs = [point for point in points if "epoch" in point]
    assert [point["epoch"] for point in epochs] == [1, 2, 3]
    assert report.epochs_run == 3
    assert report.validation_loss == min(point["validation/calibrated_loss"] for point in epochs)
    assert report.validation_accuracy == 1.0, "the two compositions are easy to tell apart"
    assert report.facts["precision"] == "float32"

    network, description = load_model(model)
    assert sum(parameter.numel() for parameter in network.parameters()) == report.num_parameters
    assert description.temperature == report.temperature
    assert description.dataset_digest == "digest-of-the-records"
    assert pyarrow.parquet.read_table(model / "training_proteins.parquet").num_rows == 48
    golden = read_golden(model)
    answers = Predictor.load(model, "fp32").predict([entry["sequence"] for entry in golden])
    for entry, answer in zip(golden, answers, strict=True):
        assert answer.location == entry["location"]
        assert answer.probabilities.tolist() == pytest.approx(list(entry["probabilities"].values()), abs=1e-5)
    assert processes_of(scratch) == []
    assert list(scratch.iterdir()) == []


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_of_them_by_name(
    make_token_folder, make_base_folder, tmp_path: Path, scratch: Path
) -> None:
    """The weights for one position are broken that only the longest protein reaches, so only its rank."""
    tokens = make_token_folder()
    second, longest = sorted(read_examples(tokens, Split.TRAIN, 3).num_tokens_N.tolist())[-2:]
    assert second < longest
    base = make_base_folder()
    weights = safetensors.torch.load_file(base / "model.safetensors")
    weights["embeddings.position_embeddings.weight"][longest - 1] = float("inf")
    safetensors.torch.save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    config = replace(CONFIG, base_model=str(base), num_processes=2, tokens_per_batch=4096)
    with pytest.raises(
        DivergedError, match=r"step 1, rank [01]: the loss is nan, expected a finite number; try"
    ) as diverged:
        train(tokens, tmp_path / "model", config, checkpoints=str(tmp_path / "kept"))
    assert list(tmp_path.glob("model*")) == []
    assert processes_of(scratch) == []

    started = time.monotonic()
    with pytest.raises(DivergedError) as again:
        train(tokens, tmp_path / "model", config, checkpoints=str(tmp_path / "kept"))
    assert str(again.value).startswith(f"{diverged.value} (an earlier start")
    assert time.monotonic() - started < 2, "no rank was started"
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["refused.json"]


@pytest.mark.integration
def test_a_tracker_that_fails_ends_the_rank(make_token_folder, tmp_path: Path, scratch: Path) -> None:
    def fail(point: dict[str, float | int]) -> None:
        assert len(processes_of(scratch)) == 1
        raise ZeroDivisionError(f"at step {point['step']}")

    with pytest.raises(ZeroDivisionError, match="at step"):
        train(make_token_folder(), tmp_path / "model", ENDLESS, fail)
    assert processes_of(scratch) == []
    assert list(tmp_path.glob("model*")) == []


@pytest.mark.integration
def test_a_rank_that_is_killed_is_a_crash_with_its_code(
    make_token_folder, tmp_path: Path, scratch: Path
) -> None:
    def kill(point: dict[str, float | int]) -> None:
        for process in processes_of(scratch):
            process.kill()

    with pytest.raises(RuntimeError, match="a training process ended with code -9"):
        train(make_token_folder(), tmp_path / "model", ENDLESS, kill)
    assert list(tmp_path.glob("model*")) == []


@pytest.mark.parametrize(
    ("sent", "raised"),
    [
        (signal.SIGTERM, SystemExit),
        pytest.param(signal.SIGINT, KeyboardInterrupt, marks=pytest.mark.integration),
    ],
)
def test_a_signal_ends_torchrun_and_all_ranks(
    make_token_folder, tmp_path: Path, scratch: Path, sent: signal.Signals, raised: type[BaseException]
) -> None:
    def interrupt(point: dict[str, float | int]) -> None:
        assert len(processes_of(scratch)) == 3, "torchrun and two ranks"
        os.kill(os.getpid(), sent)

    before = signal.getsignal(sent)
    with pytest.raises(raised):
        train(make_token_folder(), tmp_path / "model", replace(ENDLESS, num_processes=2), interrupt)
    assert processes_of(scratch) == []
    assert list(tmp_path.glob("model*")) == []
    assert signal.getsignal(sent) is before


@pytest.mark.integration
def test_no_rank_outlives_a_parent_that_was_killed(make_token_folder, tmp_path: Path, scratch: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from prottune.training.stage import train; "
        "from prottune.training.settings import TrainConfig; "
        "train(Path(sys.argv[1]), Path(sys.argv[2]), "
        "TrainConfig(base_model='tiny', epochs=100000, patience=0, num_processes=2))"
    )
    arguments = [str(make_token_folder()), str(tmp_path / "model")]
    parent = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.DEVNULL)
    try:
        curve = tmp_path / "model.partial" / "history.jsonl"
        _wait_until(lambda: curve.exists() and curve.stat().st_size > 0, seconds=120)
        assert len(processes_of(scratch)) == 3, "torchrun and two ranks"
        parent.kill()
        _wait_until(lambda: processes_of(scratch) == [], seconds=20)
    finally:
        for process in [*processes_of(scratch), parent]:
            process.kill()
        parent.wait()


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    patience_ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < patience_ends, "waited too long"
        time.sleep(0.1)


@pytest.mark.integration
def test_under_torchrun_it_joins_instead_of_starting_more(make_token_folder, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, json, os, psutil\n"
        "from dataclasses import asdict\n"
        "from pathlib import Path\n"
        "from prottune.training.settings import TrainConfig\n"
        "from prottune.training.stage import train\n"
        "steps = []\n"
        "config = TrainConfig(base_model='tiny', epochs=2, tokens_per_batch=256)\n"
        "def note(point): steps.append(point['step'])\n"
        "report = train(Path(sys.argv[1]), Path(sys.argv[2]), config, note)\n"
        "found = asdict(report) | {'steps': steps, 'children': len(psutil.Process().children())}\n"
        "Path(sys.argv[2] + os.environ['RANK']).write_text(json.dumps(found))\n"
    )
    tokens, model = make_token_folder(), tmp_path / "model"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, str(program), str(tokens), str(model)], check=True, env=dict(os.environ), timeout=120
    )
    first, second = (json.loads((tmp_path / f"model{rank}").read_text()) for rank in range(2))
    assert first["facts"]["processes"] == "2"
    assert first["model_digest"] == read_manifest(model, "train").digest
    assert first["steps"] == [point["step"] for point in history(model)]
    assert second["steps"] == []
    assert first["children"] == second["children"] == 0
    assert first | {"steps": []} == second


@pytest.mark.parametrize(
    ("place", "line"),
    [("", "num_nodes=2: checkpoints='', expected an s3://"), ("s3://b/run", "no cluster to reach from here")],
)
def test_several_nodes_need_a_place_in_common_and_a_cluster(
    shared_tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, line: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=line):
        train(shared_tokens, tmp_path / "model", replace(CONFIG, num_nodes=2), None, place)


def test_a_finished_model_is_never_written_over(make_token_folder, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="exists already"):
        train(make_token_folder(), tmp_path / "model", CONFIG)


def test_tokens_of_another_alphabet_are_refused(make_token_folder, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tokenized with alphabet 'other'.*tokenize the records again"):
        train(make_token_folder(alphabet_sha256="other"), tmp_path / "model", CONFIG)


def test_tokens_with_one_location_in_train_are_refused(make_token_folder, tmp_path: Path) -> None:
    tokens = make_token_folder(splits=("train", "validation"))
    with pytest.raises(ArtifactError, match=r"all 30 training proteins are 'Nucleus'"):
        train(tokens, tmp_path / "model", CONFIG)


def test_tokens_without_validation_are_refused(make_token_folder, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no protein in split 'validation'"):
        train(make_token_folder(splits=("train", "train", "test")), tmp_path / "model", CONFIG)


def test_damaged_tokens_are_refused(make_token_folder, tmp_path: Path) -> None:
    tokens = make_token_folder()
    manifest = json.loads((tokens / MANIFEST_FILE).read_text())
    manifest["files"]["tokens.arrow"]["sha256"] = "0" * 64
    (tokens / MANIFEST_FILE).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="damaged"):
        train(tokens, tmp_path / "model", CONFIG)


def test_a_protein_longer_than_the_base_model_reads_is_refused_by_name(
    make_token_folder, make_base_folder, tmp_path: Path
) -> None:
    base = find_base(str(make_base_folder(max_position_embeddings=50)), "", tmp_path)
    job = Job(
        tokens=str(make_token_folder()),
        model=str(tmp_path),
        config=CONFIG,
        base=base,
        dataset_digest="",
        label_set="custom",
        labels=("Nucleus", "Cytoplasm", "Peroxisome"),
        max_residues=0,
        cut="head_tail",
    )
    with pytest.raises(
        DataError, match=r"protein P000\d\d has \d\d residues.*reads at most 48.*max_residues=48"
    ):
        run_rank(job, Ranks(0, 1, torch.device("cpu")))
