"""Protein records -> ragged token ids in one memory-mapped table: tokenized once, read many times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from prottune import alphabet
from prottune.artifacts import new_folder, read_manifest
from prottune.errors import ArtifactError, DataError
from prottune.lookup import look_up
from prottune.records import PROTEINS_FILE, PROTEINS_SCHEMA, TOKENS_SCHEMA, sequence_digests, write_tokens


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """How much of a long protein the model reads."""

    max_residues: int = 0
    """Longer proteins are cut to this many residues; 0 keeps every protein whole."""
    cut: str = "head_tail"
    """Which residues a cut keeps: head_tail (half from each end), head, tail."""

    def __post_init__(self) -> None:
        alphabet.kept_ends(self.max_residues, self.cut)


@dataclass(frozen=True, kw_only=True)
class TokenizeReport:
    """What was tokenized, in plain numbers."""

    num_proteins: int
    num_residues: int
    """Before any cut."""
    num_tokens: int
    """After the cut, [CLS] and [SEP] included."""
    num_truncated: int
    num_residues_cut: int
    tokens_digest: str


def tokenize(records: Path, tokens: Path, config: TokenizeConfig) -> TokenizeReport:
    """Turn the residues of every protein into ProtBERT's ids, once, for training to read.

    Raises: ArtifactError if `records` is no finished folder of `ingest`; DataError if a location or a letter
        is not one of the records' own.
    """
    manifest = read_manifest(records, "ingest")
    labels: list[str] = manifest.facts["labels"]
    with new_folder(tokens, "tokenize", config, {"records": manifest.digest}) as draft:
        draft.facts.update(
            label_set=manifest.facts["label_set"],
            labels=labels,
            max_residues=config.max_residues,
            cut=config.cut,
            alphabet_sha256=alphabet.ALPHABET_SHA256,
        )
        table = token_table(_read(records), labels, config)
        write_tokens(table, draft.path)
    num_residues = pc.sum(table["num_residues"]).as_py()
    num_tokens = len(table["ids"].combine_chunks().values)
    return TokenizeReport(
        num_proteins=len(table),
        num_residues=num_residues,
        num_tokens=num_tokens,
        num_truncated=pc.sum(table["truncated"]).as_py(),
        num_residues_cut=num_residues + alphabet.NUM_SPECIAL_TOKENS * len(table) - num_tokens,
        tokens_digest=read_manifest(tokens, "tokenize").digest,
    )


def token_table(proteins: pa.Table, labels: list[str], config: TokenizeConfig) -> pa.Table:
    """Make the table of `TOKENS_SCHEMA` from the table of `PROTEINS_SCHEMA`, in the same order.

    Raises: DataError naming a location that is not in `labels`, or a protein with a strange letter.
    """
    sequences = proteins["sequence"].combine_chunks()
    num_residues = pc.cast(pc.binary_length(sequences), pa.int32())
    label = pc.cast(pc.index_in(proteins["location"], pa.array(labels, pa.string())), pa.int16())
    if label.null_count:
        strangers = pc.unique(proteins["location"].filter(pc.is_null(label))).to_pylist()
        raise DataError(f"locations {strangers[:5]} are not in the records' own label set {labels}")
    ids = encode_column(_cut_column(sequences, config))
    _refuse_unknown(ids, proteins)
    columns = {
        "accession": proteins["accession"],
        "ids": ids,
        "label": label,
        "membrane": proteins["membrane"],
        "split": proteins["split"],
        "num_residues": num_residues,
        "truncated": pc.greater(num_residues, config.max_residues or np.iinfo(np.int32).max),
        "sequence_sha256": sequence_digests(sequences),
    }
    return pa.table(columns, schema=TOKENS_SCHEMA)


def encode_column(sequences: pa.LargeStringArray) -> pa.LargeListArray:
    """Look up a whole column at once: its buffer of letters becomes the buffer of ids, its offsets stay."""
    before, after, between = (
        pa.scalar(text, pa.large_string()) for text in (alphabet.CLS_MARK, alphabet.SEP_MARK, "")
    )
    marked = pc.binary_join_element_wise(before, sequences, after, between)
    _, offsets, letters = marked.buffers()
    num_letters = letters.size if letters is not None else 0  # Arrow has no buffer for a column without rows
    ids = pa.Array.from_buffers(pa.uint8(), num_letters, [None, look_up(letters, alphabet.TABLE)])
    ids_type = TOKENS_SCHEMA.field("ids").type
    return pa.LargeListArray.from_buffers(ids_type, len(marked), [None, offsets], children=[ids])


def _cut_column(sequences: pa.LargeStringArray, config: TokenizeConfig) -> pa.LargeStringArray:
    """Apply `alphabet.cut` to a whole column."""
    if config.max_residues == 0:
        return sequences
    head, tail = alphabet.kept_ends(config.max_residues, config.cut)
    nothing = pa.scalar("", pa.large_string())
    first = pc.utf8_slice_codeunits(sequences, 0, head) if head else nothing
    last = pc.utf8_slice_codeunits(sequences, -tail) if tail else nothing
    both = pc.binary_join_element_wise(first, last, nothing)
    return pc.if_else(pc.greater(pc.binary_length(sequences), config.max_residues), both, sequences)


def _refuse_unknown(ids: pa.LargeListArray, proteins: pa.Table) -> None:
    flat = ids.values.to_numpy()
    if not len(flat) or flat.min() > alphabet.UNK_ID:  # padding, the only smaller id, is never here
        return
    row = int(np.searchsorted(ids.offsets.to_numpy(), flat.argmin(), side="right")) - 1
    accession, sequence = (proteins[name][row].as_py() for name in ("accession", "sequence"))
    raise DataError(
        f"{accession}: a letter of {sequence[:20]!r} is no residue; ingestion lets none through, so the "
        "records were changed by other means"
    )


def _read(records: Path) -> pa.Table:
    table = pa.parquet.read_table(records / PROTEINS_FILE)
    if not table.schema.equals(PROTEINS_SCHEMA):
        raise ArtifactError(
            f"{records / PROTEINS_FILE}: columns {table.schema.names}, expected {PROTEINS_SCHEMA.names}"
        )
    return table
