"""What a check found, and in which words."""

from dataclasses import dataclass
from typing import Literal

from prottune.errors import ConfigError

State = Literal["ok", "warning", "failed", "not checked"]
ONLY_NODES = "only runs with num_nodes above 1 need it"
"""Why it is no failure if a part of Kubeflow Trainer is missing."""


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    state: State
    found: str
    advice: str = ""


class NotCheckedError(ConfigError):
    """What a check would look at cannot be seen from here; nothing is known to be wrong with it."""

    def __init__(self, why: str, advice: str = "") -> None:
        super().__init__(why)
        self.advice = advice


def ok(found: str) -> Finding:
    return Finding("ok", found)


def warning(found: str, advice: str) -> Finding:
    """Something that may be meant, or that spoils only some runs."""
    return Finding("warning", found, advice)


def failed(found: str, advice: str = "") -> Finding:
    """Something that ends a run."""
    return Finding("failed", found, advice)


def listed(words: list[str], most: int = 5) -> str:
    """Words with commas between; of many the first ones and how many there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
