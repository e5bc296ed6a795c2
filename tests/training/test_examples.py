from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from prottune import alphabet
from prottune.errors import ArtifactError
from prottune.records import Split, read_tokens
from prottune.training.examples import read_examples


def test_examples_are_the_rows_of_one_split(make_token_folder) -> None:
    tokens = make_token_folder()
    table = read_tokens(tokens)
    examples = read_examples(tokens, Split.VALIDATION, 3)
    assert examples.rows_N.tolist() == [6, 7, 16, 17, 26, 27, 36, 37, 46, 47, 56, 57]
    assert examples.labels_N.tolist() == [0, 1] * 6
    for protein, row in enumerate(examples.rows_N.tolist()):
        assert examples.ids([protein])[0].tolist() == table["ids"][row].as_py()
        assert examples.num_tokens_N[protein] == table["num_residues"][row].as_py() + 2
    assert examples.ids([3])[0][0] == alphabet.CLS_ID


def test_ids_are_read_right_from_a_table_of_several_chunks(make_token_folder, tmp_path: Path) -> None:
    whole = make_token_folder()
    table = read_tokens(whole)
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7, 30), table.slice(37)])
    (tmp_path / "pieces").mkdir()
    with pa.ipc.new_file(tmp_path / "pieces" / "tokens.arrow", table.schema) as writer:
        writer.write_table(pieces)
    expected = read_examples(whole, Split.TRAIN, 3)
    found = read_examples(tmp_path / "pieces", Split.TRAIN, 3)
    everything = range(len(expected))
    assert len(found) == 36
    assert all(map(np.array_equal, found.ids(everything), expected.ids(everything)))


def test_a_split_without_proteins_is_refused(make_token_folder) -> None:
    tokens = make_token_folder(splits=("train", "test"))
    with pytest.raises(ArtifactError, match=r"tokens.arrow: no protein in split 'validation'"):
        read_examples(tokens, Split.VALIDATION, 3)


def test_a_label_that_is_no_output_of_the_model_is_refused(make_token_folder) -> None:
    with pytest.raises(ArtifactError, match=r"row 1: label 1, expected 0 to 0"):
        read_examples(make_token_folder(), Split.TRAIN, 1)
