"""Whether a model was trained on the very proteins it is scored on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet

from prottune.errors import ArtifactError
from prottune.records import Protein, base_accession, sequence_digest

TRAINING_PROTEINS_FILE = "training_proteins.parquet"
_COLUMNS = ["base_accession", "sequence_sha256"]


def known_proteins(model: Path, proteins: Sequence[Protein]) -> list[bool]:
    """Say of each protein whether the model saw it in training: same base accession, or same sequence.

    Raises: ArtifactError if the model folder does not tell what it was trained on.
    """
    path = model / TRAINING_PROTEINS_FILE
    if not path.is_file():
        raise ArtifactError(f"{path}: missing; without it nobody can tell whether the model knows the test")
    table = pyarrow.parquet.read_table(path)
    if table.schema.names != _COLUMNS:
        raise ArtifactError(f"{path}: columns {table.schema.names}, expected {_COLUMNS}")
    accessions, digests = (set(table[name].to_pylist()) for name in _COLUMNS)
    return [
        base_accession(protein.accession) in accessions or sequence_digest(protein.sequence) in digests
        for protein in proteins
    ]
