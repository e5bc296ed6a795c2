"""The tokenizer files that travel with a model: raw sequences in, prottune's ids out, for any software."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, processors

from prottune.alphabet import CLS_ID, RARE_RESIDUES, SEP_ID, UNK_ID, VOCABULARY

_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def save_tokenizer(folder: Path, max_tokens: int) -> None:
    """Write `tokenizer.json`, its settings and `vocab.txt`: stock transformers then reads raw sequences.

    White space goes, letters become upper case, U Z O B J become X: the same ids as `alphabet.encode` of the
    cleaned sequence. What is no residue becomes [UNK]; prottune itself refuses it. These ids are what a
    LocationModel is fed whatever its encoder; one with other ids (ESM) translates them inside.
    """
    _raw_tokenizer().save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        **_SPECIAL,
    }
    _write(folder / "tokenizer_config.json", settings)
    _write(folder / "special_tokens_map.json", _SPECIAL)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="ascii")


def _raw_tokenizer() -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=VOCABULARY[UNK_ID]))  # letters
    residues = [token for token in VOCABULARY if len(token) == 1 and token not in RARE_RESIDUES]
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex(r"\s+"), ""),
            normalizers.Replace(Regex(f"[{RARE_RESIDUES}{RARE_RESIDUES.lower()}]"), "X"),
            *(normalizers.Replace(residue.lower(), residue) for residue in residues),  # there is no Uppercase
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS_ID), ("[SEP]", SEP_ID)],
    )
    tokenizer.add_special_tokens(list(_SPECIAL.values()))
    return tokenizer


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
