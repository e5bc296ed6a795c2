"""What a model has learned from is written down, its base's proteins with its own, and no exam is spoiled."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from tiny_tokens import SPLITS

from prottune.errors import ArtifactError, ConfigError
from prottune.records import TRAINING_PROTEINS_FILE, read_tokens, sequence_digest
from prottune.training.seen import refuse_base_that_saw_the_exam, write_seen
from prottune.training.settings import TrainConfig
from prottune.training.stage import train

RESPLIT = ("test", "gate") + ("train",) * 6 + ("validation", "validation")
"""The proteins of `SPLITS` once more, but of what was trained on some judge now."""


def seen(folder: Path) -> dict[str, str]:
    table = pyarrow.parquet.read_table(folder / TRAINING_PROTEINS_FILE)
    assert table.column_names == ["base_accession", "sequence_sha256"]
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def test_it_has_seen_what_is_in_train_and_validation(make_token_folder, tmp_path: Path) -> None:
    write_seen(make_token_folder(), None, tmp_path)
    found = seen(tmp_path)
    assert sorted(int(name[1:]) for name in found) == [number for number in range(60) if number % 10 < 8]
    assert {len(digest) for digest in found.values()} == {len(sequence_digest("A"))}


def test_what_its_base_has_seen_it_has_seen_too_and_each_protein_once(
    make_token_folder, tmp_path: Path
) -> None:
    for name in ("base", "model"):
        (tmp_path / name).mkdir()
    first = make_token_folder("first")
    write_seen(first, None, tmp_path / "base")
    write_seen(make_token_folder("again", splits=RESPLIT), tmp_path / "base", tmp_path / "model")
    assert sorted(seen(tmp_path / "model")) == sorted(read_tokens(first)["accession"].to_pylist())
    assert pyarrow.parquet.read_metadata(tmp_path / "model" / TRAINING_PROTEINS_FILE).num_rows == 60


def test_a_base_may_go_on_with_the_proteins_that_it_knows(make_token_folder, tmp_path: Path) -> None:
    tokens = make_token_folder()
    write_seen(tokens, None, tmp_path)
    refuse_base_that_saw_the_exam(tmp_path, tokens, "model")
    refuse_base_that_saw_the_exam(None, tokens, "tiny")


def test_no_training_begins_from_a_base_that_saw_the_exam(make_token_folder, tmp_path: Path) -> None:
    first, base, model = make_token_folder("first"), tmp_path / "base", tmp_path / "model"
    train(first, base, TrainConfig(base_model="tiny", epochs=1, precision="fp32"))
    tokens = make_token_folder("again", splits=RESPLIT)
    with pytest.raises(ConfigError, match=r"was trained on 12 of the proteins of .*again that") as no:
        train(tokens, model, TrainConfig(base_model=str(base), epochs=1, precision="fp32"))
    assert "e.g. P00000, P00001, P00010, P00011, P00020; start from" in str(no.value)
    assert not model.exists()


def test_a_base_of_ours_without_its_list_or_with_other_weights_is_refused(
    make_token_folder, tmp_path: Path
) -> None:
    tokens, base, model = make_token_folder(), tmp_path / "base", tmp_path / "model"
    train(tokens, base, TrainConfig(base_model="tiny", epochs=1, precision="fp32"))
    weights = base / "model.safetensors"
    flipped = bytearray(weights.read_bytes())
    flipped[-1] ^= 1
    weights.write_bytes(flipped)
    config = TrainConfig(base_model=str(base), epochs=1, precision="fp32")
    with pytest.raises(ArtifactError, match=r"base/model\.safetensors: damaged"):
        train(tokens, model, config)
    flipped[-1] ^= 1
    weights.write_bytes(flipped)
    (base / TRAINING_PROTEINS_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"base/training_proteins\.parquet: missing, though the manifest"):
        train(tokens, model, config)
    assert not model.exists()


def test_the_same_protein_under_another_name_is_known(make_token_folder, tmp_path: Path) -> None:
    write_seen(make_token_folder("other", splits=SPLITS[::-1]), None, tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / TRAINING_PROTEINS_FILE)
    names = pa.array([f"Q{row}" for row in range(len(table))])
    renamed = table.set_column(0, "base_accession", names)
    pyarrow.parquet.write_table(renamed, tmp_path / TRAINING_PROTEINS_FILE)
    tokens = make_token_folder(splits=("train",) * 9 + ("test",))
    with pytest.raises(ConfigError, match="was trained on 6 of the proteins"):
        refuse_base_that_saw_the_exam(tmp_path, tokens, "model")


@pytest.mark.parametrize("content", [b"no parquet", b""])
def test_a_list_that_cannot_be_read_is_refused(make_token_folder, tmp_path: Path, content: bytes) -> None:
    (tmp_path / TRAINING_PROTEINS_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"training_proteins.parquet: not a Parquet file"):
        refuse_base_that_saw_the_exam(tmp_path, make_token_folder(), "model")
