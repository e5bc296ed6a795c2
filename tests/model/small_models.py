"""Small models and proteins that the tests of prottune.model share."""

import numpy as np
import torch
from transformers import BertConfig

from prottune.alphabet import ALPHABET_SHA256, STANDARD_RESIDUES, VOCABULARY
from prottune.artifacts import new_folder
from prottune.model.classifier import LocationModel, new_config
from prottune.model.description import ModelDescription
from prottune.model.folder import save_model

LABELS = ("Nucleus", "Lysosome/Vacuole", "Peroxisome")


def small_config(**changes):
    settings = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 256,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return BertConfig(**{**settings, **changes})


def small_model(head, labels=LABELS, seed=0, head_dropout=0.0, membrane=False, **changes):
    """A two-layer model with random weights, large enough that answers differ."""
    torch.manual_seed(seed)
    encoder = small_config(initializer_range=0.2, **changes)
    model = LocationModel(new_config(encoder, head, labels, head_dropout, membrane=membrane))
    return model.eval()


def random_sequence(num_residues, seed=0):
    letters = np.random.default_rng((seed, num_residues)).choice(list(STANDARD_RESIDUES), num_residues)
    return "".join(letters)


def description(head, **changes):
    values = {
        "label_set": "custom",
        "labels": LABELS,
        "head": head,
        "max_residues": 0,
        "cut": "head_tail",
        "alphabet_sha256": ALPHABET_SHA256,
        "dataset_digest": "d" * 64,
        "base_model": "small",
        "base_digest": "b" * 64,
        "energy_below": 100.0,
        "versions": {"prottune": "0"},
    }
    return ModelDescription(**{**values, **changes})


def write_model(folder, model, **changes):
    """Write a finished model folder as training does."""
    with new_folder(folder, "train", None) as draft:
        save_model(model, draft.path, description(model.config.head, labels=model.labels, **changes))
    return folder
