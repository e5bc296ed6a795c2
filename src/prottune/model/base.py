"""What training starts from: a Hub name, a folder, an s3:// prefix or a preset -> a LocationModel."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from prottune.artifacts import MANIFEST_FILE, file_sha256, read_manifest
from prottune.errors import ArtifactError, ConfigError
from prottune.model.classifier import BaseFacts, LocationModel, new_config
from prottune.model.encoders import say_if_never_packed
from prottune.model.fetching import local_folder
from prottune.model.presets import PRESETS, preset_config
from prottune.model.published import (
    VOCABULARY_FILES,
    encoder_weights,
    read_config,
    read_encoder,
    weight_files,
)

CONTAMINATED = ("protbertbfdlocalization",)
"""Letters in the names of published models that were trained on DeepLoc's own labels.

Source: https://huggingface.co/Rostlab/prot_bert_bfd_localization"""


@dataclass(frozen=True)
class Base:
    """A checked base model on this machine: what it is, and the folder of its weights (none for a preset)."""

    facts: BaseFacts
    folder: Path | None


def load_base(
    base_model: str,
    revision: str,
    head: str,
    labels: Sequence[str],
    head_dropout: float,
    *,
    membrane: bool = False,
) -> LocationModel:
    """Get a base model and put a new head for these locations onto it; `.base` says what it was.

    Raises: ConfigError for a name that means nothing, another family or vocabulary, or a contaminated base;
        ArtifactError for weights that are missing, misshapen or more than weights, or a vocabulary that
        lacks a residue; StorageError when the Hub or the object store fails.
    """
    with tempfile.TemporaryDirectory(prefix="prottune-base-") as scratch:
        base = find_base(base_model, revision, Path(scratch))
        return build_model(base, head, labels, head_dropout, membrane=membrane)


def find_base(base_model: str, revision: str, scratch: Path) -> Base:
    """Bring a base model to this machine and check all but its weights; `scratch` outlives the result's use.

    Several processes that train together find the base once and each build from it.

    Raises: ArtifactError if it is a model folder of prottune that is damaged or lacks a file.
    """
    if base_model in PRESETS:
        settings = json.dumps(PRESETS[base_model], sort_keys=True).encode()
        return Base(BaseFacts(base_model, "", hashlib.sha256(settings).hexdigest()), None)
    _refuse_contaminated(base_model)
    folder, found_revision = local_folder(base_model, revision, scratch)
    if (folder / MANIFEST_FILE).is_file():  # a model of ours, with the list of proteins that it has seen
        read_manifest(folder)
    _refuse_contaminated(str(read_config(folder).get("_name_or_path", "")))
    encoder = read_encoder(folder)
    say_if_never_packed(encoder.config)
    digest = _digest(folder, with_vocabulary=encoder.token_ids is not None)
    return Base(BaseFacts(base_model, found_revision, digest), folder)


def build_model(
    base: Base, head: str, labels: Sequence[str], head_dropout: float, *, membrane: bool = False
) -> LocationModel:
    """Make the model: the base's encoder under a head that starts from torch's random state.

    With `membrane` it answers as well whether a protein is bound to a membrane.
    """
    if base.folder is None:
        config = preset_config(base.facts.name)
        model = LocationModel(new_config(config, head, labels, head_dropout, membrane=membrane))
        # From scratch, random positions drown the residues; from zero they are learned where they help.
        torch.nn.init.zeros_(model.bert.embeddings.position_embeddings.weight)
    else:
        encoder = read_encoder(base.folder)
        settings = new_config(
            encoder.config, head, labels, head_dropout, encoder.token_ids, membrane=membrane
        )
        model = LocationModel(settings)
        _put_weights(model, base.folder)
    model.base = replace(base.facts)
    return model


def _put_weights(model: LocationModel, folder: Path) -> None:
    encoder, prefix = model.base_model, model.base_model_prefix
    weights = encoder_weights(folder, prefix)
    for name, tensor in encoder.state_dict().items():
        if name in weights and weights[name].shape != tensor.shape:
            raise ArtifactError(
                f"{folder}: {prefix}.{name} has shape {tuple(weights[name].shape)}, "
                f"config.json says {tuple(tensor.shape)}"
            )
    absent = set(encoder.load_state_dict(weights, strict=False).missing_keys)
    if missing := sorted(absent & model.layout.learned):  # angles of positions, say, are computed
        raise ArtifactError(
            f"{folder}: {len(missing)} encoder weights are missing, for example "
            f"{', '.join(f'{prefix}.{name}' for name in missing[:5])}"
        )
    if model.config.head == "cls":
        _put_pooler(model.head, weights)


def _put_pooler(head: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Start the `cls` head from the base's pooler; bases published without one start with a new one."""
    pooler = {name: weights.get(f"pooler.{name}") for name in head.state_dict()}
    if all(
        found is not None and found.shape == head.get_parameter(name).shape for name, found in pooler.items()
    ):
        head.load_state_dict(pooler)


def _refuse_contaminated(name: str) -> None:
    letters = re.sub(r"[^a-z]", "", name.lower())
    for contaminated in CONTAMINATED:
        if contaminated in letters:
            raise ConfigError(
                f"base_model={name!r} was already fine-tuned on DeepLoc's labels, so every score on DeepLoc "
                "would be flattered; take Rostlab/prot_bert or Rostlab/prot_bert_bfd"
            )


def _digest(folder: Path, with_vocabulary: bool) -> str:
    """SHA-256 over the hashes of config and weights: the identity of what training started from.

    Where ids are translated, the vocabulary says what the weights mean and counts as well.
    """
    files = [folder / "config.json", *weight_files(folder)]
    if with_vocabulary:
        files += [path for name in VOCABULARY_FILES if (path := folder / name).is_file()][:1]
    lines = "".join(f"{path.name} {file_sha256(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()
