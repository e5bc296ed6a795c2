"""A BERT folder as others publish it: settings, vocabulary and weights, read without running anything."""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from prottune.alphabet import VOCABULARY
from prottune.errors import ArtifactError, ConfigError

PICKLE_FILE = "pytorch_model.bin"
_ENCODER_PARTS = ("embeddings.", "encoder.", "pooler.")
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of config.json. ProtBERT's has no `model_type`; that means bert.

    Raises: ArtifactError if there is none or it is no JSON object; ConfigError if it is no BERT's.
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
    kind = settings.pop("model_type", "bert")
    if kind not in ("bert", "prottune"):
        raise ConfigError(f"{path}: model_type {kind!r}; prottune fine-tunes BERT encoders such as ProtBERT")
    if settings.get("vocab_size") != len(VOCABULARY):
        raise ConfigError(
            f"{path}: vocab_size {settings.get('vocab_size')}, expected ProtBERT's {len(VOCABULARY)}"
        )
    return settings


def check_vocabulary(folder: Path) -> None:
    """Make sure that the model numbers residues as prottune does.

    Raises: ConfigError naming the first token that differs, or that there is no vocabulary to compare.
    """
    path, tokens = _read_vocabulary(folder)
    for index, (found, expected) in enumerate(zip(tokens, VOCABULARY, strict=False)):
        if found != expected:
            raise ConfigError(f"{path}: token {index} is {found!r}, expected {expected!r} as in ProtBERT")
    if len(tokens) != len(VOCABULARY):
        raise ConfigError(f"{path}: {len(tokens)} tokens, expected {len(VOCABULARY)} as in ProtBERT")


def _read_vocabulary(folder: Path) -> tuple[Path, list[str]]:
    listed, tokenizer = folder / "vocab.txt", folder / "tokenizer.json"
    if listed.is_file():
        return listed, listed.read_text(encoding="utf-8").split()
    if tokenizer.is_file():
        ids = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
        return tokenizer, sorted(ids, key=lambda token: int(ids[token]))
    raise ConfigError(f"{folder}: neither vocab.txt nor tokenizer.json, so the meaning of its ids is unknown")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: safetensors if there are any, else `pytorch_model.bin`.

    Raises: ArtifactError if there are none.
    """
    if files := sorted(folder.glob("model*.safetensors")):
        return files
    if (folder / PICKLE_FILE).is_file():
        return [folder / PICKLE_FILE]
    raise ArtifactError(f"{folder}: neither model.safetensors nor {PICKLE_FILE}")


def encoder_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of the encoder in fp32, named `bert.embeddings...`, `bert.encoder...`, `bert.pooler...`.

    Heads for other tasks (`cls.*` of the pre-training) are left out. A pickle is read as weights only:
    nothing in it is executed.

    Raises: ArtifactError if a file is damaged or holds more than weights.
    """
    weights = {}
    for path in weight_files(folder):
        for name, tensor in (
            _read_pickle(path) if path.name == PICKLE_FILE else _read_safetensors(path)
        ).items():
            if (ours := _our_name(name)) is not None:
                weights[ours] = tensor.float()
    return weights


def _our_name(name: str) -> str | None:
    name = name.removeprefix("bert.")
    if not name.startswith(_ENCODER_PARTS) or name.endswith(("position_ids", "token_type_ids")):
        return None
    for old, new in _OLD_NAMES.items():
        name = re.sub(rf"{re.escape(old)}$", new, name)
    return f"bert.{name}"


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
