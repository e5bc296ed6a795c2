"""Small models and proteins that the tests of prottune.model share."""

import numpy as np
import torch
from transformers import BertConfig

from prottune.alphabet import ALPHABET_SHA256, STANDARD_RESIDUES, VOCABULARY, encode
from prottune.artifacts import new_folder
from prottune.model.classifier import LocationModel, new_config
from prottune.model.folder import ModelDescription, save_model
from prottune.model.likeness import fit_likeness
from prottune.model.packed import PackedBatch

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
        "versions": {"prottune": "0"},
    }
    return ModelDescription(**{**values, **changes})


def features_of(model, sequences):
    with torch.no_grad():
        return model.features(PackedBatch.from_ids([encode([sequence])[0] for sequence in sequences]))


def likeness_of(model, sequences):
    """What a model would know of these sequences had it learned from them, the locations in turn."""
    return fit_likeness(features_of(model, sequences), torch.arange(len(sequences)) % len(model.labels))


def write_model(folder, model, likeness=None, **changes):
    """Write a finished model folder as training does."""
    with new_folder(folder, "train", None) as draft:
        described = description(model.config.head, labels=model.labels, **changes)
        save_model(model, draft.path, described, likeness)
    return folder
