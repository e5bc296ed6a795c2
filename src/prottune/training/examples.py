"""The proteins of one split as the training loop reads them, mapped from `tokens.arrow`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prottune.errors import ArtifactError, ConfigError
from prottune.records import TOKENS_FILE, Membrane, Split, read_tokens
from prottune.training.batching import Integers
from prottune.training.settings import TrainConfig

if TYPE_CHECKING:
    from prottune.model.packed import PackedBatch


@dataclass(frozen=True)
class Examples:
    """N proteins: their token ids stay in the mapped file until they are read."""

    rows_N: Integers
    """Row of each protein in the table."""
    labels_N: Integers
    membrane_N: npt.NDArray[np.float32]
    """1 for a protein that is bound to a membrane, 0 for a soluble one, NaN where nobody knows."""
    num_tokens_N: Integers
    """Tokens of each protein, [CLS] and [SEP] included."""
    _flat_ids: npt.NDArray[np.uint8]
    _offsets: Integers

    def __len__(self) -> int:
        return len(self.rows_N)

    @property
    def has_flag(self) -> npt.NDArray[np.bool_]:
        """Of each protein, whether it is known to be bound to a membrane or not to be, [N]."""
        return ~np.isnan(self.membrane_N)

    def ids(self, proteins: Iterable[int]) -> list[npt.NDArray[np.uint8]]:
        """Token ids of some proteins, counted within this split."""
        rows = (int(self.rows_N[protein]) for protein in proteins)
        return [self._flat_ids[self._offsets[row] : self._offsets[row + 1]] for row in rows]

    def batch(self, proteins: Iterable[int], row_step: int = 1) -> PackedBatch:
        """Some proteins side by side, as the model reads them; the row is a multiple of `row_step`."""
        from prottune.model.packed import PackedBatch

        return PackedBatch.from_ids(self.ids(proteins), row_step)


def read_examples(tokens: Path, split: Split, num_labels: int) -> Examples:
    """Map one split of a checked token folder.

    Raises: ArtifactError if the split has no protein, or a label that is none of the model's outputs.
    """
    table = read_tokens(tokens)
    rows = np.flatnonzero(table["split"].to_numpy() == split.value)
    if not len(rows):
        raise ArtifactError(
            f"{tokens / TOKENS_FILE}: no protein in split {split.value!r}, expected at least one; "
            "ingest the data again with a share for it"
        )
    labels = table["label"].to_numpy()[rows].astype(np.int64)
    if labels.min() < 0 or labels.max() >= num_labels:
        wrong = int(rows[(labels < 0) | (labels >= num_labels)][0])
        raise ArtifactError(
            f"{tokens / TOKENS_FILE}, row {wrong}: label {table['label'][wrong]}, "
            f"expected 0 to {num_labels - 1}"
        )
    ids = table["ids"].combine_chunks()
    ids = ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids
    offsets = ids.offsets.to_numpy().astype(np.int64)
    num_tokens = (offsets[1:] - offsets[:-1])[rows]
    flags = table["membrane"].to_numpy()[rows]
    membrane = np.select([flags == Membrane.BOUND, flags == Membrane.SOLUBLE], [1.0, 0.0], np.nan)
    return Examples(rows, labels, membrane.astype(np.float32), num_tokens, ids.values.to_numpy(), offsets)


def check_membrane_flags(tokens: Path, train_set: Examples, config: TrainConfig) -> None:
    """Refuse to learn the membrane flag from proteins of which too little is known.

    Raises: ConfigError if it is to be learned and there are not both bound and soluble training proteins.
    """
    num_bound, num_soluble = (int((train_set.membrane_N == flag).sum()) for flag in (1, 0))
    if config.membrane_weight and not (num_bound and num_soluble):
        raise ConfigError(
            f"membrane_weight={config.membrane_weight:g}: of the training proteins in {tokens}, {num_bound} "
            f"are flagged membrane-bound (M) and {num_soluble} soluble (S), expected some of both; leave the "
            "setting out, or ingest data with flags"
        )
