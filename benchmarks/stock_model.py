"""How KServe's huggingfaceserver answers, re-created with transformers: the first peer of every serving row.

It mirrors `HuggingfaceEncoderModel` (kserve, python/huggingfaceserver/huggingfaceserver/encoder_model.py):
AutoTokenizer, padded to the longest of the request, cut to the model's length, float32 on a CPU unless told
otherwise, transformers' own attention (sdpa), and the model called where the request is handled. What differs
is in its favour: the tokenizer of our model folder reads proteins as they are; its own settings make [UNK] of
them. It answers with the probabilities that `--return_probabilities` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer


class StockModel:
    """Tokenizer and model of a folder, as transformers loads them."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self._model = AutoModelForSequenceClassification.from_pretrained(str(folder), dtype=dtype).eval()
        self._max_length = self._model.config.max_position_embeddings

    @property
    def model(self) -> torch.nn.Module:
        """What the engines' exporters read."""
        model: torch.nn.Module = self._model
        return model

    def predict(self, sequences: Sequence[str]) -> list[list[float]]:
        """Probabilities of each location, a list a protein, rounded as the server rounds them."""
        inputs = self._tokenizer(
            list(sequences), max_length=self._max_length, padding=True, truncation=True, return_tensors="pt"
        )
        with torch.no_grad():
            logits_BC = self._model(**inputs, return_dict=True).logits
        found = []
        for row in logits_BC:
            probabilities = torch.softmax(row[None], dim=-1).squeeze()
            found.append([float(f"{value:.4f}") for value in probabilities])
        return found

    def probabilities(self, sequences: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.array(self.predict(sequences), np.float32)
