"""Settings and report of deployment."""

from __future__ import annotations

from dataclasses import dataclass

from prottune.errors import ConfigError
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE


@dataclass(frozen=True, kw_only=True)
class DeployConfig:
    """Where a model is served and how strictly its endpoint is checked."""

    to: str = "local"
    """local (a server on this machine, checked and stopped again), or kserve (a cluster)."""
    max_probability_difference: float = MAX_GOLDEN_DIFFERENCE
    """Largest difference between a golden probability and the endpoint's answer."""
    ready_timeout_seconds: int = 120
    """The endpoint must be ready within this time."""

    def __post_init__(self) -> None:
        if self.to not in ("local", "kserve"):
            raise ConfigError(f"to={self.to!r}: expected one of local, kserve")
        if not 0 < self.max_probability_difference < 1:
            raise ConfigError(
                f"max_probability_difference={self.max_probability_difference}: expected between 0 and 1"
            )
        if self.ready_timeout_seconds < 1:
            raise ConfigError(f"ready_timeout_seconds={self.ready_timeout_seconds}: expected at least 1")


@dataclass(frozen=True, kw_only=True)
class DeployReport:
    """What was deployed and what its endpoint answered."""

    url: str
    model_version: str
    num_golden: int
    largest_difference: float
    seconds_to_ready: float
    still_running: bool
    """False for a local endpoint: it is checked and stopped."""
