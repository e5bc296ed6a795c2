"""`python -m pipelines`: verbs, refusals before anything runs, and the compiled file."""

import tempfile
from pathlib import Path

import pytest

from pipelines.__main__ import PROGRAM, VERBS, main
from pipelines.compiling import GRAPHS, compiled
from pipelines.endings import mlflow_page
from pipelines.runs import new_run
from prottune.cli import guarded
from prottune.errors import ConfigError


@pytest.fixture(autouse=True)
def scratch_below_tmp_path(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run would remove when it ends."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("scratch")))


def run(*words: str) -> int:
    return guarded(main, words, PROGRAM, VERBS)


def test_compile_writes_the_committed_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "graph.yaml"
    for words, graph in ([], GRAPHS[0]), *(([name], name) for name in GRAPHS):
        assert run("compile", *words, "--target", str(target)) == 0
        assert capsys.readouterr().out == f"{target}\n"
        assert target.read_bytes() == compiled(graph).read_bytes()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["upload"],
            "error: unknown verb 'upload'; `python -m pipelines --help` lists them",
        ),
        (["run"], "error: missing --source; `python -m pipelines run --help` lists all"),
        (["run", "guess"], "error: unknown graph 'guess'; expected one of finetune, predict"),
        (["run", "predict"], "error: missing --source; `python -m pipelines run predict --help` lists all"),
        (["run", "predict", "--source", "x", "--num-shards", "0"], "error: num_shards=0: expected 1 to "),
        (["run", "--source", "x", "--epochs", "0"], "error: epochs=0: expected at least 1"),
        (["run", "--source", "x", "--cut", "middle"], "error: cut='middle': expected one of "),
        (
            ["run", "--source", "x", "--deploy-to", "moon"],
            "error: to='moon': expected one of auto, local, kserve",
        ),
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_refused_in_one_line_and_nothing_is_written(
    words: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(line)
    assert len(shown.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_two_runs_of_one_second_have_folders_of_their_own_and_latest_is_the_last(tmp_path: Path) -> None:
    made = [new_run(tmp_path / "runs", {"source": "data/My sample.fasta.gz"}) for _ in range(3)]
    assert len({run.folder for run in made}) == 3
    assert all(run.name.startswith("my-sample-fasta-20") for run in made)
    assert (tmp_path / "runs" / "latest").resolve() == made[-1].folder.resolve()


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file", encoding="utf-8")
    with pytest.raises(ConfigError, match="runs: cannot be written"):
        new_run(tmp_path / "runs", {"source": "x"})


def test_steps_find_their_run_and_tracking_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_run(tmp_path, {"source": "x"})
    assert place.environment["PROTTUNE_PIPELINE_RUN"] == place.name
    assert place.environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert place.environment["PROTTUNE_UNSENT"] == f"{tmp_path}/unsent"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert place.environment["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"


def test_mlflows_page_is_an_address_or_the_command_that_serves_it_here_only() -> None:
    assert mlflow_page("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    command = mlflow_page("sqlite:////a b/mlflow.db")
    assert "server --backend-store-uri 'sqlite:////a b/mlflow.db' --host 127.0.0.1" in command
