"""A server whose model takes a fixed time for each protein: `python fixed_delay.py --delay-seconds 0.05`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from letters import LettersPredictor

from prottune.flags import parse_flags
from prottune.serving.logs import set_up_logging
from prottune.serving.predictor import LocationPredictor
from prottune.serving.server import bound_socket, run
from prottune.serving.settings import ServeConfig


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """How slow the model is, and what is true of any server."""

    delay_seconds: float
    """Time for one protein."""
    config: ServeConfig = field(default_factory=ServeConfig)


class SlowLetters(LettersPredictor):
    """Sleeps in the model's thread, as long for a batch as for its proteins one by one."""

    def __init__(self, delay_seconds: float) -> None:
        super().__init__()
        self.delay_seconds = delay_seconds

    def predict(self, sequences: Sequence[str]) -> list[Any]:
        time.sleep(self.delay_seconds * len(sequences))
        return super().predict(sequences)


if __name__ == "__main__":
    arguments = parse_flags(Arguments, sys.argv[1:], "fixed_delay", "Serve a slow model.")
    set_up_logging()
    model = LocationPredictor(SlowLetters(arguments.delay_seconds), arguments.config, "1")
    model.load()
    with bound_socket(arguments.config) as listener:
        run(model, arguments.config, listener)
