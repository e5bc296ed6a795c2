"""What a frozen encoder says of each protein, computed once: an epoch of the head then takes seconds.

A head that reads one vector a protein gets a table of vectors in memory. A head that reads every residue gets
a table of all tokens in a scratch file, mapped into memory by all ranks; it is gone when they are.

Shapes: N proteins of a split, T tokens of all of them, B proteins of a batch, D width of the encoder.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prottune.alphabet import CLS_ID, SEP_ID, UNK_ID
from prottune.errors import ConfigError
from prottune.model.classifier import LocationModel
from prottune.model.packed import PackedBatch, row_step_for
from prottune.training.adaptation import is_encoder_frozen
from prottune.training.batching import Integers, fill_batches
from prottune.training.examples import Examples
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig

_ONE_RESIDUE = np.array([CLS_ID, UNK_ID, SEP_ID], np.uint8)
"""Stands for a protein of which one vector is known: all its tokens get that, so pooling gives it back."""

Pool = Callable[[Tensor, PackedBatch], Tensor]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PooledExamples(Examples):
    """Proteins of which the head's one vector is known."""

    vectors_ND: Tensor

    def batch(self, proteins: Iterable[int], row_step: int = 1) -> PackedBatch:
        """Some proteins side by side, each as one residue with its vector."""
        vectors_BD = self.vectors_ND[torch.as_tensor(np.asarray(proteins))]
        batch = PackedBatch.from_ids([_ONE_RESIDUE] * len(vectors_BD), row_step)
        return replace(batch, hidden_TD=vectors_BD.repeat_interleave(len(_ONE_RESIDUE), dim=0))


@dataclass(frozen=True)
class EncodedExamples(Examples):
    """Proteins of which all tokens' vectors are known."""

    table_TD: Tensor
    starts_N: Integers
    """First row of each protein in the table."""

    def batch(self, proteins: Iterable[int], row_step: int = 1) -> PackedBatch:
        """Some proteins side by side, with the vectors of all their tokens."""
        proteins = np.asarray(proteins)
        hidden_TD = torch.cat([self.rows(protein) for protein in proteins])
        return replace(super().batch(proteins, row_step), hidden_TD=hidden_TD)

    def rows(self, protein: int) -> Tensor:
        """The part of the table that is one protein's."""
        start = int(self.starts_N[protein])
        return self.table_TD[start : start + int(self.num_tokens_N[protein])]


def with_features(
    model: LocationModel,
    splits: tuple[Examples, Examples],
    config: TrainConfig,
    ranks: Ranks,
    precision: torch.dtype,
) -> tuple[Examples, Examples]:
    """Let a frozen encoder read every protein, if the settings want it; the splits then know what it said.

    Each rank reads a share; all get the whole. Nothing is kept beyond the run.

    Raises: ConfigError if the scratch folder has not enough room.
    """
    if not (config.cache_features and is_encoder_frozen(model)):
        return splits
    started = time.perf_counter()
    model.to(ranks.device).eval()
    reader = _Reader(model, config, ranks, precision)
    pool: Pool | None = getattr(model.head, "pool", None)  # heads that read every residue have none
    read = partial(reader.pooled, pool) if pool else reader.encoded
    train, validation = (read(examples) for examples in splits)
    _log.info("the frozen encoder read all proteins once, in %.0f s", time.perf_counter() - started)
    return train, validation


@dataclass(frozen=True)
class _Reader:
    """The frozen encoder at work, as one of the ranks."""

    model: LocationModel
    config: TrainConfig
    ranks: Ranks
    precision: torch.dtype

    def pooled(self, pool: Pool, examples: Examples) -> PooledExamples:
        """One vector a protein, exchanged between the ranks: megabytes."""
        vectors_ND = torch.zeros(len(examples), self.model.config.hidden_size)
        for proteins, batch, hidden_TD in self._read(examples):
            vectors_ND[torch.from_numpy(proteins)] = pool(hidden_TD, batch).float().cpu()
        return PooledExamples(**_same(examples), vectors_ND=self.ranks.sum(vectors_ND))

    def encoded(self, examples: Examples) -> EncodedExamples:
        """One vector a token, in a file that all ranks write and read: gigabytes.

        In the precision that the head computes in, so nothing is lost: its first layer rounds to that anyway.
        """
        ends_N = np.cumsum(examples.num_tokens_N)
        shape = (int(ends_N[-1]), int(self.model.config.hidden_size))
        table_TD = shared_table(shape, self.precision, self.ranks)
        starts_N = ends_N - examples.num_tokens_N
        found = EncodedExamples(**_same(examples), table_TD=table_TD, starts_N=starts_N)
        for proteins, batch, hidden_TD in self._read(examples):
            tokens_TD = hidden_TD[: batch.num_tokens].to("cpu", self.precision)
            parts = torch.split(tokens_TD, list(batch.num_tokens_each))
            for protein, part in zip(proteins, parts, strict=True):
                found.rows(protein).copy_(part)
        self.ranks.tell("written")  # by all ranks, before one of them reads
        return found

    @torch.no_grad()
    def _read(self, examples: Examples) -> Iterator[tuple[Integers, PackedBatch, Tensor]]:
        """This rank's share of the proteins, a batch at a time, with what the encoder says of it."""
        ranks = self.ranks
        longest_first = np.argsort(-examples.num_tokens_N, kind="stable")
        budget = self.config.tokens_per_pass or self.config.tokens_per_batch // ranks.world_size
        batches = fill_batches(longest_first, examples.num_tokens_N, budget)
        row_step = row_step_for(ranks.device, self.precision)
        for proteins in batches[ranks.rank :: ranks.world_size]:
            batch = examples.batch(proteins, row_step).to(ranks.device)
            half = self.precision != torch.float32
            with torch.autocast(ranks.device.type, dtype=torch.bfloat16, enabled=half):
                hidden_TD = self.model.encode(batch)
            yield proteins, batch, hidden_TD


def shared_table(shape: tuple[int, int], dtype: torch.dtype, ranks: Ranks) -> Tensor:
    """A table in a scratch file that all ranks of this machine see.

    Its space is taken at once, so that a full disk is an error here and not a crash in the middle. Its name
    is taken away as soon as all have it open: however the ranks end, nothing is left on the disk.

    Raises: ConfigError if there is not enough room, or if a rank runs on another machine.
    """
    num_bytes = shape[0] * shape[1] * dtype.itemsize
    path = Path(ranks.tell(str(_reserve(num_bytes)) if ranks.leads else ""))
    try:
        if not path.is_file():
            raise ConfigError(
                f"cache_features=True: rank {ranks.rank} does not see {path}, which rank 0 made; with "
                "several machines take head=mean (one vector a protein), or cache_features=False"
            )
        table = torch.from_file(str(path), shared=True, size=shape[0] * shape[1], dtype=dtype).view(shape)
        ranks.tell("open")  # on all ranks, since each waits here for all
    finally:
        if ranks.leads:
            path.unlink(missing_ok=True)
    return table


def _reserve(num_bytes: int) -> Path:
    """Make a scratch file of a size, with all of its space."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    _log.info("features of every residue: %s in %s, which has %s free", _size(num_bytes), folder, _size(free))
    if num_bytes <= free:
        handle, name = tempfile.mkstemp(prefix="prottune-features-", dir=folder)
        try:
            os.truncate(handle, num_bytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, num_bytes)
        except OSError:  # somebody else filled the disk meanwhile
            Path(name).unlink()
        else:
            return Path(name)
        finally:
            os.close(handle)
    raise ConfigError(
        f"cache_features=True: the frozen encoder's vectors of all residues take {_size(num_bytes)}, "
        f"{folder} has {_size(free)} free; name a larger disk (TMPDIR), take head=mean (one vector a "
        "protein), or cache_features=False (the encoder runs in every epoch)"
    )


def _same(examples: Examples) -> dict[str, Any]:
    return {field.name: getattr(examples, field.name) for field in fields(Examples)}


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
