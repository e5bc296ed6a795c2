"""A tiny made-up collection on which a model of seconds beats the floor, and what a run of it left behind."""

import random
from pathlib import Path

_SPACINGS = {"Nucleus": "oXXXoXXX", "Plastid": "oXoXXXXX"}
"""Both have two residues in eight and none side by side: composition, pairs and ends tell nothing apart."""


def toy_flags(folder: Path) -> list[str]:
    """Write proteins and a base model below `folder`; the flags of `python -m pipelines run` for them."""
    fast = ["--epochs", "4", "--learning-rate", "3e-3", "--head-learning-rate", "3e-3"]
    small = ["--tokens-per-batch", "1024", "--min-gate-proteins", "10"]
    fasta, base = write_toy(folder / "toy.fasta"), write_base(folder / "base")
    return ["--source", str(fasta), "--base-model", str(base), *fast, *small]


def write_base(folder: Path) -> Path:
    """Write an encoder of one layer in ProtBERT's layout, with weights so wide that it learns in seconds."""
    import torch
    from transformers import BertConfig, BertModel

    from prottune.alphabet import VOCABULARY

    torch.manual_seed(43)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.2,
    )
    model = BertModel(config)
    with torch.no_grad():
        model.embeddings.position_embeddings.weight.zero_()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return folder


def write_toy(fasta: Path, num_proteins: int = 300) -> Path:
    """Write proteins of two locations that differ in the spacing of their residues alone."""
    draws = random.Random(43)
    lines = []
    for number in range(num_proteins):
        location = "Nucleus" if number % 2 else "Plastid"
        phase, length = draws.randrange(8), draws.randrange(56, 64)
        skeleton = (_SPACINGS[location] * 10)[phase : phase + length]
        sequence = "".join(
            draws.choice("ACDEFGHIKLMNPQRSTVWY") if letter == "o" else letter for letter in skeleton
        )
        lines.append(f">T{number:05d} {location}-U{' test' if number % 5 == 0 else ''}\n{sequence}\n")
    fasta.write_text("".join(lines), encoding="utf-8")
    return fasta


def steps_run(runs: Path) -> set[str]:
    """Which steps of the latest run ended well. That a run says SUCCESS alone proves nothing."""
    return {
        output.parent.name.replace("-", "_")
        for output in (runs / "latest").glob("steps/*/*/executor_output.json")
    }
