"""The model that the benchmarks of serving ask: ProtBERT's width, few layers, random weights, a real folder.

Its head is `cls`, so that the same folder loads in plain transformers: our side and every peer read the very
same weights and the same tokenizer. Its last layer is scaled up until answers differ from protein to protein.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.machine import training_operations
from benchmarks.own_training import FEED_FORWARD, NUM_HEADS, WIDTH, write_base
from benchmarks.proteins import deeploc_like_sequences
from prottune.alphabet import ALPHABET_SHA256, NUM_SPECIAL_TOKENS, encode
from prottune.artifacts import new_folder
from prottune.model.base import load_base
from prottune.model.classifier import LocationModel
from prottune.model.description import ModelDescription
from prottune.model.folder import save_model
from prottune.model.golden import write_golden
from prottune.model.inference import Predictor
from prottune.model.packed import PackedBatch
from prottune.records import DEEPLOC10

MAX_TOKENS = 4096
"""Positions of the model. 14 of DeepLoc's 13,704 proteins are longer and are cut, by every side alike."""
_INITIALIZER_RANGE, _SPREAD = 0.06, 0.3
"""Of the weights, and of a location's logits over proteins: eight times the error of bf16."""
_NUM_CENTRED = 16


@dataclass(frozen=True)
class Sizes:
    """Sizes of a model; they stand in its manifest."""

    num_layers: int
    num_positions: int = MAX_TOKENS
    width: int = WIDTH
    num_heads: int = NUM_HEADS
    feed_forward: int = FEED_FORWARD

    def operations(self, num_tokens: int) -> float:
        """Operations to answer for one protein of so many tokens; embeddings and head are left out."""
        learning = training_operations(np.array([num_tokens]), self.num_layers, self.width, self.feed_forward)
        return learning / 3  # forward; twice as much is backward

    def __str__(self) -> str:
        return f"{self.num_layers} layers of width {self.width}"


def write_served_model(folder: Path, sizes: Sizes) -> Path:
    """A finished model folder of these sizes, golden answers included; returns the folder."""
    with TemporaryDirectory(prefix="prottune-bench-") as scratch:
        base = write_base(
            Path(scratch) / "base",
            sizes.num_layers,
            sizes.num_positions,
            width=sizes.width,
            num_heads=sizes.num_heads,
            feed_forward=sizes.feed_forward,
            initializer_range=_INITIALIZER_RANGE,
        )
        model = load_base(str(base), "", "cls", DEEPLOC10.locations, 0.0).eval()
    _centre(model)
    description = ModelDescription(
        label_set=DEEPLOC10.name,
        labels=DEEPLOC10.locations,
        head="cls",
        max_residues=sizes.num_positions - NUM_SPECIAL_TOKENS,
        cut="head",
        alphabet_sha256=ALPHABET_SHA256,
        dataset_digest="0" * 64,
        base_model="random",
        base_digest="1" * 64,
        confident_above=0.5,
        energy_below=0.0,
        versions={"torch": torch.__version__},
    )
    with new_folder(folder, "train", sizes) as draft:
        save_model(model, draft.path, description)
        write_golden(draft.path, Predictor(model, description))
    return folder


@torch.no_grad()
def _centre(model: LocationModel) -> None:
    """Scale the last layer to the spread that is wanted, and shift it so that all proteins favour none."""
    proteins = [protein[:300] for protein in deeploc_like_sequences(_NUM_CENTRED)]
    logits_BC = torch.cat([model(PackedBatch.from_ids([encode([protein])[0]])) for protein in proteins])
    scale = _SPREAD / logits_BC.std(dim=0).mean()
    model.classifier.weight.mul_(scale)
    model.classifier.bias.sub_(logits_BC.mean(dim=0)).mul_(scale)
