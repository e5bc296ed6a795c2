from __future__ import annotations

import csv
import gzip
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from counting_letters import LABELS, Answer, LettersPredictor
from tiny_model import write_tiny_model

from prottune.errors import ArtifactError, ConfigError, DataError
from prottune.prediction.settings import PredictConfig
from prottune.prediction.stage import predict, predict_with
from prottune.prediction.tables import table_schema

COLUMNS = [
    "accession",
    "location",
    "probability",
    "confident",
    "unlike_training",
    "truncated",
    "num_residues",
    "p_nucleus",
    "p_cell_membrane",
    "p_lysosome_vacuole",
    "membrane",
]
FASTA = ">sp|P12345|NAME_HUMAN Some protein\nKKK\nK\n>Q99999 Nucleus-U test\nLL ll\n>bare\nSSS*\n"


def answer(source: Path, output: Path, predictor: Any = None, **settings: Any) -> Any:
    return predict_with(predictor or LettersPredictor(), str(source), output, PredictConfig(**settings))


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "proteins.fasta"
    path.write_text(FASTA)
    return path


def test_every_protein_gets_a_row_in_the_order_of_the_file(fasta: Path, tmp_path: Path) -> None:
    report = answer(fasta, tmp_path / "out" / "table.csv")
    with (tmp_path / "out" / "table.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == COLUMNS
    assert [row[:2] for row in rows[1:]] == [
        ["P12345", "Nucleus"],
        ["Q99999", "Cell.membrane"],
        ["bare", "Lysosome/Vacuole"],
    ]
    assert rows[1][2:7] == ["0.71428573", "true", "false", "false", "4"]
    assert [float(value) for value in rows[3][7:-1]] == pytest.approx([1 / 6, 1 / 6, 4 / 6])
    assert [row[-1] for row in rows[1:]] == ["", "", ""]
    assert (report.num_proteins, report.num_residues, report.num_stops_removed) == (3, 11, 1)
    assert (report.num_confident, report.num_unlike_training, report.num_truncated) == (2, 0, 0)
    assert report.locations == {"Nucleus": 1, "Cell.membrane": 1, "Lysosome/Vacuole": 1}


def test_parquet_holds_the_same_table(fasta: Path, tmp_path: Path) -> None:
    answer(fasta, tmp_path / "table.parquet")
    table = pa.parquet.read_table(tmp_path / "table.parquet")
    assert table.schema.equals(table_schema(LABELS))
    assert table.column_names == COLUMNS
    assert table["accession"].to_pylist() == ["P12345", "Q99999", "bare"]
    assert table["p_nucleus"].to_pylist() == pytest.approx([5 / 7, 1 / 7, 1 / 6])
    assert table["confident"].to_pylist() == [True, True, False]


def test_a_packed_source_is_unpacked_while_it_is_read(fasta: Path, tmp_path: Path) -> None:
    packed = tmp_path / "proteins.fasta.gz"
    packed.write_bytes(gzip.compress(fasta.read_bytes()))
    answer(fasta, tmp_path / "plain.csv")
    answer(packed, tmp_path / "packed.csv")
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "packed.csv").read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_windows_change_nothing_but_memory(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "many.fasta"
    source.write_text("".join(f">P{n}\n{'KLS'[n % 3] * (n + 1)}\n" for n in range(50)))
    predictor = LettersPredictor()
    answer(source, tmp_path / f"a{suffix}", predictor, window=7)
    answer(source, tmp_path / f"b{suffix}")
    assert predictor.windows == [7] * 7 + [1]
    if suffix == ".csv":
        assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
    else:
        one, other = (pa.parquet.read_table(tmp_path / f"{name}.parquet") for name in "ab")
        assert one.equals(other)
        assert one["accession"].to_pylist() == [f"P{n}" for n in range(50)]


def test_memory_is_bounded_by_the_window(fasta: Path, tmp_path: Path) -> None:
    answer(fasta, tmp_path / "warm.csv")  # what is imported on first use is not counted
    source = tmp_path / "many.fasta"
    source.write_text("".join(f">P{number}\n{'KLSA' * 500}\n" for number in range(500)))
    tracemalloc.start()
    try:
        answer(source, tmp_path / "table.csv", window=5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.stat().st_size > 1_000_000
    assert peak < 300_000


def test_a_protein_with_a_strange_character_is_refused_by_line_and_nothing_is_left(tmp_path: Path) -> None:
    source = tmp_path / "bad.fasta"
    source.write_text(">P1\nKKK\n\n>P2 some\nKK1\n")
    with pytest.raises(DataError, match=r"bad\.fasta:4: P2: '1' at residue 3 is no amino acid.*on_bad=skip"):
        answer(source, tmp_path / "table.csv", window=1)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.fasta"]


def test_or_it_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "bad.fasta"
    source.write_text(">P1\nKKK\n" + ">P2\nK-K\n" * 7 + ">P3\n*\n>P4\nLLL\n")
    report = answer(source, tmp_path / "table.csv", on_bad="skip")
    assert (report.num_proteins, report.num_skipped) == (2, 8)
    assert (tmp_path / "table.csv").read_text().count("\n") == 3
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 5
    assert "bad.fasta:3: P2: '-' at residue 2" in caplog.text


def test_a_file_of_which_nothing_is_left_makes_no_table(tmp_path: Path) -> None:
    source = tmp_path / "bad.fasta"
    source.write_text(">P1\nK1\n>P2\n2\n")
    with pytest.raises(DataError, match=r"bad\.fasta: none of its 2 proteins can be answered"):
        answer(source, tmp_path / "table.csv", on_bad="skip")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.fasta"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["probabilities", "membrane"])
def test_an_answer_that_is_no_number_is_named_and_makes_no_table(
    fasta: Path, tmp_path: Path, field: str, number: float
) -> None:
    class Numberless(LettersPredictor):
        def predict(self, sequences: Sequence[str]) -> list[Answer]:
            answers = super().predict(sequences)
            value = answers[1].probabilities * np.float32(number) if field == "probabilities" else number
            setattr(answers[1], field, value)
            return answers

    line = "^Q99999: the model answered with what is no finite number, as for 1 of 3 proteins"
    with pytest.raises(ArtifactError, match=line):
        answer(fasta, tmp_path / "table.csv", Numberless())
    assert [path.name for path in tmp_path.iterdir()] == ["proteins.fasta"]


@pytest.mark.parametrize("text", ["", "no header\n", ">P1\n"])
def test_text_outside_the_grammar_is_refused_even_when_skipping(tmp_path: Path, text: str) -> None:
    source = tmp_path / "bad.fasta"
    source.write_text(text)
    with pytest.raises(DataError, match=r"bad\.fasta"):
        answer(source, tmp_path / "table.csv", on_bad="skip")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.fasta"]


def test_a_damaged_gzip_file_is_refused(fasta: Path, tmp_path: Path) -> None:
    source = tmp_path / "cut.fasta.gz"
    source.write_bytes(gzip.compress(fasta.read_bytes())[:-12])
    with pytest.raises(DataError, match=r"cut\.fasta\.gz: damaged gzip file"):
        answer(source, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


def test_a_model_that_fails_midway_leaves_nothing(fasta: Path, tmp_path: Path) -> None:
    class Failing(LettersPredictor):
        def predict(self, sequences: Sequence[str]) -> list[Answer]:
            if self.windows:
                raise MemoryError
            return super().predict(sequences)

    with pytest.raises(MemoryError):
        answer(fasta, tmp_path / "table.csv", Failing(), window=1)
    assert [path.name for path in tmp_path.iterdir()] == ["proteins.fasta"]


def test_an_output_that_exists_or_is_of_another_kind_is_refused(fasta: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"table\.xlsx: expected a name that ends in \.csv or \.parquet"):
        answer(fasta, tmp_path / "table.xlsx")
    (tmp_path / "table.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"table\.csv exists already"):
        predict(tmp_path / "no model", str(fasta), tmp_path / "table.csv", PredictConfig())
    assert (tmp_path / "table.csv").read_text() == "mine"


def test_a_source_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        answer(tmp_path / "absent.fasta", tmp_path / "table.csv")


def test_locations_that_are_spelled_alike_get_columns_of_their_own() -> None:
    names = table_schema(("A.b", "A b", "a/B")).names[7:]
    assert names == ["p_a_b", "p_a_b_2", "p_a_b_3", "membrane"]


def test_a_model_that_tells_the_membrane_fills_its_column(fasta: Path, tmp_path: Path) -> None:
    class Telling(LettersPredictor):
        def predict(self, sequences: Sequence[str]) -> list[Answer]:
            answers = super().predict(sequences)
            for entry, sequence in zip(answers, sequences, strict=True):
                entry.membrane = sequence.count("L") / len(sequence)
            return answers

    for suffix in (".csv", ".parquet"):
        answer(fasta, tmp_path / f"table{suffix}", Telling())
    assert pa.parquet.read_table(tmp_path / "table.parquet")["membrane"].to_pylist() == [0.0, 1.0, 0.0]
    with (tmp_path / "table.csv").open(newline="") as stream:
        assert [row["membrane"] for row in csv.DictReader(stream)] == ["0", "1", "0"]


@pytest.mark.parametrize(
    "settings", [{"on_bad": "guess"}, {"window": 0}, {"max_megabytes": 0}, {"precision": "fp16"}]
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        PredictConfig(**settings)


def test_a_real_model_answers_the_same_in_the_table_and_alone(tmp_path: Path) -> None:
    from prottune.model.inference import Predictor

    model = write_tiny_model(tmp_path / "model")
    source = tmp_path / "proteins.fasta"
    source.write_text(">P1\nMKTAYIAKQR\n>P2\nMSSS\n>P3\n" + "MKLV" * 150 + "\n")
    report = predict(
        model, str(source), tmp_path / "table.parquet", PredictConfig(window=2, precision="fp32")
    )
    table = pa.parquet.read_table(tmp_path / "table.parquet").to_pylist()
    alone = Predictor.load(model, "fp32").predict(["MKTAYIAKQR", "MSSS", "MKLV" * 150])
    assert [row["location"] for row in table] == [entry.location for entry in alone]
    for row, entry in zip(table, alone, strict=True):
        assert [row["p_nucleus"], row["p_cytoplasm"], row["p_extracellular"]] == pytest.approx(
            entry.probabilities.tolist(), abs=1e-5
        )
    assert [row["num_residues"] for row in table] == [10, 4, 600]
    assert [row["truncated"] for row in table] == [False, False, True]
    assert report.num_truncated == 1
