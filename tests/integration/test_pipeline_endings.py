"""The other ways in which the committed graph ends: held, nothing new, failed, interrupted."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from toy_proteins import steps_run, toy_flags

from pipelines.processes import processes_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

ENDLESS = ["--base-model", "small", "--epochs", "5000", "--tokens-per-batch", "64"]
"""One protein a step: minutes until no epoch is better."""

RUN = [sys.executable, "-m", "pipelines", "run"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *words], capture_output=True, text=True, check=False)


def summary_of(runs: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((runs / "latest" / "summary.json").read_text(encoding="utf-8"))
    return summary


def mlflow_run(runs: Path, name: str) -> Any:
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("prottune")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`prottune.pipeline_run` = '{name}'")
    return found


def test_a_model_below_the_floor_is_held_with_reasons_and_exit_code_0(tmp_path: Path) -> None:
    fasta, runs = tmp_path / "sample.fasta", tmp_path / "runs"
    made = [sys.executable, "-m", "prottune", "sample", "--output", str(fasta), "--num-proteins", "400"]
    assert subprocess.run(made, check=False, capture_output=True).returncode == 0
    few = ["--base-model", "tiny", "--epochs", "1", "--min-gate-proteins", "10"]
    ended = run("--source", str(fasta), "--runs", str(runs), *few)
    assert ended.returncode == 0, ended.stderr
    summary = summary_of(runs)
    assert (summary["status"], summary["decision"], summary["promoted"]) == ("FINISHED", "hold", False)
    assert steps_run(runs) == {"ingest", "compare", "tokenize", "train", "evaluate", "hold", "finish"}
    assert summary["reasons"]
    for reason in summary["reasons"]:
        assert f"  - {reason}" in ended.stdout
    (note,) = (runs / "latest").glob("steps/*/hold/note")
    assert summary["reasons"][0] in note.read_text(encoding="utf-8")
    tracked = mlflow_run(runs, summary["run"])
    assert (tracked.info.status, tracked.data.tags["prottune.decision"]) == ("FINISHED", "hold")
    again = run("--source", str(fasta), "--runs", str(runs), *few)
    assert again.returncode == 0, again.stderr
    assert steps_run(runs) == {"ingest", "compare", "stop_early", "finish"}, "held once, not every night"


def test_nothing_new_ends_early_and_is_said(tmp_path: Path) -> None:
    runs, flags = tmp_path / "runs", toy_flags(tmp_path)
    assert run("--runs", str(runs), *flags).returncode == 0
    assert summary_of(runs)["promoted"] is True
    again = run("--runs", str(runs), *flags)
    assert again.returncode == 0, again.stderr
    assert steps_run(runs) == {"ingest", "compare", "stop_early", "finish"}
    assert summary_of(runs)["decision"] == "same"
    assert "Nothing new" in again.stdout


def test_a_failed_stage_gives_its_line_its_exit_code_and_a_failed_mlflow_run(tmp_path: Path) -> None:
    fasta, runs = tmp_path / "bad.fasta", tmp_path / "runs"
    fasta.write_text(">P1 Nucleus-U\nMKT\n>P2 Nucleus-U\nMK1\n", encoding="utf-8")
    ended = run("--source", str(fasta), "--runs", str(runs))
    line = "bad.fasta:3: P2 has '1' at residue 3 (1 in all); expected amino acid letters only"
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == f"error: {line}"
    summary = summary_of(runs)
    assert (summary["status"], summary["exit_code"]) == ("FAILED", 2)
    assert summary["failure"] == {
        "stage": "ingest",
        "error": "FastaError",
        "message": line,
        "exit_code": 2,
    } | {"error": summary["failure"]["error"]}
    assert steps_run(runs) == {"finish"}
    tracked = mlflow_run(runs, summary["run"])
    assert tracked.info.status == "FAILED"
    assert tracked.data.tags["prottune.failed_stage"] == "ingest"


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_process_and_a_killed_mlflow_run(
    asked: signal.Signals, tmp_path: Path
) -> None:
    runs, long = tmp_path / "runs", [*toy_flags(tmp_path), *ENDLESS, "--num-processes", "2"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*RUN, "--runs", str(runs), *long],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
    ) as program:  # fmt: skip
        name = _wait_for_training(runs, program)
        program.send_signal(asked)
        _, said = program.communicate(timeout=120)
    assert program.returncode == 128 + asked
    assert said.splitlines()[-1].startswith(f"error: run {name} was ended by {asked.name}")
    assert processes_of(name) == set()
    summary = summary_of(runs)
    assert (summary["status"], summary["exit_code"]) == ("KILLED", 128 + asked)
    assert mlflow_run(runs, name).info.status == "KILLED"
    assert not list(tmp_path.glob("prottune-*")), "scratch files are left"


def test_a_run_whose_program_was_killed_outright_ends_too(tmp_path: Path) -> None:
    runs, long = tmp_path / "runs", [*toy_flags(tmp_path), *ENDLESS]
    with subprocess.Popen([*RUN, "--runs", str(runs), *long], stdout=subprocess.DEVNULL) as program:
        name = _wait_for_training(runs, program, num_ranks=1)
        program.kill()
    until = monotonic() + 60
    while processes_of(name) and monotonic() < until:
        sleep(0.2)
    assert processes_of(name) == set()
    assert mlflow_run(runs, name).info.status == "KILLED"


def _wait_for_training(runs: Path, program: "subprocess.Popen[Any]", num_ranks: int = 2) -> str:
    """Wait until all ranks train; returns the run's name."""
    until = monotonic() + 300
    while monotonic() < until and program.poll() is None:
        if history := list(runs.glob("toy-*/steps/*/train/model.partial/history.jsonl")):
            name = history[0].relative_to(runs).parts[0]
            ranks = [
                process for process in processes_of(name) if "prottune.training.worker" in process.cmdline()
            ]
            if len(ranks) >= num_ranks and history[0].stat().st_size:
                return name
        sleep(0.2)
    raise AssertionError(f"training did not begin: {(runs / 'latest' / 'log.txt').read_text()[-2000:]}")
