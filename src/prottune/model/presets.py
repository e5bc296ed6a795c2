"""Small encoders that start from scratch, for a laptop: no download, no pretraining."""

from __future__ import annotations

from transformers import BertConfig

from prottune.alphabet import PAD_ID, VOCABULARY

MAX_POSITIONS = 4096
"""Rows of the presets' position table: 99.9 % of DeepLoc fits (14 of 13,704 proteins are longer)."""


def _preset(width: int, num_layers: int, num_heads: int, feed_forward: int) -> dict[str, int | float | str]:
    return {
        "vocab_size": len(VOCABULARY),
        "pad_token_id": PAD_ID,
        "hidden_size": width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "intermediate_size": feed_forward,
        "max_position_embeddings": MAX_POSITIONS,
        "initializer_range": width
        ** -0.5,  # keeps the size of what passes; BERT's 0.02 is for a width of 1,024
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.0,  # flash attention over packed rows has no dropout
    }


PRESETS = {
    "tiny": _preset(width=64, num_layers=2, num_heads=2, feed_forward=256),
    "small": _preset(width=128, num_layers=2, num_heads=2, feed_forward=512),
}
"""Name -> settings of a BERT encoder with ProtBERT's vocabulary."""


def preset_config(name: str) -> BertConfig:
    """BERT's settings of a preset."""
    return BertConfig(**PRESETS[name])
