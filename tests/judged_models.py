"""Model folders and reports about them, as small as registration reads them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from prottune.artifacts import new_folder, read_manifest


@dataclass(frozen=True)
class BakeConfig:
    degrees: int = 180


@dataclass(frozen=True)
class EatConfig:
    guests: int = 4


GATE = EatConfig()


def model_folder(folder: Path, weights: str = "w", dataset: str = "data-1") -> Path:
    with new_folder(folder, "train", BakeConfig()) as draft:
        (draft.path / "model.safetensors").write_text(weights)
        (draft.path / "prottune.json").write_text(json.dumps({"dataset_digest": dataset}))
    return folder


def report_on(
    model: Path,
    accuracy: float = 0.75,
    decision: str = "promote",
    champion: str = "",
    gate: EatConfig = GATE,
) -> Path:
    folder = model.with_name(f"{model.name}-report")
    inputs = {"records": "data-1", "model": read_manifest(model).digest}
    scores = {"accuracy": accuracy, "macro_f1": 0.5, "mcc": 0.25, "ece": 0.125, "num_proteins": 50}
    with new_folder(folder, "evaluate", gate, inputs) as draft:
        metrics = {**scores, "test": {**scores, "per_class": {"Nucleus": {"f1": 0.5}}}, "gate": scores}
        (draft.path / "metrics.json").write_text(json.dumps(metrics))
        verdict = {"decision": decision, "reasons": ["a reason"], "champion_version": champion}
        (draft.path / "decision.json").write_text(json.dumps(verdict))
    return folder
