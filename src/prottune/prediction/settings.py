"""How a file of proteins is read, cut into shards, answered, and joined again."""

from __future__ import annotations

from dataclasses import dataclass

from prottune.errors import ConfigError

TABLE_KINDS = ("csv", "parquet")
"""What a table can be, which is also how its file's name ends."""


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How a file of proteins is read."""

    on_bad: str = "refuse"
    """A sequence with a character that is no residue: refuse (the whole file), or skip (and count)."""
    max_megabytes: int = 16_384
    """A larger source is refused."""

    def __post_init__(self) -> None:
        if self.on_bad not in ("refuse", "skip"):
            raise ConfigError(f"on_bad={self.on_bad!r}: expected one of refuse, skip")
        if self.max_megabytes < 1:
            raise ConfigError(f"max_megabytes={self.max_megabytes}: expected at least 1")


@dataclass(frozen=True, kw_only=True)
class PredictConfig(ReadConfig):
    """How a file of proteins is answered."""

    window: int = 2048
    """Proteins that are read, sorted by length, answered and kept at a time; more need more memory."""
    precision: str = "auto"
    """auto (bf16 where the processor has it), bf16, fp32."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise ConfigError(f"window={self.window}: expected at least 1")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ConfigError(f"precision={self.precision!r}: expected one of auto, bf16, fp32")


@dataclass(frozen=True, kw_only=True)
class SplitConfig(ReadConfig):
    """How a file is cut so that many machines answer it at once."""

    num_shards: int = 4
    """Pieces of about as many residues each; a file of few proteins makes fewer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.num_shards <= MAX_SHARDS:
            raise ConfigError(f"num_shards={self.num_shards}: expected 1 to {MAX_SHARDS}")


@dataclass(frozen=True, kw_only=True)
class MergeConfig:
    """How the answers of all shards become one table."""

    table_format: str = TABLE_KINDS[0]
    """csv or parquet."""

    def __post_init__(self) -> None:
        if self.table_format not in TABLE_KINDS:
            raise ConfigError(f"table_format={self.table_format!r}: expected one of {', '.join(TABLE_KINDS)}")


MAX_SHARDS = 1000
"""Each is a pod of its own; more of them spend their time starting."""
