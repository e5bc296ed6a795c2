"""Our whole server with a model that does nothing: `python -m benchmarks.no_op_server --port 0`.

Guard, routes, questions, batcher and answers are those that serve; only the model answers at once.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.stock_server import end_with_our_starter
from prottune.flags import parse_flags
from prottune.model.inference import Prediction
from prottune.records import DEEPLOC10
from prottune.serving.settings import ServeConfig


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is true of any server."""

    config: ServeConfig = field(default_factory=ServeConfig)


class NoOp:
    """Stands where `Predictor` does, and says the same of every protein."""

    labels = DEEPLOC10.locations
    tells_membrane = False

    def predict(self, sequences: Sequence[str]) -> list[Prediction]:
        probabilities_C = np.full(len(self.labels), 1 / len(self.labels), np.float32)
        return [
            Prediction(
                probabilities=probabilities_C,
                location=self.labels[0],
                probability=float(probabilities_C[0]),
                confident=False,
                unlike_training=False,
                unlikeness=0.0,
                truncated=False,
                num_residues=len(sequence),
            )
            for sequence in sequences
        ]


def main(words: list[str]) -> None:
    from prottune.serving.logs import set_up_logging
    from prottune.serving.predictor import LocationPredictor
    from prottune.serving.server import bound_socket, run

    arguments = parse_flags(
        Arguments, words, "python -m benchmarks.no_op_server", "Serve a model that rests."
    )
    set_up_logging()
    threading.Thread(target=end_with_our_starter, daemon=True).start()
    model = LocationPredictor(NoOp(), arguments.config, "1")  # type: ignore[arg-type] # what it needs of one
    model.load()
    with bound_socket(arguments.config) as listener:
        run(model, arguments.config, listener)


if __name__ == "__main__":
    main(sys.argv[1:])
