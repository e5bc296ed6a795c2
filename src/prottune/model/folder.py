"""A model as a folder: what training writes and every reader loads, with no code and no pickle inside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from transformers import BertConfig
from transformers.initialization import no_init_weights

from prottune.alphabet import ALPHABET_SHA256
from prottune.artifacts import read_manifest
from prottune.errors import ArtifactError
from prottune.model.classifier import LocationConfig, LocationModel, new_config
from prottune.model.description import DESCRIPTION_FILE, ModelDescription
from prottune.model.heads import HEADS
from prottune.model.tokenizer import save_tokenizer

WEIGHTS_FILE = "model.safetensors"
HEADS_FILE = "heads.safetensors"
CONFIG_FILE = "config.json"

_STOCK_NAMES = {"head.dense.": "bert.pooler.dense."}
"""Our names -> those of transformers' BertForSequenceClassification, in the weights of a stock folder."""


def save_model(model: LocationModel, folder: Path, description: ModelDescription) -> None:
    """Write config, weights, tokenizer and description into a folder in the making.

    A BERT with head `cls` becomes a stock BertForSequenceClassification. Else the encoder's weights keep the
    names of its family, and the head goes to `heads.safetensors`. So does the membrane's output in any case.
    """
    assert description.membrane == model.config.membrane, "the description is this model's"
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    stock = _is_stock(model.config)
    together = (f"{model.base_model_prefix}.", *(("head.", "classifier.") if stock else ()))
    main = {name: tensor for name, tensor in weights.items() if name.startswith(together)}
    heads = {name: tensor for name, tensor in weights.items() if name not in main}
    if stock:
        main = {_stock_name(name): tensor for name, tensor in main.items()}
    _save_weights(main, folder / WEIGHTS_FILE)
    if heads:
        _save_weights(heads, folder / HEADS_FILE)
    _write(folder / CONFIG_FILE, _config(model))
    save_tokenizer(folder, model.layout.max_tokens)
    _write(folder / DESCRIPTION_FILE, description.as_json())


def load_model(
    folder: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> tuple[LocationModel, ModelDescription]:
    """Check a finished model folder byte by byte and load it, ready to answer.

    The last layers and the encoder's tables of angles (rotary positions) stay in fp32 whatever `dtype` is.

    Raises: ArtifactError if the folder is damaged, was made by another stage, or speaks another alphabet.
    """
    read_manifest(folder, "train")
    description = ModelDescription.read(folder)
    if description.alphabet_sha256 != ALPHABET_SHA256:
        raise ArtifactError(
            f"{folder}: made with alphabet {description.alphabet_sha256[:12]}, this prottune has "
            f"{ALPHABET_SHA256[:12]}; its ids would mean other residues"
        )
    if description.head not in HEADS:
        raise ArtifactError(f"{folder}: head {description.head!r}, expected one of {', '.join(HEADS)}")
    config = _read_config(folder, description)
    weights = _read_weights(folder, config)
    try:
        with no_init_weights():  # random numbers for hundreds of millions of weights take seconds
            model = LocationModel(config, weights)
    except RuntimeError as error:  # torch names every key, line by line
        raise ArtifactError(
            f"{folder}: the weights do not fit {CONFIG_FILE}: {' '.join(str(error).split())}"
        ) from error
    if model.labels != description.labels:
        raise ArtifactError(f"{folder}: {CONFIG_FILE} and {DESCRIPTION_FILE} name other locations")
    last = {parameter for layer in model.output_layers() for parameter in layer.parameters()}
    for parameter in model.parameters():  # not `model.to(dtype)`: bf16 angles turn far residues wrongly
        kept = torch.float32 if parameter in last else dtype
        # A copy, as these are views of the file: who changes the file must not change the model.
        parameter.data = parameter.data.to(device, kept, copy=True)
    return model.to(device).eval().requires_grad_(False), description


def _is_stock(config: LocationConfig) -> bool:
    """Whether stock transformers knows this head on this encoder."""
    assert config.encoder is not None, "a model has an encoder"
    return config.head == "cls" and config.encoder["model_type"] == "bert"


def _read_config(folder: Path, description: ModelDescription) -> LocationConfig:
    settings = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    settings.pop("model_type")
    if "encoder" in settings:
        return LocationConfig(**{**settings, "head": description.head, "membrane": description.membrane})
    # A stock BERT, or an own head as written before other encoders were known: all settings in one level.
    dropout = settings.pop("classifier_dropout" if description.head == "cls" else "head_dropout")
    labels = [settings["id2label"][str(index)] for index in range(len(settings["id2label"]))]
    encoder = BertConfig(**settings)
    return new_config(encoder, description.head, labels, dropout, membrane=description.membrane)


def _config(model: LocationModel) -> dict[str, Any]:
    settings: dict[str, Any] = model.config.to_dict()
    for name in ("_name_or_path", "membrane"):  # prottune.json says which outputs there are
        settings.pop(name, None)
    if not _is_stock(model.config):
        return {**settings, "architectures": ["LocationModel"]}
    for ours in ("encoder", "token_ids", "head", "head_dropout", "model_type"):
        settings.pop(ours)
    encoder = {name: value for name, value in model.config.encoder.items() if name != "model_type"}
    stock = BertConfig(**{**settings, **encoder, "classifier_dropout": model.config.head_dropout})
    return {**stock.to_dict(), "architectures": ["BertForSequenceClassification"]}


def _stock_name(name: str) -> str:
    for ours, stock in _STOCK_NAMES.items():
        if name.startswith(ours):
            return stock + name.removeprefix(ours)
    return name


def _our_name(name: str) -> str:
    for ours, stock in _STOCK_NAMES.items():
        if name.startswith(stock):
            return ours + name.removeprefix(stock)
    return name


def _save_weights(weights: dict[str, Tensor], path: Path) -> None:
    safetensors.torch.save_file(weights, path, metadata={"format": "pt"})


def _read_weights(folder: Path, config: LocationConfig) -> dict[str, Tensor]:
    files = [WEIGHTS_FILE]
    if config.membrane or not _is_stock(config):
        files.append(HEADS_FILE)
    weights = {}
    for name in files:
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder / name}: missing, but {DESCRIPTION_FILE} speaks of what it holds")
        weights.update(safetensors.torch.load_file(folder / name))
    return {_our_name(name): tensor for name, tensor in weights.items()} if _is_stock(config) else weights


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
