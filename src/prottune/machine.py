"""What this machine gives to this process."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Cores that this process may use; where a system cannot say (macOS), those that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
