"""How a file of proteins is answered."""

from __future__ import annotations

from dataclasses import dataclass

from prottune.errors import ConfigError

TABLE_SUFFIXES = (".csv", ".parquet")
"""Kinds of table, by the end of the file's name."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How a file of proteins is answered."""

    on_bad: str = "refuse"
    """A sequence with a character that is no residue: refuse (the whole file), or skip (and count)."""
    window: int = 2048
    """Proteins that are read, sorted by length, answered and kept at a time; more need more memory."""
    max_megabytes: int = 16_384
    """A larger source is refused."""
    precision: str = "auto"
    """auto (bf16 where the processor has it), bf16, fp32."""

    def __post_init__(self) -> None:
        if self.on_bad not in ("refuse", "skip"):
            raise ConfigError(f"on_bad={self.on_bad!r}: expected one of refuse, skip")
        if self.window < 1 or self.max_megabytes < 1:
            raise ConfigError("window and max_megabytes: expected at least 1")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ConfigError(f"precision={self.precision!r}: expected one of auto, bf16, fp32")
