"""Which proteins a model has learned from, those of its base included: what makes its scores honest later."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from prottune.errors import ArtifactError, ConfigError
from prottune.records import (
    TRAINING_PROTEINS_FILE,
    TRAINING_PROTEINS_SCHEMA,
    Split,
    base_accession,
    read_tokens,
)

_NUM_NAMED = 5
"""Accessions that a refusal names."""


def write_seen(tokens: Path, base: Path | None, folder: Path) -> None:
    """Write down the proteins that weights or thresholds have seen: here, and in the base's own training."""
    table = read_tokens(tokens)
    learned = [split in (Split.TRAIN, Split.VALIDATION) for split in table["split"].to_pylist()]
    seen = pa.concat_tables([_identities(table.filter(pa.array(learned))), _seen_by(base)])
    path = folder / TRAINING_PROTEINS_FILE
    pyarrow.parquet.write_table(seen.group_by(seen.column_names).aggregate([]), path, compression="zstd")


def refuse_base_that_saw_the_exam(base: Path | None, tokens: Path, name: str) -> None:
    """Refuse a base that prottune trained on proteins which shall judge the new model.

    Raises: ConfigError with some of their names; ArtifactError if the base's list cannot be read.
    """
    accessions, digests = (set(column.to_pylist()) for column in _seen_by(base).columns)
    table = read_tokens(tokens)
    known = [
        accession
        for accession, digest, split in zip(
            *(table[column].to_pylist() for column in ("accession", "sequence_sha256", "split")), strict=True
        )
        if split in (Split.GATE, Split.TEST)
        and (digest in digests or base_accession(accession) in accessions)
    ]
    if known:
        raise ConfigError(
            f"base_model={name!r} was trained on {len(known):,} of the proteins of {tokens} that shall judge "
            f"the new model (gate and test splits), e.g. {', '.join(known[:_NUM_NAMED])}; start from the "
            "model that it started from, or ingest records without these proteins"
        )


def _identities(tokens: pa.Table) -> pa.Table:
    accessions = [base_accession(accession) for accession in tokens["accession"].to_pylist()]
    return pa.table([accessions, tokens["sequence_sha256"]], schema=TRAINING_PROTEINS_SCHEMA)


def _seen_by(base: Path | None) -> pa.Table:
    """What a base model has learned from; nothing is known of one that others have trained."""
    path = base / TRAINING_PROTEINS_FILE if base else None
    if path is None or not path.is_file():
        return TRAINING_PROTEINS_SCHEMA.empty_table()
    try:
        table = pyarrow.parquet.read_table(path)
    except pa.ArrowInvalid as error:
        raise ArtifactError(f"{path}: not a Parquet file ({error})") from error
    if table.schema.names != TRAINING_PROTEINS_SCHEMA.names:
        raise ArtifactError(
            f"{path}: columns {table.schema.names}, expected {TRAINING_PROTEINS_SCHEMA.names}"
        )
    return table.cast(TRAINING_PROTEINS_SCHEMA)
