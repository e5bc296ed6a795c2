"""What a registered version was made from, how it scored and what the gate said: its tags and its card."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import prottune
from prottune.artifacts import Manifest, read_manifest
from prottune.errors import ArtifactError
from prottune.model.description import read_facts
from prottune.registration.card import model_card
from prottune.tracking.mlflow_store import PIPELINE_RUN_TAG
from prottune.tracking.tracker import numbers

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL_DIGEST_TAG = "prottune.model_digest"
DATASET_DIGEST_TAG = "prottune.dataset_digest"
SETTINGS_DIGEST_TAG = "prottune.settings_digest"
CODE_DIGEST_TAG = "prottune.code_digest"
GATE_DIGEST_TAG = "prottune.gate_digest"
"""Of the settings that a model was judged by; on the run of one that was held."""
ARTIFACT_TAG = "prottune.artifact_uri"
DECISION_TAG = "prottune.decision"
COMPARED_WITH_TAG = "prottune.compared_with"
ROLLED_BACK_TAG = "prottune.rolled_back"
"""Set to `true` on a version that `rollback` took out of service."""
_SCORES = ("accuracy", "macro_f1", "mcc", "ece")


@dataclass(frozen=True)
class VersionFacts:
    """What a model's folder and the report about it say, for tags and card of the version they become."""

    model: Manifest
    description: dict[str, Any]
    metrics: dict[str, Any]
    decision: dict[str, Any]

    @classmethod
    def read(cls, model: Path, report: Path) -> Self:
        """Raises: ArtifactError if a folder is damaged or the report is about another model."""
        manifest = read_manifest(model, "train")
        judged = read_manifest(report, "evaluate").inputs.get("model", "")
        if judged != manifest.digest:
            raise ArtifactError(
                f"{report}: is about model {judged[:12]!r}, expected {manifest.digest[:12]!r} ({model})"
            )
        metrics, decision = (_read(report / name) for name in ("metrics.json", "decision.json"))
        return cls(manifest, read_facts(model), metrics, decision)

    @property
    def model_digest(self) -> str:
        return self.model.digest

    @property
    def tags(self) -> dict[str, str]:
        """What a version is found by: what it was made from, how it scored, what the gate said."""
        made_from = {
            DATASET_DIGEST_TAG: str(self.description.get("dataset_digest", "")),
            CODE_DIGEST_TAG: code_digest(),
        }
        return made_from | self.judgement

    @property
    def judgement(self) -> dict[str, str]:
        """How it scored and what the gate said: what another evaluation may change."""
        splits = {split: self.metrics[split] for split in ("test", "gate") if split in self.metrics}
        wanted = {n: value for n, value in numbers(splits).items() if n.split("/")[1] in _SCORES}
        return {
            DECISION_TAG: self.decision["decision"],
            COMPARED_WITH_TAG: self.decision["champion_version"],
            **{f"prottune.{name.replace('/', '_')}": f"{value:.4f}" for name, value in wanted.items()},
        }

    def card(self, version: ModelVersion) -> str:
        """The card of the version that these facts became."""
        origin = {
            "version": str(version.version),
            "pipeline run": version.tags.get(PIPELINE_RUN_TAG, ""),
            "MLflow run": version.run_id or "",
            "model folder": version.source,
            "model digest": self.model_digest,
            "dataset digest": str(self.description.get("dataset_digest", "")),
            "base model digest": self.model.inputs.get("base_model", ""),
            "settings digest": version.tags.get(SETTINGS_DIGEST_TAG, ""),
            "code digest": version.tags.get(CODE_DIGEST_TAG, ""),
        }
        return model_card(self.description, self.model.settings, self.metrics, self.decision, origin)


def settings_digest(*configs: Any) -> str:
    """SHA-256 over the settings of several stages, by class and field; their order does not matter."""
    content = {type(config).__name__: asdict(config) for config in configs}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@cache
def code_digest() -> str:
    """SHA-256 over the sources of the installed prottune."""
    root, digest = Path(prottune.__file__).parent, hashlib.sha256(prottune.__version__.encode())
    for path in sorted(root.rglob("*.py")):
        digest.update(f"\n{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
