"""The verbs of `prottune` that say which model serves: register, promote, rollback."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from prottune.artifacts import read_manifest
from prottune.errors import ConfigError
from prottune.model.description import read_facts
from prottune.registration.provenance import settings_digest
from prottune.tokenization import TokenizeConfig
from prottune.tracking.step import pipeline_run, step
from prottune.training.settings import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Register:
    """What is registered."""

    model: Path
    """Folder that `prottune train` made."""
    uri: str
    """Where that folder lies for good: a path or an s3:// address."""
    report: Path
    """Folder that `prottune evaluate` made about this model."""

    def run(self) -> Iterator[str]:
        from prottune.registration.stage import register

        with step("register"):
            entry = register(self.model, self.uri, self.report, pipeline_run(), _settings_digest(self.model))
        again = "" if entry.created else " (it was registered already)"
        beside = f" --compared-with {entry.compared_with}" if entry.compared_with else ""
        yield f"version {entry.version} is the challenger{again}; it lies at {entry.uri}"
        promote = f"prottune promote --version {entry.version}{beside}"
        yield f"next: prottune deploy --model {entry.uri}, then {promote}"


@dataclass(frozen=True, kw_only=True)
class Promote:
    """What is promoted."""

    version: str
    """Registered version that becomes champion."""
    compared_with: str = ""
    """Version of the champion that it was compared with; empty if there was none. If another one is champion
    by now, nothing changes."""
    overrule: bool = False
    """Promote a version although the gate held it, or although it was rolled back."""

    def run(self) -> Iterator[str]:
        from prottune.registration.promotion import promote

        outcome = promote(self.version, self.compared_with, overrule=self.overrule)
        if not outcome.promoted:
            raise ConfigError(f"version {self.version} was not promoted: {outcome.reason}")
        yield f"version {outcome.champion} is the champion: {outcome.reason}"


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Nothing to set."""

    def run(self) -> Iterator[str]:
        from prottune.registration.champion import find_champion
        from prottune.registration.promotion import rollback

        outcome = rollback()
        yield f"version {outcome.champion} is the champion again: {outcome.reason}"
        if (champion := find_champion()) is not None:
            yield f"next: prottune deploy --model {champion.uri} --model-version {champion.version}"


def _settings_digest(model: Path) -> str:
    """The digest that a pipeline would have asked `is_news` with, from what the model says about itself."""
    settings, description = read_manifest(model, "train").settings, read_facts(model)
    known = {field.name for field in fields(TrainConfig)}  # an older model may have had others
    train = TrainConfig(**{name: value for name, value in settings.items() if name in known})
    tokenize = TokenizeConfig(max_residues=description["max_residues"], cut=description["cut"])
    return settings_digest(tokenize, train)
