"""The committed graph runs whole on this machine and promotes; every setting arrives at its stage."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient
from toy_proteins import steps_run, toy_flags

from prottune.artifacts import read_manifest

pytestmark = pytest.mark.timeout(600)  # half a minute on an idle machine; many share some

UNUSUAL = ["--max-residues", "61", "--cut", "tail", "--seed", "7", "--max-loss-to-champion", "0.03"]


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of runs, and how the program ended; kfp.local would rewrite the name if we let it."""
    folder = tmp_path_factory.mktemp("python3-runs")
    runs = folder / "runs"
    words = [sys.executable, "-m", "pipelines", "run", "--runs", str(runs), *toy_flags(folder), *UNUSUAL]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return runs, ended


@pytest.fixture
def runs(promoted: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    return promoted[0]


@pytest.fixture
def summary(runs: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((runs / "latest" / "summary.json").read_text(encoding="utf-8"))
    return content


def test_all_steps_of_the_promoting_branch_ran(runs: Path) -> None:
    main_path = {"ingest", "compare", "tokenize", "train", "evaluate", "register", "deploy", "promote"}
    assert steps_run(runs) == main_path | {"finish"}


def test_the_summary_says_what_was_decided_and_where_it_lies(runs: Path, summary: dict[str, Any]) -> None:
    assert (summary["status"], summary["exit_code"], summary["failure"]) == ("FINISHED", 0, None)
    assert (summary["decision"], summary["promoted"], summary["model_version"]) == ("promote", True, "1")
    assert read_manifest(Path(summary["folders"]["model"]), "train").digest
    assert summary["metrics"] == json.loads((Path(summary["folders"]["report"]) / "metrics.json").read_text())
    assert summary["metrics"]["gate"]["accuracy"] > summary["metrics"]["gate"]["baseline"]["accuracy"]
    assert summary["endpoint"]["num_golden"] == 8
    for page in summary["pages"].values():
        assert Path(page).read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert (runs / "latest").resolve() == runs / summary["run"]


def test_every_setting_arrives_at_its_stage(runs: Path) -> None:
    latest = runs / "latest"
    (tokens,) = latest.glob("steps/*/tokenize/tokens")
    assert read_manifest(tokens).settings == {"max_residues": 61, "cut": "tail"}
    trained, judged = read_manifest(latest / "model").settings, read_manifest(latest / "report").settings
    assert (trained["seed"], trained["learning_rate"], trained["tokens_per_batch"]) == (7, 3e-3, 1024)
    assert (judged["max_loss_to_champion"], judged["min_gate_proteins"]) == (0.03, 10)


def test_checkpoints_lie_in_the_runs_own_folder(runs: Path, summary: dict[str, Any]) -> None:
    kept = list((runs / "latest" / "checkpoints" / summary["run"]).glob("step-*"))
    assert 1 <= len(kept) <= 2
    for checkpoint in kept:
        assert read_manifest(checkpoint, "checkpoint").settings["seed"] == 7


def test_one_mlflow_run_holds_settings_curve_figures_and_reports(runs: Path, summary: dict[str, Any]) -> None:
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("prottune")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["prottune.pipeline_run"] == summary["run"]
    assert run.data.tags["prottune.model_version"] == "1"
    assert run.data.tags["prottune.dataset_digest"] == read_manifest(runs / "latest" / "records").digest
    assert (run.data.params["train.epochs"], run.data.params["tokenize.cut"]) == ("4", "tail")
    assert run.data.metrics["evaluate/accuracy"] == pytest.approx(summary["metrics"]["accuracy"])
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert len({point.step for point in losses}) == len(losses) > 10
    pages = {
        entry.path
        for folder in ("ingest", "evaluate")
        for entry in client.list_artifacts(run.info.run_id, folder)
    }
    assert pages == {"ingest/report.html", "evaluate/report.html"}


def test_the_version_is_champion_and_points_at_the_pipelines_own_folder(
    runs: Path, summary: dict[str, Any]
) -> None:
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    champion = client.get_model_version_by_alias("prottune", "champion")
    assert str(champion.version) == summary["model_version"]
    assert Path(champion.source).resolve() == Path(summary["folders"]["model"]).resolve()
    assert champion.tags["prottune.pipeline_run"] == summary["run"]


def test_the_model_card_is_an_artifact_of_the_step_and_the_description_of_the_version(runs: Path) -> None:
    (card,) = (runs / "latest").glob("steps/*/register/card")
    words = card.read_text(encoding="utf-8")
    assert words.startswith("# Model card: prottune version 1\n")
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    assert client.get_model_version_by_alias("prottune", "champion").description == words


def test_the_terminal_shows_a_line_a_step_and_ends_with_where_to_look(
    promoted: tuple[Path, subprocess.CompletedProcess[str]], summary: dict[str, Any]
) -> None:
    _, ended = promoted
    assert ended.stderr == ""
    shown = ended.stdout
    assert "kfp" not in shown.lower().replace("/steps/", "")
    for step in ("ingest", "tokenize", "train", "evaluate", "register", "deploy", "promote"):
        assert f"\n{step} " in shown
    assert "Promoted: version 1 is the champion now." in shown
    for place in (
        *summary["pages"].values(),
        f"serve --model {summary['folders']['model']}",
        "mlflow server",
    ):
        assert place in shown, place
    assert "--host 127.0.0.1" in shown
