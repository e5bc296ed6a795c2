"""Whether training again could end elsewhere than at a model that is known: served, rolled back, or held."""

from __future__ import annotations

import json
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from prottune.artifacts import read_manifest
from prottune.registration.champion import find_champion
from prottune.registration.provenance import (
    CODE_DIGEST_TAG,
    COMPARED_WITH_TAG,
    DATASET_DIGEST_TAG,
    DECISION_TAG,
    GATE_DIGEST_TAG,
    ROLLED_BACK_TAG,
    SETTINGS_DIGEST_TAG,
    code_digest,
)
from prottune.registration.registry import registry

HELD = "hold"
_NO_CHAMPION = "none"


def is_news(dataset_digest: str, settings_digest: str, gate: Any) -> bool:
    """Whether training again could end elsewhere than at a model that is known.

    `gate` is the dataclass of evaluation's settings. False if data, settings and code are those of

    - the champion;
    - a model that was rolled back: it would be as bad, and the next scheduled run would undo the rollback;
    - a model that the gate, with these very settings, held against this very champion: it would again.
    """
    store, champion = registry(), find_champion()
    made_of = _made_of(dataset_digest, settings_digest)
    if champion is not None and all(champion.tags.get(name) == value for name, value in made_of.items()):
        return False
    if store.versions_with_tags(made_of | {ROLLED_BACK_TAG: "true"}):
        return False
    judged = _judged(asdict(gate), champion.version if champion else "")
    return not store.has_run_with_tags(made_of | judged)


def tags_of_hold(report: Path, settings_digest: str) -> dict[str, str]:
    """What the run of a model that the gate held is tagged with, for `is_news` to find: such a model is not
    registered.

    `report` is evaluation's folder, `settings_digest` what `is_news` was asked with.

    Raises: ArtifactError if the folder is damaged.
    """
    manifest = read_manifest(report, "evaluate")
    decision = json.loads((report / "decision.json").read_text(encoding="utf-8"))
    made_of = _made_of(manifest.inputs["records"], settings_digest)
    return made_of | _judged(manifest.settings, decision["champion_version"])


def _made_of(dataset_digest: str, settings_digest: str) -> dict[str, str]:
    return {
        DATASET_DIGEST_TAG: dataset_digest,
        SETTINGS_DIGEST_TAG: settings_digest,
        CODE_DIGEST_TAG: code_digest(),
    }


def _judged(gate: dict[str, Any], champion_version: str) -> dict[str, str]:
    return {
        DECISION_TAG: HELD,
        GATE_DIGEST_TAG: sha256(json.dumps(gate, sort_keys=True).encode()).hexdigest(),
        COMPARED_WITH_TAG: champion_version or _NO_CHAMPION,
    }
