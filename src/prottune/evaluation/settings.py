"""Settings and report of evaluation. Imports nothing heavy: the pipeline is compiled from these defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prottune.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """How a model is scored and what it must show to be promoted."""

    max_loss_to_champion: float = 0.02
    """The lower end of the 95 % interval of accuracy, candidate less champion, must lie above minus this; 0
    asks for a model that is surely better."""
    max_location_loss: float = 0.2
    """Share of a location's gate proteins that the candidate may find fewer than the champion."""
    min_location_proteins: int = 30
    """A location with fewer gate proteins is not compared with the champion on its own."""
    min_gate_proteins: int = 50
    """With fewer proteins in the gate split nothing is promoted."""
    max_calibration_error: float = 0.2
    """Expected calibration error on the gate split above which a model is held."""
    max_known_share: float = 0.01
    """A model whose own training held more than this share of the official test is refused, by name. Of the
    gate split, which decides, it may have seen not one protein."""
    explained_mistakes: int = 5
    """For so many of the surest mistakes on the official test the page shows which residues misled the model;
    0 for none."""
    num_bootstraps: int = 1000
    """Resamples behind each 95 % interval."""
    bootstrap_seed: int = 43
    """Decides the resamples."""

    def __post_init__(self) -> None:
        for name in ("max_loss_to_champion", "max_location_loss", "max_calibration_error", "max_known_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected a number from 0 to 1")
        for name in ("min_gate_proteins", "min_location_proteins"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.explained_mistakes < 0:
            raise ConfigError(f"explained_mistakes={self.explained_mistakes}: expected at least 0")
        if self.bootstrap_seed < 0:
            raise ConfigError(f"bootstrap_seed={self.bootstrap_seed}: expected at least 0")
        if self.num_bootstraps < 100:
            raise ConfigError(f"num_bootstraps={self.num_bootstraps}: expected at least 100")


@dataclass(frozen=True, kw_only=True)
class EvaluateReport:
    """Scores and decision, in plain numbers and words."""

    decision: str
    """promote or hold."""
    reasons: list[str]
    metrics: dict[str, Any]
    """The content of metrics.json."""
    locations: list[str]
    confusion: list[list[int]]
    """Official test: rows are the true locations, columns the answered ones, both in label-set order."""
    roc: tuple[list[float], list[float], list[float]]
    """Official test, each location against the rest: false positive rates, true ones, thresholds."""
    summary: str
    """Decision and scores in Markdown."""
