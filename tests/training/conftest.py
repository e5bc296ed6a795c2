"""What tests of training learn from: made-up tokens and a small base model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_tokens import make_tokens
from transformers import BertConfig, BertModel

from prottune import alphabet

TokenFolder = Callable[..., Path]


@pytest.fixture
def make_token_folder(tmp_path: Path) -> TokenFolder:
    """A function that writes the made-up token folder under the test's own folder."""

    def make(name: str = "tokens", **choices: object) -> Path:
        return make_tokens(tmp_path / name, **choices)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def shared_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up token folder, for tests that only read it."""
    return make_tokens(tmp_path_factory.mktemp("shared") / "tokens")


@pytest.fixture
def make_base_folder(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a base model of 16 numbers a residue, without dropout, as the Hub holds it."""

    def make(**settings: object) -> Path:
        torch.manual_seed(3)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        without_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        known = {"vocab_size": len(alphabet.VOCABULARY), "max_position_embeddings": 128}
        BertModel(BertConfig(**(sizes | without_dropout | known | settings))).save_pretrained(
            tmp_path / "base"
        )
        (tmp_path / "base" / "vocab.txt").write_text("\n".join(alphabet.VOCABULARY) + "\n")
        return tmp_path / "base"

    return make
