"""Our side of the training benchmarks: the stage `train` as torchrun calls it, in this process."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from transformers import BertConfig, BertForSequenceClassification, BertModel

from prottune.alphabet import PAD_ID, VOCABULARY, encode
from prottune.model.base import load_base
from prottune.model.packed import PackedBatch
from prottune.records import DEEPLOC10
from prottune.training.settings import TrainConfig, TrainReport
from prottune.training.stage import train

WIDTH, NUM_HEADS, FEED_FORWARD = 1024, 16, 4096
PROTBERT_LAYERS, PROTBERT_POSITIONS = 30, 40_000
"""ProtBERT's sizes. Source: Rostlab/prot_bert `config.json`."""
MAX_DIFFERENCE = 1e-5
"""Between our gradients and those of the padded model, relative, in fp32."""


def write_base(
    folder: Path,
    num_layers: int,
    num_positions: int,
    *,
    width: int = WIDTH,
    num_heads: int = NUM_HEADS,
    feed_forward: int = FEED_FORWARD,
    initializer_range: float = 0.02,
) -> Path:
    """A base model of ProtBERT's width with random weights, as the Hub holds one; returns the folder.

    With few layers ProtBERT's 40,000 positions would outweigh them, and prottune leaves so many untrained
    where its peers do not: so there are only as many as a peer needs, and all sides train them.
    """
    torch.manual_seed(43)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        pad_token_id=PAD_ID,
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=feed_forward,
        max_position_embeddings=num_positions,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=initializer_range,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="ascii")
    return folder


def own_report(base: Path, tokens: Path, tokens_per_batch: int, **settings: object) -> TrainReport:
    """Train one epoch on a token folder as the stage does, in this process; the model is thrown away."""
    chosen = {"epochs": 1, "learning_rate": 3e-6, "head": "cls", "head_dropout": 0.0, **settings}
    config = TrainConfig(base_model=str(base), tokens_per_batch=tokens_per_batch, **chosen)  # type: ignore[arg-type]
    with TemporaryDirectory(prefix="prottune-bench-") as folder, _as_one_rank():
        return train(tokens, Path(folder) / "model", config)


@contextmanager
def _as_one_rank() -> Iterator[None]:
    """What torchrun would say to a single rank, so that `train` starts no process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    before = dict(os.environ)
    os.environ.update(said, MASTER_PORT=str(port))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def check_equal_to_padded(base: Path, sequences: list[str], at_most: float = MAX_DIFFERENCE) -> float:
    """Make sure that we and the padded stock model learn the same from heads of these proteins, in fp32.

    Returns the relative difference of the gradients. Raises: AssertionError if it is too large.
    """
    own = load_base(str(base), "", "cls", DEEPLOC10.locations, 0.0).train()
    stock = BertForSequenceClassification.from_pretrained(
        base, num_labels=len(DEEPLOC10), dtype=torch.float32
    ).train()
    stock.classifier.load_state_dict(own.classifier.state_dict())
    ids = [encode([sequence[: 30 * number]])[0] for number, sequence in enumerate(sequences, start=1)]
    labels_B = torch.arange(len(ids)) % len(DEEPLOC10)
    rows = [torch.from_numpy(protein.astype("int64")) for protein in ids]
    input_ids_BL = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD_ID)
    attention_mask_BL = (input_ids_BL != PAD_ID).long()
    torch.autograd.backward(F.cross_entropy(own(PackedBatch.from_ids(ids)), labels_B))
    torch.autograd.backward(F.cross_entropy(stock(input_ids_BL, attention_mask_BL).logits, labels_B))
    theirs = {
        name.replace("bert.pooler.dense", "head.dense"): parameter.grad
        for name, parameter in stock.named_parameters()
    }
    squares, total = 0.0, 0.0
    for name, parameter in own.named_parameters():
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name
        squares += float((parameter.grad - theirs[name]).square().sum())
        total += float(theirs[name].square().sum())
    difference = math.sqrt(squares / total)
    assert difference <= at_most, f"gradients differ by {difference:.1e}, expected at most {at_most}"
    return difference
