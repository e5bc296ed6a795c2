"""An encoder as others publish it: settings, vocabulary and weights, read without running anything."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from transformers import PreTrainedConfig

from prottune.alphabet import STANDARD_RESIDUES, VOCABULARY
from prottune.errors import ArtifactError, ConfigError
from prottune.model.encoders import encoder_config

PICKLE_FILE = "pytorch_model.bin"
VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}

_SPELLINGS = {
    "[PAD]": ("[PAD]", "<pad>"),
    "[UNK]": ("[UNK]", "<unk>"),
    "[CLS]": ("[CLS]", "<cls>", "<s>"),
    "[SEP]": ("[SEP]", "<eos>", "<sep>", "</s>"),
    "[MASK]": ("[MASK]", "<mask>"),
}
"""How vocabularies write the tokens that are no residues; ESM's are the second."""

_NEEDED = ("[PAD]", "[CLS]", "[SEP]", *STANDARD_RESIDUES, "X")
"""All that `alphabet.encode` writes, and padding. What else is missing counts as X."""


@dataclass(frozen=True)
class PublishedEncoder:
    """What a folder says of its encoder."""

    config: PreTrainedConfig
    token_ids: tuple[int, ...] | None
    """The encoder's own id of each token of `alphabet.VOCABULARY`; None if they are the same."""


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of config.json. ProtBERT's has no `model_type`; that means bert.

    Raises: ArtifactError if there is none or it is no JSON object.
    """
    path = folder / "config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{folder}: no config.json; this is not a folder of a base model") from None
    except ValueError as error:
        raise ArtifactError(f"{path}: not JSON ({error})") from error
    if not isinstance(settings, dict):
        raise ArtifactError(f"{path}: expected a JSON object, got {type(settings).__name__}")
    return {"model_type": "bert", **settings}


def read_encoder(folder: Path) -> PublishedEncoder:
    """What a folder says of its encoder: settings, and its own id of each of our tokens.

    A BERT must number residues as ProtBERT does: its folder then loads in stock transformers. Of other
    families the numbers are translated.

    Raises: ConfigError for another family, another BERT vocabulary or none; ArtifactError for a vocabulary
        that lacks a residue.
    """
    settings, where = read_config(folder), str(folder / "config.json")
    token_ids = None
    if settings["model_type"] == "prottune":  # our own folder: its vocab.txt is ours whatever the encoder's
        token_ids = settings.get("token_ids")
        settings = settings.get("encoder") or {**settings, "model_type": "bert"}
    elif settings["model_type"] != "bert":
        config = encoder_config(settings, where)
        return PublishedEncoder(config, _own_ids(folder, config.vocab_size))
    if settings["model_type"] == "bert" and settings.get("vocab_size") != len(VOCABULARY):
        raise ConfigError(
            f"{where}: vocab_size {settings.get('vocab_size')}, expected ProtBERT's {len(VOCABULARY)}"
        )
    _check_vocabulary(folder)
    return PublishedEncoder(encoder_config(settings, where), None if token_ids is None else tuple(token_ids))


def _check_vocabulary(folder: Path) -> None:
    """Refuse a vocabulary that is not ours, naming the first token that differs."""
    path, numbered = _read_vocabulary(folder)
    tokens = [token for _, token in sorted(numbered)]
    for index, (found, expected) in enumerate(zip(tokens, VOCABULARY, strict=False)):
        if found != expected:
            raise ConfigError(f"{path}: token {index} is {found!r}, expected {expected!r} as in ProtBERT")
    if len(tokens) != len(VOCABULARY):
        raise ConfigError(f"{path}: {len(tokens)} tokens, expected {len(VOCABULARY)} as in ProtBERT")


def _own_ids(folder: Path, vocab_size: int) -> tuple[int, ...]:
    """The encoder's own id of each of our tokens."""
    path, numbered = _read_vocabulary(folder)
    ids = {token: index for index, token in numbered}
    spelled = {
        token: next((spelling for spelling in _SPELLINGS.get(token, (token,)) if spelling in ids), None)
        for token in VOCABULARY
    }
    if missing := [token for token in _NEEDED if spelled[token] is None]:
        raise ArtifactError(
            f"{path}: no token for {', '.join(missing)}; expected one for each standard residue, X, and "
            "the start, the end and the padding of a sequence"
        )
    own = tuple(ids[spelling or "X"] for spelling in spelled.values())
    if max(own) >= vocab_size:
        raise ArtifactError(f"{path}: id {max(own)}, but config.json has vocab_size {vocab_size}")
    return own


def _read_vocabulary(folder: Path) -> tuple[Path, list[tuple[int, str]]]:
    """Ids with their tokens, of vocab.txt (one token a line) or else of tokenizer.json."""
    listed, tokenizer = (folder / name for name in VOCABULARY_FILES)
    if listed.is_file():
        return listed, list(enumerate(listed.read_text(encoding="utf-8").split()))
    if not tokenizer.is_file():
        raise ConfigError(
            f"{folder}: neither vocab.txt nor tokenizer.json, so the meaning of its ids is unknown"
        )
    try:
        content = json.loads(tokenizer.read_text(encoding="utf-8"))
        added = {token["content"]: token["id"] for token in content.get("added_tokens", ())}
        ids = {**content["model"]["vocab"], **added}
        return tokenizer, [(int(index), token) for token, index in ids.items()]
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:  # SentencePiece lists pieces, not ids
        raise ConfigError(f"{tokenizer}: no table of tokens and ids ({type(error).__name__})") from error


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors if there are any, else `pytorch_model.bin`.

    Raises: ArtifactError if there are none.
    """
    if files := sorted(folder.glob("model*.safetensors")):
        return files
    if (folder / PICKLE_FILE).is_file():
        return [folder / PICKLE_FILE]
    raise ArtifactError(f"{folder}: neither model.safetensors nor {PICKLE_FILE}")


def encoder_weights(folder: Path, prefix: str) -> dict[str, Tensor]:
    """All weights of the encoder in fp32, named as its class names them: without `bert.` or another prefix.

    Heads for other tasks (`cls.*` of the pre-training) are left out where names tell. A pickle is read as
    weights only: nothing in it is executed.

    Raises: ArtifactError if a file is damaged or holds more than weights.
    """
    weights = {}
    for path in weight_files(folder):
        read = _read_pickle if path.name == PICKLE_FILE else _read_safetensors
        weights.update(read(path))
    start = f"{prefix}." if any(name.startswith(f"{prefix}.") for name in weights) else ""
    return {
        _new_name(name.removeprefix(start)): tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
        if name.startswith(start)
    }


def _new_name(name: str) -> str:
    for old, new in _OLD_NAMES.items():
        name = re.sub(rf"{re.escape(old)}$", new, name)
    return name


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ArtifactError(f"{path}: damaged ({error})") from error
    return weights


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(
            action="ignore"
        ):  # another protocol is read or refused below all the same
            # Files of torch before 1.6 are no zip archives and cannot be mapped into memory.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ArtifactError(
            f"{path}: refused, it is damaged or holds more than weights ({reason})"
        ) from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ArtifactError(f"{path}: expected a table of weights, got {type(found).__name__}")
    return found
