"""What each process of a training over several nodes does: `torchrun -m prottune.training.node` in every pod.

Its order is in the environment. What it learns from and where the model goes lies in the object store. Rank 0
writes each point of its history to stdout, from where the step that started all this hands it on: a pod's log
is read anyway, and no process of a node talks to MLflow.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from pathlib import Path

from prottune.errors import ProttuneError
from prottune.training.history import Point
from prottune.training.order import ORDER_VARIABLE, POINT_MARK, Order
from prottune.training.stage import train

_log = logging.getLogger(__name__)


def run(order: Order, rank: int) -> None:
    """Fetch, train as one of the ranks, and deliver if this is rank 0.

    Raises: what `train` raises; ArtifactError if the tokens are damaged; StorageError when the store refuses
        or vanishes.
    """
    with tempfile.TemporaryDirectory(prefix="prottune-node-") as scratch:
        tokens, model = order.fetch_tokens(Path(scratch) / "tokens"), Path(scratch) / "model"
        report = train(tokens, model, order.config, _tell_point, order.checkpoints)
        if rank == 0:
            order.deliver(model, report)


def _tell_point(point: Point) -> None:
    sys.stdout.write(f"{POINT_MARK}{json.dumps(point)}\n")  # at once: other processes write there too
    sys.stdout.flush()


def main() -> int:
    """Run one process; what ends it early is left in the store, because torchrun keeps no exit codes."""
    order, rank = Order.parse(os.environ[ORDER_VARIABLE]), int(os.environ.get("RANK", "0"))
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    if rank == 0:
        logging.getLogger("prottune").setLevel(logging.INFO)
    try:
        run(order, rank)
    except Exception as error:  # whatever it is, the step must hear of it
        _log.exception("rank %d failed", rank)
        try:
            order.leave_word(error, rank)
        except ProttuneError as unreachable:
            _log.warning("no word of it can be left: %s", unreachable)
        return error.exit_code if isinstance(error, ProttuneError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
