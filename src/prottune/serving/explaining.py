"""Why the model answers as it does, for those who ask the endpoint: one explanation at a time.

An explanation is 32 to 512 times the work of an answer, forward and backward, in fp32. It runs in a thread of
its own, on Linux with a lower priority, so that answers do not wait for it.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prottune.serving import metrics
from prottune.serving.batcher import Overloaded, TooLate
from prottune.serving.questions import Question
from prottune.serving.sdk import InvalidInput
from prottune.serving.settings import ServeConfig

if TYPE_CHECKING:
    from prottune.model.attribution import Attribution
    from prottune.model.inference import Predictor

MAX_WAITING = 4
"""Requests that wait while one is explained; more are refused at once. So many proteins may be in one."""
_NICENESS = 10

Attribute = Callable[[str, str, Callable[[], None]], "Attribution"]
"""A sequence, a location (empty: the predicted one), and what to call now and then; it raises to end all."""


def attributor(served: Predictor, folder: Path) -> Attribute:
    """Explain with the served model if that is fp32, else with a copy that the first explanation loads.

    The copy is read from the same folder, and its hashes are checked again.
    """

    @functools.cache
    def model() -> Predictor:
        return served if served.is_fp32 else type(served).load(folder, "fp32")

    def explain(sequence: str, location: str, before_each: Callable[[], None]) -> Attribution:
        from prottune.model.attribution import attribute

        return attribute(model(), sequence, location, before_each)

    return explain


class Explainer:
    """Explains one request at a time; few may wait."""

    def __init__(self, attribute: Attribute, labels: Sequence[str], config: ServeConfig) -> None:
        self._attribute = attribute
        self._labels = labels
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explanation", initializer=_step_back)
        self._num_asked = 0
        self._seconds = 0.0  # what the last request took
        self._is_closed = threading.Event()

    def check(self, questions: Sequence[Question]) -> None:
        """Refuse what cannot be explained.

        Raises: InvalidInput (400) for too many proteins, one that is too long, or an unknown location.
        """
        if len(questions) > MAX_WAITING:
            raise InvalidInput(
                f"instances: expected at most {MAX_WAITING} proteins to explain, got {len(questions)}"
            )
        longest = self._config.max_explained_residues
        for index, question in enumerate(questions):
            if len(question.sequence) > longest:
                raise InvalidInput(
                    f"instances[{index}].sequence: {len(question.sequence)} residues, expected at most "
                    f"{longest} for an explanation"
                )
            if question.location and question.location not in self._labels:
                raise InvalidInput(
                    f"instances[{index}].location: expected one of {', '.join(self._labels)}, "
                    f"got {question.location!a}"
                )

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the few places, for as long as the block lasts; whoever explains has one.

        Raises: Overloaded if all are taken.
        """
        if self._num_asked > MAX_WAITING:
            metrics.REFUSED.labels("overloaded").inc()
            raise Overloaded(
                f"{self._num_asked} requests for explanations are in the house already",
                max(1, math.ceil(self._seconds)),
            )
        self._num_asked += 1
        try:
            yield
        finally:
            self._num_asked -= 1

    async def explain(self, asked: Sequence[tuple[str, str]], seconds: float) -> list[Attribution]:
        """Score the residues of each sequence for its location, one sequence after the other.

        `seconds` are what is left of the request's deadline.

        Raises: TooLate when they are over; then, and when the caller is cancelled, the work ends before its
            next pass through the model.
        """
        given_up = threading.Event()
        deadline = asyncio.timeout(seconds)
        work = self._thread.submit(self._explain_all, asked, given_up)
        try:
            async with deadline:
                return await asyncio.wrap_future(work)
        except TimeoutError:
            if not deadline.expired():
                raise
            metrics.REFUSED.labels("too_late").inc()
            raise TooLate(
                f"not answered and explained within {self._config.request_seconds:g} s: ask again, or send "
                "fewer or shorter sequences"
            ) from None
        finally:
            given_up.set()

    def close(self) -> None:
        """End the explanation that is being computed, and those that wait."""
        self._is_closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _explain_all(self, asked: Sequence[tuple[str, str]], given_up: threading.Event) -> list[Attribution]:
        def before_each() -> None:
            if given_up.is_set() or self._is_closed.is_set():
                raise TooLate("given up")

        began = time.monotonic()
        attributions = []
        for sequence, location in asked:
            before_each()
            attributions.append(self._attribute(sequence, location, before_each))
        self._seconds = time.monotonic() - began
        metrics.EXPLANATION_SECONDS.observe(self._seconds)
        return attributions


def _step_back() -> None:
    """Let the threads of answers go before this one and those that it starts."""
    if sys.platform == "linux":  # elsewhere a priority is the whole program's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
