"""Why one protein got its answer: a score a residue as JSON, and the same as a page with a picture.

    explain(Path("model"), "MKRLL...", Path("explanation.json"), ExplainConfig())   # and explanation.html

The JSON holds the answer (location, probability, confident, unlike_training), `explained`, the location that
the scores are about, and what `Attribution.as_json` says: scores, left_out, difference, sum, error,
complete, steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prottune.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from prottune.model.attribution import Attribution
    from prottune.model.inference import Prediction

STRETCH_RESIDUES = 20
"""Length of the stretch that is named as the strongest: about that of a signal peptide or a helix."""
_NUM_STRONGEST = 15
_METHOD = (
    "Integrated gradients (Sundararajan et al. 2017) on the residues' vectors, in fp32: the mean over some "
    "proteins of the same length, of random residues, that this one is compared with (Erion et al. 2021). A "
    "score is what the residue adds to the location's logit, less what it adds to all locations' logits "
    "on average."
)


@dataclass(frozen=True, kw_only=True)
class ExplainConfig:
    """What is explained."""

    location: str = ""
    """Location to explain; empty: the one that the model answers."""


@dataclass(frozen=True, kw_only=True)
class ExplainReport:
    """What was found, in plain numbers."""

    location: str
    """The one that is explained."""
    answer: str
    probability: float
    """That of the answer."""
    confident: bool
    num_residues: int
    left_out: tuple[int, int] | None
    """First and last residue that the model did not read."""
    stretch: tuple[int, int]
    """First and last residue of the stretch that speaks most for the location."""
    stretch_share: float
    """Its share of all that speaks for the location."""
    complete: bool
    """Whether the scores add up to what they explain."""
    exactness: str
    """The same in words, with the figures."""
    page: Path


def explain(model: Path, sequence: str, output: Path, config: ExplainConfig) -> ExplainReport:
    """Say which residues of one protein speak for where it lives, by a finished model folder.

    `output` is the JSON file, and the page lies beside it as .html; earlier ones there are replaced.

    Raises: ConfigError, before any work, for an output that does not end in .json or cannot be written, and
        for a location that the model does not know; DataError for a sequence that is none; ArtifactError if
        the model is damaged; StorageError if the disk refuses after all.
    """
    page = output.with_suffix(".html")
    _check_output(output, page)
    from prottune.model.attribution import attribute
    from prottune.model.inference import Predictor

    predictor = Predictor.load(model, "fp32")
    attribution = attribute(predictor, sequence, config.location)
    (answer,) = predictor.predict([sequence])
    content = explanation(predictor.labels, answer, attribution)
    try:
        _write(output, json.dumps(content, indent=1, allow_nan=False) + "\n")
        _write_page(page, answer, attribution)
    except OSError as error:
        raise StorageError(f"{output}: cannot be written ({error.strerror or error})") from error
    scores_R = np.nan_to_num(attribution.scores_R)
    stretch, share = strongest_stretch(scores_R)
    return ExplainReport(
        location=attribution.location,
        answer=answer.location,
        probability=answer.probability,
        confident=answer.confident,
        num_residues=answer.num_residues,
        left_out=attribution.left_out,
        stretch=stretch,
        stretch_share=share,
        complete=attribution.is_complete,
        exactness=exactness(attribution),
        page=page,
    )


def strongest_stretch(
    scores_R: npt.NDArray[np.float64], length: int = STRETCH_RESIDUES
) -> tuple[tuple[int, int], float]:
    """The stretch of so many residues that speaks most for an answer, from 1, and its share of all that does.

    Only scores above 0 count. A shorter protein is one stretch.
    """
    for_it_R = np.maximum(scores_R, 0.0)
    length = min(length, len(for_it_R))
    sums = np.convolve(for_it_R, np.ones(length), "valid")
    first = int(sums.argmax())
    total = float(for_it_R.sum())
    return (first + 1, first + length), float(sums[first]) / total if total > 0 else 0.0


def exactness(attribution: Attribution) -> str:
    """Say in a sentence whether the scores add up to what they explain."""
    words = (
        f"the scores add up to {attribution.total:.3f}, the logits differ by {attribution.difference:.3f} "
        f"({attribution.steps} steps)"
    )
    return words if attribution.is_complete else f"ROUGH SCORES: {words}; more steps are not tried"


def explanation(labels: Sequence[str], answer: Prediction, attribution: Attribution) -> dict[str, Any]:
    """An answer and its scores as plain values; docs/explanations.md says what each is."""
    explained = attribution.as_json()
    return {
        "location": answer.location,
        "probability": answer.probability,
        "probabilities": dict(zip(labels, answer.probabilities.tolist(), strict=True)),
        "confident": answer.confident,
        "unlike_training": answer.unlike_training,
        "truncated": answer.truncated,
        "num_residues": answer.num_residues,
        "explained": explained.pop("location"),
        "method": _METHOD,
        **explained,
    }


def _check_output(output: Path, page: Path) -> None:
    """Refuse a place that cannot be written, and leave nothing there.

    Raises: ConfigError.
    """
    if output.suffix != ".json":
        raise ConfigError(
            f"{output}: expected a name that ends in .json; the picture lies beside it as .html"
        )
    if in_the_way := [path for path in (output, page) if path.is_dir()]:
        raise ConfigError(f"{in_the_way[0]} is a folder; name another output")
    there = next(folder for folder in output.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        reason = "cannot be written" if there.is_dir() else "is no folder"
        raise ConfigError(f"{output}: {there} {reason}; name an output whose folder can be written")


def _write_page(path: Path, answer: Prediction, attribution: Attribution) -> None:
    from prottune.reports.page import paragraph, table, tiles, write_page
    from prottune.reports.residue_map import residue_map

    location = attribution.location
    scores_R = np.nan_to_num(attribution.scores_R)
    strongest = sorted(range(len(scores_R)), key=lambda place: -abs(scores_R[place]))[:_NUM_STRONGEST]
    (first, last), share = strongest_stretch(scores_R)
    figures = [
        ("The model's answer", answer.location, "confident" if answer.confident else "not confident"),
        ("Probability", f"{answer.probability:.3f}", "unlike the training" if answer.unlike_training else ""),
        ("Strongest stretch", f"{first:,}-{last:,}", f"{share:.0%} of what speaks for {location}"),
    ]
    picture = residue_map(
        attribution.sequence, attribution.as_json()["scores"], title=f"Score of each residue for {location}"
    )
    rows = [(place + 1, attribution.sequence[place], float(scores_R[place])) for place in strongest]
    sections = [
        ("Answer", tiles(figures)),
        (f"Residues that speak for {location} (up) and against it (down)", picture + _note(attribution)),
        ("The strongest residues", table(("Residue", "Letter", "Score"), rows)),
        ("How it was computed", paragraph(_METHOD) + paragraph(f"Check: {exactness(attribution)}.")),
    ]
    scratch = path.with_name(f"{path.name}.partial")
    write_page(
        scratch,
        f"Why {location}?",
        f"A protein of {answer.num_residues:,} residues, residue by residue: what a model looked at. That "
        "is no proof of what the cell does.",
        sections,
    )
    os.replace(scratch, path)


def _note(attribution: Attribution) -> str:
    from prottune.reports.page import paragraph

    if attribution.left_out is None:
        return ""
    first, last = attribution.left_out
    return paragraph(f"The model did not read residues {first:,} to {last:,}; they have no score.")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.partial")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)
