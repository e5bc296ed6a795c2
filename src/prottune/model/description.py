"""What a model says about itself, beside its weights; read by many who load no weights, so without torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from prottune.errors import ArtifactError

DESCRIPTION_FILE = "prottune.json"

_SECOND_TASK = {"membrane_temperature"}
"""Fields that only a model with a second task has: all others are as they were before there was one."""


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """What must travel with the weights; the content of prottune.json."""

    label_set: str
    labels: tuple[str, ...]
    """Locations in the order of the logits."""
    head: str
    max_residues: int
    """Longer proteins are cut to this many residues; 0 keeps them whole."""
    cut: str
    alphabet_sha256: str
    dataset_digest: str
    base_model: str
    base_digest: str
    base_revision: str = ""
    temperature: float = 1.0
    """Already folded into the last layer; recorded for people."""
    membrane_temperature: float | None = None
    """The same of the membrane's output; None if the model has no such output."""
    confident_above: float = 1.0
    """Of the validation answers with at least this probability, `confident_accuracy` (a setting of training)
    were right; 1 means that no probability is enough, and no answer is confident."""
    energy_below: float
    """99 % of the validation proteins have less energy (-logsumexp of the logits); more is unlike them."""
    versions: dict[str, str]

    @property
    def membrane(self) -> bool:
        """Whether the model also answers if a protein is bound to a membrane."""
        return self.membrane_temperature is not None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises: ArtifactError for another file than this version of prottune writes."""
        content = read_facts(folder)
        expected = {field.name for field in fields(cls)}
        if not expected - _SECOND_TASK <= set(content) <= expected:
            raise ArtifactError(
                f"{folder / DESCRIPTION_FILE}: fields {sorted(content)}, expected {sorted(expected)}"
            )
        return cls(**{**content, "labels": tuple(content["labels"])})

    def as_json(self) -> dict[str, Any]:
        left_out = set() if self.membrane else _SECOND_TASK
        return {name: value for name, value in asdict(self).items() if name not in left_out}


def read_facts(folder: Path) -> dict[str, Any]:
    """What a model folder says about itself, also one of another version of prottune.

    Raises: ArtifactError if it says nothing.
    """
    path = folder / DESCRIPTION_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; this is not a model that prottune trained") from None
    except ValueError as error:
        raise ArtifactError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: holds a {type(content).__name__}, expected the fields of a model")
    return content
