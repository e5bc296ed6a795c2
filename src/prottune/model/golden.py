"""Eight synthetic sequences with the answers they must get, to check an endpoint against its model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prottune.alphabet import STANDARD_RESIDUES
from prottune.errors import ArtifactError
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE

if TYPE_CHECKING:  # the light image reads golden answers without torch
    from prottune.model.inference import Predictor

GOLDEN_FILE = "golden.json"
_LENGTHS = (1, 24, 60, 120, 200, 320, 500, 900)
_SEED = 43
_NOTE = f"fp32 answers; a correct endpoint differs by at most {MAX_GOLDEN_DIFFERENCE} in each probability"


def write_golden(folder: Path, predictor: Predictor) -> None:
    """Write golden.json: random sequences of 1 to 900 residues and what this model answers in fp32."""
    generator = np.random.default_rng(_SEED)
    letters = np.array(list(STANDARD_RESIDUES))
    sequences = ["M" + "".join(generator.choice(letters, length - 1)) for length in _LENGTHS]
    entries = [
        {
            "accession": f"GOLDEN{number}",
            "sequence": sequence,
            "location": answer.location,
            "probabilities": dict(zip(predictor.labels, answer.probabilities.tolist(), strict=True)),
            "confident": answer.confident,
            "unlike_training": answer.unlike_training,
            **({"membrane": answer.membrane} if predictor.tells_membrane else {}),
        }
        for number, (sequence, answer) in enumerate(
            zip(sequences, predictor.predict(sequences), strict=True), start=1
        )
    ]
    content = json.dumps({"tolerance_note": _NOTE, "golden": entries}, indent=1) + "\n"
    (folder / GOLDEN_FILE).write_text(content, encoding="utf-8")


def read_golden(folder: Path) -> list[dict[str, Any]]:
    """The golden answers of a model folder: accession, sequence, location, probabilities by location.

    And `membrane`, the probability of being bound to one, if the model tells that; in folders that are not
    too old, `confident` and `unlike_training`, which another precision may turn round near a threshold.

    Raises: ArtifactError if the folder has none.
    """
    path = folder / GOLDEN_FILE
    try:
        golden: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["golden"]
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; the model cannot be checked behind an endpoint") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: not a file of golden answers ({error})") from error
    return golden
