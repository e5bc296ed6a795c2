"""The recipe that prottune starts from, in our own words: proteins padded to one length or cut to it.

It mirrors aws-samples/amazon-sagemaker-protein-classification (`data_prep.py`, `model_def.py`, `train.py`):
one tokenizer call an item, BERT's pooled [CLS] through dropout, one layer and tanh, gradients clipped, fp32.
What differs: AdamW stands for LAMB, which torch does not have, no layer is frozen, and one process trains.

B proteins of a batch, L tokens of each, C locations.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import BertModel, BertTokenizer

MAX_TOKENS = 512
"""Tokens that the recipe keeps of a protein, [CLS] and [SEP] included."""
_LOG_EVERY = 10
"""Steps between two looks at the loss; on a GPU each look waits for it."""
_RARE = re.compile("[UZOB]")


def spaced(sequence: str) -> str:
    """A protein as ProtBERT's own tokenizer reads it: one word a residue, rare residues as X."""
    return " ".join(_RARE.sub("X", sequence))


class ProteinSequenceDataset(Dataset[dict[str, Any]]):
    """Proteins that are tokenized one by one, each time they are read, and padded to `max_tokens`."""

    def __init__(
        self, sequences: Sequence[str], targets: Sequence[int], tokenizer: BertTokenizer, max_tokens: int
    ) -> None:
        self._sequences, self._targets = sequences, targets
        self._tokenizer, self._max_tokens = tokenizer, max_tokens

    def __len__(self) -> int:
        return len(self._sequences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        encoded = self._tokenizer(
            spaced(self._sequences[index]),
            max_length=self._max_tokens,
            padding="max_length",
            truncation=True,
            return_token_type_ids=False,
            return_tensors="pt",
        )
        return {
            "input_ids": encoded["input_ids"][0],
            "attention_mask": encoded["attention_mask"][0],
            "targets": torch.tensor(self._targets[index]),
        }


class ProteinClassifier(nn.Module):
    """BERT's pooled [CLS] -> dropout, one layer, tanh."""

    def __init__(self, base: Path, num_labels: int) -> None:
        super().__init__()
        self.bert = BertModel.from_pretrained(base, dtype=torch.float32)
        width = self.bert.config.hidden_size
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, num_labels), nn.Tanh())

    def forward(self, input_ids_BL: Tensor, attention_mask_BL: Tensor) -> Tensor:
        pooled_BD = self.bert(input_ids=input_ids_BL, attention_mask=attention_mask_BL).pooler_output
        logits_BC: Tensor = self.classifier(pooled_BD)
        return logits_BC


def train_epoch(
    model: ProteinClassifier,
    loader: DataLoader[dict[str, Any]],
    device: torch.device,
    precision: torch.dtype = torch.float32,
    log: Callable[[float], object] = lambda _: None,
) -> float:
    """Train for one epoch and return its seconds; `precision` is the recipe's own unless another is given.

    Raises: FloatingPointError if the last loss is not finite: such a run is worth no time.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-6, eps=1e-8, weight_decay=0.01)
    model.train()
    loss = torch.zeros(())
    start = time.perf_counter()
    for step, batch in enumerate(loader):
        half = precision != torch.float32
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            logits_BC = model(batch["input_ids"].to(device), batch["attention_mask"].to(device))
        loss = F.cross_entropy(logits_BC.float(), batch["targets"].to(device))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % _LOG_EVERY == 0:
            log(loss.item())
    last = loss.item()  # waits for a GPU
    seconds = time.perf_counter() - start
    if not math.isfinite(last):
        raise FloatingPointError(f"the seed's loop ended with loss {last}")
    return seconds


def seed_seconds(
    base: Path,
    sequences: Sequence[str],
    targets: Sequence[int],
    num_labels: int,
    *,
    max_tokens: int = MAX_TOKENS,
    batch_size: int = 16,
    precision: torch.dtype = torch.float32,
) -> float:
    """Seconds of the recipe's training loop on these proteins, its loader included."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(43)
    tokenizer = BertTokenizer.from_pretrained(base, do_lower_case=False)
    dataset = ProteinSequenceDataset(sequences, targets, tokenizer, max_tokens)
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, num_workers=0)
    return train_epoch(ProteinClassifier(base, num_labels).to(device), loader, device, precision)
