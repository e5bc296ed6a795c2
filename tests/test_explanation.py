"""What `prottune explain` leaves behind, and says."""

import errno
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from tiny_model import LABELS, write_tiny_model

from prottune.answering import Explain
from prottune.errors import ArtifactError, ConfigError, StorageError
from prottune.explanation import ExplainConfig, explain, strongest_stretch
from prottune.model.inference import Predictor

SEQUENCE = "MKRLLVVAAF" * 45  # 450 residues; the tiny model reads 400


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("explain") / "model")


@pytest.fixture(scope="module")
def said(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    output = tmp_path_factory.mktemp("explained") / "here" / "why.json"
    command = Explain(model=str(model), sequence=SEQUENCE, output=output, settings=ExplainConfig())
    return list(command.run()), output


def test_the_json_holds_the_answer_and_scores_that_add_up(said: tuple[list[str], Path], model: Path) -> None:
    found = json.loads(said[1].read_text(encoding="utf-8"))
    (answer,) = Predictor.load(model, "fp32").predict([SEQUENCE])
    assert (found["location"], found["explained"]) == (answer.location, answer.location)
    assert found["probability"] == answer.probability
    assert found["probabilities"] == dict(zip(LABELS, answer.probabilities.tolist(), strict=True))
    assert (found["truncated"], found["num_residues"], found["left_out"]) == (True, 450, [201, 250])
    assert found["sequence"] == SEQUENCE
    assert [place for place, score in enumerate(found["scores"], start=1) if score is None] == list(
        range(201, 251)
    )
    total = sum(score for score in found["scores"] if score is not None)
    assert found["sum"] == pytest.approx(total)
    assert found["complete"]
    assert abs(total - found["difference"]) <= 0.02 * max(abs(found["difference"]), 1)


def test_the_page_shows_every_residue_that_was_read_and_fetches_nothing(
    said: tuple[list[str], Path],
) -> None:
    page = said[1].with_suffix(".html").read_text(encoding="utf-8")
    assert len(re.findall("<rect ", page)) == 400
    assert "did not read residues 201 to 250" in page
    assert "the scores add up to" in page
    assert not re.search(r"""(src|href)="(?!data:|#)""", page)
    assert not list(said[1].parent.glob("*.partial"))


def test_the_terminal_says_where_the_answer_comes_from_in_a_few_lines(said: tuple[list[str], Path]) -> None:
    answer, stretch, unread, exact, where = said[0]
    assert re.fullmatch(r"\S+: probability 0\.\d{3} \((not )?confident\)", answer)
    assert re.fullmatch(r"residues \d+ to \d+ of 450: \d+% of what speaks for \S+", stretch)
    assert unread == "not read: residues 201 to 250"
    assert exact.startswith("the scores add up to ")
    assert where == f"{said[1]}: a score a residue; picture: {said[1].with_suffix('.html')}"


def test_another_location_can_be_asked_for(model: Path, tmp_path: Path) -> None:
    reports = [
        explain(model, "MKRLLVVAAF", tmp_path / "a.json", ExplainConfig(location=label)) for label in LABELS
    ]
    assert [report.location for report in reports] == list(LABELS)
    assert len({report.answer for report in reports}) == 1
    assert json.loads((tmp_path / "a.json").read_text())["explained"] == LABELS[-1]


def test_what_cannot_be_done_is_refused_and_nothing_is_written(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"why.svg: expected a name that ends in .json"):
        explain(model, "MKT", tmp_path / "why.svg", ExplainConfig())
    with pytest.raises(ConfigError, match="location 'Golgi': this model knows"):
        explain(model, "MKT", tmp_path / "why.json", ExplainConfig(location="Golgi"))
    with pytest.raises(ArtifactError):
        explain(tmp_path / "none", "MKT", tmp_path / "why.json", ExplainConfig())
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "why.json").mkdir()
    (tmp_path / "page.html").mkdir()
    for place, line in (
        ("file/why.json", rf"file/why\.json: {tmp_path}/file is no folder"),
        ("file/deep/why.json", f"{tmp_path}/file is no folder"),
        ("why.json", r"why\.json is a folder; name another output"),
        ("page.json", r"page\.html is a folder; name another output"),
    ):
        with pytest.raises(ConfigError, match=line):
            explain(tmp_path / "no model", "MKT", tmp_path / place, ExplainConfig())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "page.html", "why.json"]


def test_a_folder_that_may_not_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(ConfigError, match=rf"why\.json: {tmp_path} cannot be written"):
        explain(tmp_path / "no model", "MKT", tmp_path / "new" / "why.json", ExplainConfig())
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses_in_the_end_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=r"why\.json: cannot be written \(No space left on device\)"):
        explain(model, "MKT", tmp_path / "why.json", ExplainConfig())


def test_the_strongest_stretch_is_where_positive_scores_are_densest() -> None:
    scores_R = np.array([0.0, -9.0, 1.0, 3.0, 0.0, 0.0, 4.0, -1.0])
    assert strongest_stretch(scores_R, 2) == ((3, 4), 0.5)
    assert strongest_stretch(scores_R, 20) == ((1, 8), 1.0)
    assert strongest_stretch(np.zeros(3), 2) == ((1, 2), 0.0)
