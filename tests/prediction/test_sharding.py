"""A proteome cut into shards, answered, joined: every protein once and in its place, or no table."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from counting_letters import Answer, LettersPredictor

from prottune.artifacts import new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError, DataError
from prottune.prediction.settings import MergeConfig, PredictConfig, SplitConfig
from prottune.prediction.sharding import MergeReport, SplitReport, merge, predict_shard, split
from prottune.prediction.stage import predict_with

NUM_PROTEINS = 60


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Proteins of 1 to 60 residues; two have the same accession, one a final stop."""
    draws = random.Random(43)
    path = tmp_path / "proteome.fasta"
    proteins = [
        f">sp|P{n % 50:05d}|N_HUMAN some\n{''.join(draws.choices('KLSW', k=n + 1))}\n" for n in range(60)
    ]
    path.write_text("".join(proteins).rstrip() + "*\n")
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def cut(source: Path, shards: Path, **settings: Any) -> SplitReport:
    return split(str(source), shards, SplitConfig(num_shards=3, **settings))


def answered(shards: Path, shard: str, folder: Path, predictor: Any = None, model: str = "m1") -> Path:
    """What `predict_shard` leaves behind, by a predictor that needs no weights."""
    inputs = {"shards": read_manifest(shards, "split").digest, "model": model}
    with new_folder(folder, "predict", PredictConfig(), inputs) as draft:
        source, output = str(shards / f"{shard}.fasta"), draft.path / "answers.parquet"
        report = predict_with(predictor or LettersPredictor(), source, output, PredictConfig(window=7))
        draft.facts |= {"shard": shard, "precision": report.precision}
    return folder


def all_answered(shards: Path, folder: Path) -> list[Path]:
    names = [entry["name"] for entry in read_manifest(shards).facts["shards"]]
    return [answered(shards, name, folder / name) for name in names]


def joined(shards: Path, answers: Sequence[Path], table: Path, table_format: str = "csv") -> MergeReport:
    return merge(shards, answers, table, MergeConfig(table_format=table_format))


def test_shards_are_runs_of_the_file_and_take_alike(source: Path, shards: Path) -> None:
    report = cut(source, shards)
    assert report.shards == ("0000", "0001", "0002")
    assert (report.num_proteins, report.num_residues) == (NUM_PROTEINS, 60 * 61 // 2)
    assert (report.num_skipped, report.num_stops_removed) == (0, 1)
    entries = read_manifest(shards, "split").facts["shards"]
    assert [entry["num_proteins"] for entry in entries] == [34, 15, 11]
    assert all(abs(entry["num_residues"] - 610) <= 30 for entry in entries)
    assert report.largest_share == pytest.approx(max(entry["num_residues"] for entry in entries) / 1830)
    text = "".join((shards / f"{name}.fasta").read_text() for name in report.shards)
    expected = source.read_text().replace("sp|", "").replace("|N_HUMAN some", "").replace("*", "")
    assert text == expected


def test_one_giant_and_few_proteins_make_fewer_shards_and_none_is_empty(tmp_path: Path) -> None:
    source = tmp_path / "few.fasta"
    source.write_text(">A\nKK\n>giant\n" + "L" * 900 + "\n>B\nSS\n")
    report = split(str(source), tmp_path / "shards", SplitConfig(num_shards=10))
    counts = [entry["num_proteins"] for entry in read_manifest(tmp_path / "shards").facts["shards"]]
    assert (len(report.shards), counts) == (3, [1, 1, 1])


@pytest.mark.parametrize("table_format", ["csv", "parquet"])
def test_joined_answers_are_the_table_that_one_machine_makes(
    source: Path, shards: Path, tmp_path: Path, table_format: str
) -> None:
    cut(source, shards)
    answers = all_answered(shards, tmp_path / "answers")
    report = joined(shards, answers[::-1], tmp_path / "table", table_format)
    whole = tmp_path / f"whole.{table_format}"
    alone = predict_with(LettersPredictor(), str(source), whole, PredictConfig())  # type: ignore[arg-type]
    made = tmp_path / "table" / f"predictions.{table_format}"
    if table_format == "csv":
        assert made.read_bytes() == whole.read_bytes()
    else:
        assert pyarrow.parquet.read_table(made).equals(pyarrow.parquet.read_table(whole))
    figures = ("num_proteins", "num_residues", "num_confident", "num_unlike_training", "num_truncated")
    assert [getattr(report, name) for name in figures] == [getattr(alone, name) for name in figures]
    assert (report.locations, report.num_shards, report.num_stops_removed) == (alone.locations, 3, 1)


def test_page_and_summary_say_how_many_live_where(source: Path, shards: Path, tmp_path: Path) -> None:
    cut(source, shards)
    report = joined(shards, all_answered(shards, tmp_path / "answers"), tmp_path / "table")
    manifest = read_manifest(tmp_path / "table", "merge")
    assert set(manifest.files) == {"predictions.csv", "report.html", "summary.md"}
    assert manifest.inputs["model"] == report.model_digest == "m1"
    page = (tmp_path / "table" / "report.html").read_text()
    assert f"{NUM_PROTEINS} proteins of {source}" in page
    for location, count in report.locations.items():
        assert f"| {location} | {count} | {count / NUM_PROTEINS:.1%} |" in report.summary
        assert location in page


def test_shards_of_unlike_machines_are_joined_and_it_is_said(
    source: Path, shards: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut(source, shards)
    answers = all_answered(shards, tmp_path / "answers")
    alike = joined(shards, answers, tmp_path / "alike")
    assert alike.precisions == ("fp32",)
    assert "Computed in fp32.\n" in alike.summary
    assert caplog.text == ""
    coarse = LettersPredictor()
    coarse.is_fp32 = False
    other = answered(shards, "0001", tmp_path / "other", coarse)
    unlike = joined(shards, [answers[0], other, answers[2]], tmp_path / "unlike")
    assert unlike.precisions == ("bf16", "fp32")
    assert "Computed in bf16 and fp32, as the machines differed: another run may" in unlike.summary
    assert "precision=fp32 makes a table that can be repeated" in caplog.text


def test_bad_proteins_are_refused_or_left_out_by_the_cut(source: Path, shards: Path, tmp_path: Path) -> None:
    source.write_text(source.read_text() + ">bad\nK1\n")
    with pytest.raises(DataError, match=r"proteome\.fasta:121: bad: '1' at residue 2 .*on_bad=skip"):
        cut(source, shards)
    assert not shards.exists()
    assert cut(source, shards, on_bad="skip").num_skipped == 1
    report = joined(shards, all_answered(shards, tmp_path / "answers"), tmp_path / "table")
    assert (report.num_proteins, report.num_skipped) == (NUM_PROTEINS, 1)


def test_a_file_of_which_nothing_is_left_is_refused(tmp_path: Path, shards: Path) -> None:
    source = tmp_path / "bad.fasta"
    source.write_text(">P1\n1\n>P2\n2\n")
    with pytest.raises(DataError, match=r"bad\.fasta: none of its 2 proteins can be answered"):
        cut(source, shards, on_bad="skip")


class Forgetful(LettersPredictor):
    """Stands for whatever loses, doubles or swaps rows."""

    def __init__(self, change: Any) -> None:
        super().__init__()
        self.change = change

    def predict(self, sequences: Sequence[str]) -> list[Answer]:
        answers = super().predict(sequences)
        for answer in answers:
            answer.num_residues = self.change(answer.num_residues)
        return answers


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda folders: folders[:2], "1 of 3 shards have no answers: 0002"),
        (lambda folders: [*folders, folders[1]], "shard 0001 is answered already"),
        (lambda folders: [folders[0]], "2 of 3 shards have no answers: 0001, 0002"),
    ],
    ids=["lost", "doubled", "two lost"],
)
def test_a_shard_that_is_lost_or_doubled_is_refused(
    source: Path, shards: Path, tmp_path: Path, spoil: Any, line: str
) -> None:
    cut(source, shards)
    folders = all_answered(shards, tmp_path / "answers")
    with pytest.raises(ArtifactError, match=line):
        joined(shards, spoil(folders), tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_answers_that_are_not_those_of_the_shards_proteins_are_refused(
    source: Path, shards: Path, tmp_path: Path
) -> None:
    cut(source, shards)
    folders = all_answered(shards, tmp_path / "answers")[:2]
    folders.append(answered(shards, "0002", tmp_path / "wrong", Forgetful(lambda number: number + 1)))
    line = r"answers\.parquet: 11 proteins, 616 residues; the shard has 11 proteins, 605 residues"
    with pytest.raises(ArtifactError, match=line):
        joined(shards, folders, tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_answers_of_two_models_are_never_mixed(source: Path, shards: Path, tmp_path: Path) -> None:
    cut(source, shards)
    folders = all_answered(shards, tmp_path / "answers")[:2]
    folders.append(answered(shards, "0002", tmp_path / "other", model="m2"))
    with pytest.raises(ArtifactError, match=r"answered by 2 models \(shard 0001 by m1, shard 0002 by m2\)"):
        joined(shards, folders, tmp_path / "table")


def test_answers_to_another_file_are_refused(source: Path, shards: Path, tmp_path: Path) -> None:
    cut(source, shards)
    folders = all_answered(shards, tmp_path / "answers")
    source.write_text(source.read_text().replace("K", "R"))
    cut(source, tmp_path / "other")
    with pytest.raises(ArtifactError, match="answers to shards of another file"):
        joined(tmp_path / "other", folders, tmp_path / "table")


def test_a_shard_that_is_not_there_is_refused(source: Path, shards: Path, tmp_path: Path) -> None:
    cut(source, shards)
    with pytest.raises(ConfigError, match=r"has no shard '0007'; it has 0000, 0001, 0002 \(3 in all\)"):
        predict_shard(shards, "0007", tmp_path / "model", tmp_path / "answers", PredictConfig())


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (SplitConfig, {"num_shards": 0}),
        (SplitConfig, {"num_shards": 1001}),
        (SplitConfig, {"on_bad": "guess"}),
        (MergeConfig, {"table_format": "xlsx"}),
    ],
)
def test_settings_of_the_graph_that_cannot_work_are_refused(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        kind(**settings)
