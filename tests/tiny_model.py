"""A real model folder for tests: the tiny encoder with random weights, finished as training finishes one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LABELS = ("Nucleus", "Cytoplasm", "Extracellular")
ODD_LABELS = ("Lysosome/Vacuole", "Cell.membrane")


@dataclass(frozen=True)
class TinyConfig:
    """Stands in the manifest for the settings of a training."""

    seed: int = 43


def write_tiny_model(
    folder: Path, labels: tuple[str, ...] = LABELS, seed: int = 43, *, membrane: bool = False
) -> Path:
    """Write a folder that `prottune.model.folder.load_model` accepts, golden answers included."""
    import torch

    from prottune.alphabet import ALPHABET_SHA256
    from prottune.artifacts import new_folder
    from prottune.model.base import load_base
    from prottune.model.description import ModelDescription
    from prottune.model.folder import save_model
    from prottune.model.golden import write_golden
    from prottune.model.inference import Predictor

    torch.manual_seed(seed)
    model = load_base("tiny", "", "attention", labels, 0.0, membrane=membrane).eval()
    with torch.no_grad():
        for layer in model.output_layers():
            layer.weight.mul_(30)  # random answers, but not all alike
    description = ModelDescription(
        label_set="custom",
        labels=labels,
        head="attention",
        max_residues=400,
        cut="head_tail",
        alphabet_sha256=ALPHABET_SHA256,
        dataset_digest="0" * 64,
        base_model="tiny",
        base_digest="1" * 64,
        confident_above=0.5,
        membrane_temperature=1.0 if membrane else None,
        energy_below=0.0,
        versions={"torch": torch.__version__},
    )
    with new_folder(folder, "train", TinyConfig(seed)) as draft:
        save_model(model, draft.path, description)
        write_golden(draft.path, Predictor(model, description))
    return folder
