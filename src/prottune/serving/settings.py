"""Settings of the endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from prottune.errors import ConfigError
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE

MODEL_NAME = "prottune"
"""Name of the model in every route and of the InferenceService in a cluster."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where the endpoint listens and what it accepts."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is this machine only."""
    port: int = 8080
    """Port to listen on; 0 takes a free one and prints it."""
    max_sequences: int = 256
    """Most sequences of one request."""
    max_residues: int = 20_000
    """Longest sequence that is answered; longer ones are refused by name."""
    max_probability_difference: float = MAX_GOLDEN_DIFFERENCE
    """The server starts only if it reproduces each golden probability within this."""
    precision: str = "auto"
    """auto (bf16 where the processor has it), bf16, fp32."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port={self.port}: expected 0 to 65535")
        if self.max_sequences < 1 or self.max_residues < 1:
            raise ConfigError("max_sequences and max_residues: expected at least 1")
        if not 0 < self.max_probability_difference < 1:
            raise ConfigError(
                f"max_probability_difference={self.max_probability_difference}: expected between 0 and 1"
            )
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ConfigError(f"precision={self.precision!r}: expected one of auto, bf16, fp32")
