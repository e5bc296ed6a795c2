"""The formats in which stages meet: proteins, splits, label sets and the two tables that carry them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from prottune.errors import ArtifactError, DataError

PROTEINS_FILE = "proteins.parquet"
TRAINING_PROTEINS_FILE = "training_proteins.parquet"
TOKENS_FILE = "tokens.arrow"


class Split(StrEnum):
    """What a protein is used for.

    `validation` (early stopping, temperature) and `gate` (the promotion decision) are cut from the
    training proteins; `test` is the official one, only reported.
    """

    TRAIN = "train"
    VALIDATION = "validation"
    GATE = "gate"
    TEST = "test"


class Membrane(StrEnum):
    """DeepLoc's second label. `UNKNOWN` also stands for DeepLoc files that carry no flag (X)."""

    BOUND = "M"
    SOLUBLE = "S"
    UNKNOWN = "U"


@dataclass(frozen=True)
class LabelSet:
    """The locations a model can answer, in the order of its outputs; the order is part of the model."""

    name: str
    locations: tuple[str, ...]

    def index(self, location: str) -> int:
        """Position of a location among the model's outputs.

        Raises: DataError if the location is not in this set.
        """
        try:
            return self.locations.index(location)
        except ValueError:
            raise DataError(
                f"location {location!r} is not in label set {self.name!r}; "
                f"expected one of {', '.join(self.locations)}"
            ) from None

    def __len__(self) -> int:
        return len(self.locations)


DEEPLOC10 = LabelSet(
    "deeploc10",
    (
        "Nucleus",
        "Cytoplasm",
        "Extracellular",
        "Mitochondrion",
        "Cell.membrane",
        "Endoplasmic.reticulum",
        "Plastid",
        "Golgi.apparatus",
        "Lysosome/Vacuole",
        "Peroxisome",
    ),
)
"""The ten locations of DeepLoc 1.0, by size. Source: Almagro Armenteros et al. 2017, table 1."""


def label_set_for(locations: Iterable[str]) -> LabelSet:
    """Choose a collection's label set: `deeploc10` when its locations fit in it, else the sorted names."""
    found = sorted(set(locations))
    if set(found) <= set(DEEPLOC10.locations):
        return DEEPLOC10
    return LabelSet("custom", tuple(found))


def slug(location: str) -> str:
    """Spell a location so that it can be part of a path, a metric key or a Kubernetes label."""
    return re.sub(r"[^a-z0-9]+", "_", location.lower()).strip("_")


def base_accession(accession: str) -> str:
    """The protein that an isoform belongs to: `P22462-2` -> `P22462`; other names stay as they are.

    Source: UniProt's accession format, https://www.uniprot.org/help/accession_numbers
    """
    isoform = re.fullmatch(r"((?:[OPQ]\d[A-Z\d]{3}\d|[A-NR-Z]\d(?:[A-Z][A-Z\d]{2}\d){1,2}))-\d+", accession)
    return isoform.group(1) if isoform else accession


def sequence_digest(sequence: str) -> str:
    """SHA-256 of a cleaned sequence, in hex: the identity by which contamination is found."""
    return hashlib.sha256(sequence.encode("ascii")).hexdigest()


def sequence_digests(sequences: pa.LargeStringArray) -> list[str]:
    """`sequence_digest` of each sequence of a column, read where it lies in memory."""
    _, offsets, letters = sequences.buffers()
    borders = np.frombuffer(offsets, np.int64)[sequences.offset :][: len(sequences) + 1].tolist()
    text = memoryview(letters or b"")
    return [hashlib.sha256(text[start:end]).hexdigest() for start, end in pairwise(borders)]


@dataclass(frozen=True)
class Protein:
    """One labelled protein after ingestion: clean residues, a known location, a split and a cluster."""

    accession: str
    sequence: str
    location: str
    membrane: Membrane
    split: Split
    cluster: str
    """Accession of the representative of the protein's homology cluster."""

    @property
    def num_residues(self) -> int:
        return len(self.sequence)


PROTEINS_SCHEMA = pa.schema(
    [
        ("accession", pa.string()),
        ("sequence", pa.large_string()),
        ("location", pa.string()),
        ("membrane", pa.string()),
        ("split", pa.string()),
        ("cluster", pa.string()),
        ("length", pa.int32()),
    ]
)

TOKENS_SCHEMA = pa.schema(
    [
        ("accession", pa.string()),
        ("ids", pa.large_list(pa.field("item", pa.uint8(), nullable=False))),
        ("label", pa.int16()),
        ("membrane", pa.string()),
        ("split", pa.string()),
        ("num_residues", pa.int32()),
        ("truncated", pa.bool_()),
        ("sequence_sha256", pa.string()),
    ]
)
"""One row a protein. `ids` are ragged and unpadded, [CLS] and [SEP] included; `label` counts in the
manifest's `labels`; `num_residues` is the length before any cut."""


TRAINING_PROTEINS_SCHEMA = pa.schema([("base_accession", pa.string()), ("sequence_sha256", pa.string())])
"""What a model's weights and thresholds have learned from, beside the weights."""


def write_proteins(proteins: Sequence[Protein], folder: Path) -> None:
    """Write `proteins.parquet`, one row a protein in the order given; equal input gives equal bytes."""
    columns = {
        "accession": [protein.accession for protein in proteins],
        "sequence": [protein.sequence for protein in proteins],
        "location": [protein.location for protein in proteins],
        "membrane": [protein.membrane.value for protein in proteins],
        "split": [protein.split.value for protein in proteins],
        "cluster": [protein.cluster for protein in proteins],
        "length": [protein.num_residues for protein in proteins],
    }
    write_protein_table(pa.table(columns, schema=PROTEINS_SCHEMA), folder)


def write_protein_table(table: pa.Table, folder: Path) -> None:
    """Write `proteins.parquet` from the table of `PROTEINS_SCHEMA`."""
    pa.parquet.write_table(table, folder / PROTEINS_FILE, compression="zstd")


def read_proteins(folder: Path, splits: Iterable[Split] = tuple(Split)) -> list[Protein]:
    """Read the proteins of some splits, in file order. Check the folder first (`artifacts.read_manifest`).

    Raises: ArtifactError if the table has other columns than `PROTEINS_SCHEMA`.
    """
    table = pa.parquet.read_table(folder / PROTEINS_FILE)
    if table.schema.names != PROTEINS_SCHEMA.names:
        raise ArtifactError(
            f"{folder / PROTEINS_FILE}: columns {table.schema.names}, expected {PROTEINS_SCHEMA.names}"
        )
    return proteins_of(table, splits)


def proteins_of(table: pa.Table, splits: Iterable[Split] = tuple(Split)) -> list[Protein]:
    """The proteins of some splits in the table of `PROTEINS_SCHEMA`, in its order."""
    wanted = {split.value for split in splits}
    return [
        Protein(
            row["accession"],
            row["sequence"],
            row["location"],
            Membrane(row["membrane"]),
            Split(row["split"]),
            row["cluster"],
        )
        for row in table.to_pylist()
        if row["split"] in wanted
    ]


def write_tokens(table: pa.Table, folder: Path) -> None:
    """Write `tokens.arrow`, an Arrow IPC file that readers map into memory instead of loading it."""
    with pa.ipc.new_file(folder / TOKENS_FILE, TOKENS_SCHEMA) as writer:
        writer.write_table(table.cast(TOKENS_SCHEMA))


def read_tokens(folder: Path) -> pa.Table:
    """Map `tokens.arrow` into memory; nothing is read until it is used. Check the folder first.

    Raises: ArtifactError if the table has other columns than `TOKENS_SCHEMA`.
    """
    table = pa.ipc.open_file(pa.memory_map(str(folder / TOKENS_FILE))).read_all()
    if table.schema.names != TOKENS_SCHEMA.names:
        raise ArtifactError(
            f"{folder / TOKENS_FILE}: columns {table.schema.names}, expected {TOKENS_SCHEMA.names}"
        )
    return table
