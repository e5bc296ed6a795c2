"""Small encoders of several families, and folders of them as others publish them."""

import json
from pathlib import Path

import torch
from transformers import CONFIG_MAPPING, MODEL_MAPPING, EsmConfig, EsmForMaskedLM

from prottune.alphabet import VOCABULARY

ESM_VOCABULARY = (
    *("<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO"),
    *(".", "-", "<null_1>", "<mask>"),
)
"""Source: facebook/esm2_t6_8M_UR50D `vocab.txt`."""

ESM2 = {"position_embedding_type": "rotary", "token_dropout": True, "emb_layer_norm_before": False}
"""What makes an EsmConfig ESM-2. Source: facebook/esm2_t6_8M_UR50D `config.json`."""

_SIZES = {
    "vocab_size": len(ESM_VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 256,
    "pad_token_id": ESM_VOCABULARY.index("<pad>"),
    "initializer_range": 0.2,
}
_WITHOUT_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_LAYOUTS = {
    "bert": ("bert", {}),
    "esm-2": ("esm", {**ESM2, "mask_token_id": 32}),
    "esm-1b": ("esm", {"emb_layer_norm_before": True, "token_dropout": True, "mask_token_id": 32}),
    "esmc": ("esmc", {}),
    "electra": ("electra", {"embedding_size": 16}),
    "distilbert": ("distilbert", {"hidden_dim": 48, "dropout": 0.0, "attention_dropout": 0.0}),
    "roberta": ("roberta", {}),
    "roformer": ("roformer", {"embedding_size": 16}),
    "deberta-v2": ("deberta-v2", {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "mpnet": ("mpnet", {}),
    "modernbert": ("modernbert", {"local_attention": 8}),
    "mobilebert": ("mobilebert", {"embedding_size": 16, "initializer_range": 0.02}),  # has no layer norms
    "convbert": ("convbert", {"embedding_size": 16}),
    "albert": ("albert", {"embedding_size": 16}),
}
_SPECIAL_TOKENS = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))

PACKED = ("bert", "esm-2", "esm-1b", "esmc", "electra", "distilbert", "roberta")
PADDED = ("roformer", "deberta-v2", "mpnet", "modernbert", "mobilebert")


def small_encoder_config(layout, **changes):
    """Settings of a two-layer encoder of a family, with ESM's vocabulary unless a change says another."""
    family, own = _LAYOUTS[layout]
    return CONFIG_MAPPING[family](**{**_SIZES, **_WITHOUT_DROPOUT, **_SPECIAL_TOKENS, **own, **changes})


def stock_encoder(layout, seed=0):
    """The family's own class with random weights."""
    torch.manual_seed(seed)
    config = small_encoder_config(layout)
    return MODEL_MAPPING[type(config)](config).eval()


def write_esm_base(folder: Path, vocabulary=ESM_VOCABULARY, old_names=False, **changes) -> Path:
    """Write ESM-2 as it is published: weights of pre-training under `esm.`, and vocab.txt.

    With `old_names` as in 2022: a pickle that repeats the angles of positions in each layer, in 16 bits.
    """
    torch.manual_seed(1)
    settings = {**_SIZES, **_WITHOUT_DROPOUT, **ESM2, "mask_token_id": 32, **changes}
    model = EsmForMaskedLM(EsmConfig(**settings))
    folder.mkdir(parents=True)
    if old_names:
        weights = dict(model.state_dict())
        angles = weights.pop("esm.rotary_embeddings.inv_freq").half()
        for layer in range(settings["num_hidden_layers"]):
            weights[f"esm.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"] = angles
        torch.save(weights, folder / "pytorch_model.bin")
        config = {**model.config.to_dict(), "model_type": "esm", "torch_dtype": "float32"}
        (folder / "config.json").write_text(json.dumps(config))
    else:
        model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder


def write_base(folder: Path, layout: str) -> Path:
    """Write an encoder of another family whose vocabulary is ProtBERT's."""
    torch.manual_seed(1)
    config = small_encoder_config(layout, vocab_size=len(VOCABULARY), pad_token_id=0)
    MODEL_MAPPING[type(config)](config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder
