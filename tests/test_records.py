"""The tables and label sets in which stages meet."""

from pathlib import Path

import pyarrow as pa
import pytest

from prottune.errors import ArtifactError, DataError
from prottune.records import (
    DEEPLOC10,
    Membrane,
    Protein,
    Split,
    base_accession,
    label_set_for,
    read_proteins,
    read_tokens,
    sequence_digest,
    sequence_digests,
    slug,
    write_proteins,
    write_tokens,
)

PROTEINS = [
    Protein("Q9H400", "MKT", "Cell.membrane", Membrane.BOUND, Split.TEST, "Q9H400"),
    Protein("P22462-2", "MKTA", "Golgi.apparatus", Membrane.UNKNOWN, Split.TRAIN, "P22462"),
]


def test_proteins_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_proteins(PROTEINS, tmp_path)
    assert read_proteins(tmp_path) == PROTEINS
    assert read_proteins(tmp_path, [Split.TRAIN]) == PROTEINS[1:]


def test_equal_proteins_give_equal_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in (tmp_path / "a", tmp_path / "b"):
        write_proteins(PROTEINS, folder)
    assert (tmp_path / "a/proteins.parquet").read_bytes() == (tmp_path / "b/proteins.parquet").read_bytes()


def test_tokens_stay_ragged_on_disk(tmp_path: Path) -> None:
    table = pa.table(
        {
            "accession": ["A", "B"],
            "ids": [[2, 21, 3], [2, 21, 12, 3]],
            "label": [0, 9],
            "membrane": ["M", "U"],
            "split": ["train", "test"],
            "num_residues": [1, 2],
            "truncated": [False, False],
            "sequence_sha256": ["a", "b"],
        }
    )
    write_tokens(table, tmp_path)
    assert read_tokens(tmp_path)["ids"].to_pylist() == [[2, 21, 3], [2, 21, 12, 3]]


def test_a_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"sequence": ["MKT"]}), tmp_path / "proteins.parquet")
    with pytest.raises(ArtifactError, match="columns"):
        read_proteins(tmp_path)


@pytest.mark.parametrize(
    ("accession", "base"),
    [
        ("P22462-2", "P22462"),
        ("Q9SMX3", "Q9SMX3"),
        ("A0A024R1R8-11", "A0A024R1R8"),
        ("my-protein-7", "my-protein-7"),
    ],
)
def test_an_isoform_belongs_to_its_base_accession(accession: str, base: str) -> None:
    assert base_accession(accession) == base


def test_label_set_is_deeploc10_when_the_locations_fit_in_it() -> None:
    assert label_set_for(["Peroxisome", "Nucleus"]) is DEEPLOC10
    assert label_set_for(["soluble", "membrane", "soluble"]).locations == ("membrane", "soluble")


def test_label_order_is_the_published_one() -> None:
    assert [DEEPLOC10.index(name) for name in ("Nucleus", "Cell.membrane", "Peroxisome")] == [0, 4, 9]
    with pytest.raises(DataError, match="'Vacuole' is not in label set 'deeploc10'"):
        DEEPLOC10.index("Vacuole")


def test_slugs_are_safe_in_paths_and_all_different() -> None:
    assert slug("Lysosome/Vacuole") == "lysosome_vacuole"
    assert len({slug(name) for name in DEEPLOC10.locations}) == 10


def test_sequence_digest_is_plain_sha256() -> None:
    assert sequence_digest("MKT").startswith("366893d2")


def test_digests_of_a_column_are_those_of_its_sequences() -> None:
    sequences = ["MKT", "M", "ACDEF"]
    column = pa.array(sequences, pa.large_string())
    assert sequence_digests(column) == [sequence_digest(sequence) for sequence in sequences]
    assert sequence_digests(column[1:]) == sequence_digests(column)[1:]
    assert sequence_digests(column[:0]) == []
