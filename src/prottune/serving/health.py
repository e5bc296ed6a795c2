"""Whether the model answers, and answers rightly: a golden sequence is asked now and then.

The check goes through the model's own thread and before the users' work. While users get answers nobody waits
for it: a probe is answered at once from the last check, and the next one runs behind it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prottune.serving.batcher import Batcher

if TYPE_CHECKING:
    from prottune.model.inference import Prediction

FRESH_SECONDS = 3.0
"""So long a check counts, and so long an answer to a user is a sign of life."""
PATIENCE_SECONDS = 2.0
"""A check that is open longer has failed, unless the model is busy with a batch that explains it."""

_log = logging.getLogger(__name__)


def difference(labels: Sequence[str], golden: Mapping[str, Any], answer: Prediction) -> float:
    """The largest difference between an answer's probabilities and the golden ones; NaN if one of them is."""
    said = answer.probabilities.tolist()
    expected = [golden["probabilities"][label] for label in labels]
    if answer.membrane is not None:
        said.append(answer.membrane)
        expected.append(golden.get("membrane", np.nan))
    return float(np.abs(np.subtract(said, expected)).max())


class Health:
    """Asks one golden sequence, at most every few seconds, and remembers how that went."""

    def __init__(
        self, batcher: Batcher, labels: Sequence[str], golden: Mapping[str, Any], max_difference: float
    ) -> None:
        self._batcher = batcher
        self._labels = labels
        self._golden = golden
        self._max_difference = max_difference
        self._is_right = True
        self.is_wrong = False
        """Whether the last golden answer came and was not the right one."""
        self._checked_at = -math.inf
        self._began_at = -math.inf
        self._check: asyncio.Task[None] | None = None

    async def is_good(self) -> bool:
        """Whether the model gave its golden answer, lately; never raises."""
        now = time.monotonic()
        if self._check is None or self._check.done():
            if now - self._checked_at < FRESH_SECONDS:
                return self._is_right
            self._began_at = now
            self._check = asyncio.ensure_future(self._ask())
        if now - max(self._checked_at, self._batcher.answered_at) < FRESH_SECONDS:
            return self._is_right
        patience = PATIENCE_SECONDS - (now - self._began_at)
        if patience > 0:
            await asyncio.wait([self._check], timeout=patience)
        return self._is_right and (self._check.done() or not self._batcher.is_overdue(PATIENCE_SECONDS))

    async def _ask(self) -> None:
        try:
            (answer,) = await self._batcher.ask([self._golden["sequence"]], first=True)
            found = difference(self._labels, self._golden, answer)
            is_right = found <= self._max_difference  # no number is no right answer
            self.is_wrong = not is_right
            words = f"a probability differs by {found:.4f}, expected at most {self._max_difference}"
        except Exception as error:
            is_right, words = False, f"{type(error).__name__}: {error}"
        if is_right != self._is_right:
            now = "as it should again" if is_right else f"wrongly ({words})"
            _log.log(logging.INFO if is_right else logging.ERROR, "the model answers %s", now)
        self._is_right = is_right
        self._checked_at = time.monotonic()
