"""Whether a model and the records speak of the same locations and residues: asked before all else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prottune.alphabet import ALPHABET_SHA256
from prottune.errors import ArtifactError, DataError
from prottune.model.description import DESCRIPTION_FILE, read_facts

Description = Mapping[str, Any]
"""What a model folder says about itself: the content of prottune.json."""


def read_description(folder: Path) -> Description:
    """What a checked model folder says about itself.

    Raises: ArtifactError if it says nothing, or not which locations it answers and which alphabet it reads.
    """
    description = read_facts(folder)
    missing = [name for name in ("labels", "alphabet_sha256") if name not in description]
    if missing:
        raise ArtifactError(
            f"{folder / DESCRIPTION_FILE}: {' and '.join(missing)} missing; the model does not tell what "
            "it reads"
        )
    return description


def refuse_mismatch(folder: Path, description: Description, locations: tuple[str, ...]) -> None:
    """Refuse a candidate that answers other locations than the records have, or reads another alphabet.

    Raises: ArtifactError for another alphabet; DataError for other locations, or another order of them.
    """
    if words := _other_alphabet(description):
        raise ArtifactError(f"{folder}: {words}; its ids would mean other residues; train it again")
    labels = tuple(description["labels"])
    if labels != locations:
        raise DataError(
            f"{folder}: answers with locations {', '.join(labels)}; the records have "
            f"{', '.join(locations)}; evaluate it on records with its own label set"
        )


def obstacle_of(description: Description, locations: tuple[str, ...]) -> str:
    """Why a champion cannot be compared on these records at all, in words; empty if it can."""
    if words := _other_alphabet(description):
        return f"it was {words}"
    labels = tuple(description["labels"])
    return "" if labels == locations else f"it answers with other locations ({', '.join(labels)})"


def _other_alphabet(description: Description) -> str:
    found = str(description["alphabet_sha256"])
    if found == ALPHABET_SHA256:
        return ""
    return f"made with alphabet {found[:12]}, this prottune has {ALPHABET_SHA256[:12]}"
