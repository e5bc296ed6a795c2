"""Settings and report of ingestion. Imports nothing heavy: the pipeline is compiled from these defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from prottune.errors import ConfigError
from prottune.homology import MIN_COVERAGE, MIN_IDENTITY


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """What ingestion accepts, how it resolves what is doubtful, and how it splits."""

    labels: str = "auto"
    """Label set: auto (deeploc10 when the locations fit in it, else the sorted names), deeploc10, or a file
    with one location a line."""
    expected_digest: str = ""
    """SHA-256 (64 hex) or git blob SHA-1 (40 hex) that the source must have; empty accepts any."""
    on_conflict: str = "refuse"
    """One sequence with two locations: refuse, or drop (all its records)."""
    on_crossing: str = "drop_train"
    """Same sequence or isoforms of one protein in train and test: drop_train, or refuse."""
    on_cytoplasm_nucleus: str = "cytoplasm"
    """DeepLoc's Cytoplasm-Nucleus: cytoplasm (as DeepLoc counts it), or drop."""
    test_share: float = 0.2
    """Share of proteins cut as test when the source marks none; between 0 and 0.5."""
    validation_share: float = 0.1
    """Share of the training proteins cut as validation, by homology cluster; between 0 and 0.5."""
    gate_share: float = 0.1
    """Share of the training proteins cut for the gate's decision, by homology cluster; between 0 and 0.5."""
    min_identity: float = MIN_IDENTITY
    """Sequence identity from which two proteins count as relatives; between 0 and 1."""
    min_coverage: float = MIN_COVERAGE
    """Share of both sequences that the alignment must cover; between 0 and 1."""
    max_unpacked_megabytes: int = 2048
    """A compressed source that unpacks to more is refused."""
    split_seed: int = 43
    """Decides which clusters become validation, gate and (if none is marked) test."""

    def __post_init__(self) -> None:
        choices = {
            "on_conflict": ("refuse", "drop"),
            "on_crossing": ("drop_train", "refuse"),
            "on_cytoplasm_nucleus": ("cytoplasm", "drop"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(allowed)}")
        for name in ("test_share", "validation_share", "gate_share"):
            if not 0 < getattr(self, name) < 0.5:
                raise ConfigError(f"{name}={getattr(self, name)}: expected a number between 0 and 0.5")
        for name in ("min_identity", "min_coverage"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)}: expected a number above 0, at most 1")
        if self.max_unpacked_megabytes < 1:
            raise ConfigError(f"max_unpacked_megabytes={self.max_unpacked_megabytes}: expected at least 1")
        if self.expected_digest and (
            len(self.expected_digest) not in (40, 64)
            or set(self.expected_digest.lower()) - set("0123456789abcdef")
        ):
            raise ConfigError(
                f"expected_digest={self.expected_digest!r}: expected 64 hex digits (SHA-256) or 40 (git blob)"
            )


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What ingestion found, in plain numbers; `counts` names everything that was repaired or dropped."""

    num_proteins: int
    num_residues: int
    dataset_digest: str
    source_sha256: str
    splits: dict[str, int]
    locations: dict[str, int]
    counts: dict[str, int] = field(default_factory=dict)
    share_test_with_relative_in_train: float = 0.0
