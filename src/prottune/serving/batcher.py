"""The questions of all clients, merged into batches for one model that computes in one thread.

There is no waiting timer: when the model is free it takes what has arrived, up to a budget of tokens. Nobody
waits for a batch to fill, and batches grow by themselves when much is asked.

The budget is what somebody who comes a moment later has to wait for. On a GPU it is large, as the GPU is idle
with less. A CPU is busy with few tokens: with ProtBERT's widths in bf16, one core computes a row of 64 tokens
at three tenths of the speed of long rows, and one of 512 at nine tenths or more. Beyond that everybody would
only wait.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from prottune.errors import ServiceError
from prottune.serving import metrics
from prottune.serving.settings import ServeConfig
from prottune.serving.waiting import Asked, Line, Work, num_tokens

if TYPE_CHECKING:
    from prottune.model.inference import Prediction

CPU_TOKENS_PER_BATCH = 512
"""Most tokens of several proteins that a CPU computes at once."""

_FADING = 0.8
"""How much a full batch leaves of what was known of the speed before it."""
_SLACK = 3.0
"""A batch may take so many times what the speed says before the model counts as stuck: attention over one
long protein is slow."""

_log = logging.getLogger(__name__)


class Overloaded(ServiceError):  # noqa: N818 - the name of a state
    """More is asked than the model can answer in time; nothing of this request was queued."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(f"{message}; try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class TooLate(ServiceError):  # noqa: N818
    """A request's deadline passed; what was not begun of it is not computed."""

    retry_after_seconds = 1


class TooMuch(ServiceError):  # noqa: N818
    """A request that takes longer than its deadline even if nobody else asks; to ask again cannot help."""


class Speed:
    """Tokens a second, as seen so far: the mean over batches by their tokens, old ones fading."""

    def __init__(self, tokens_per_batch: int) -> None:
        self._full = tokens_per_batch
        self._weight = self._sum = 0.0

    def saw(self, tokens: int, seconds: float) -> None:
        """Take one batch into account; a small one, which is slow, says little of large ones."""
        kept = _FADING ** (tokens / self._full)
        self._weight = kept * self._weight + tokens
        self._sum = kept * self._sum + tokens * tokens / max(seconds, 1e-6)

    def seconds(self, tokens: int) -> float:
        """How long so many tokens take; 0 before anything is known."""
        return tokens * self._weight / self._sum if self._sum else 0.0


class Batcher:
    """One model for many clients: each asks for its own sequences, the model gets them in batches."""

    def __init__(
        self,
        answer: Callable[[Sequence[str]], Sequence[Prediction]],
        config: ServeConfig,
        *,
        tokens_per_batch: int,
    ) -> None:
        """`answer` is called in one thread only, never twice at a time."""
        self._answer = answer
        self._config = config
        self._tokens_per_batch = tokens_per_batch
        self._line = Line()
        metrics.QUEUE_SEQUENCES.set_function(lambda: self._line.num_sequences)
        metrics.QUEUE_TOKENS.set_function(lambda: self._line.num_tokens)
        self._changed = threading.Condition()
        self._running: tuple[int, float] | None = None  # tokens of the batch in the model, and since when
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._ended: Future[None] = Future()
        self._ended.set_running_or_notify_cancel()
        self.speed = Speed(tokens_per_batch)
        """By which requests are admitted or refused."""
        self.speed_at_start = Speed(tokens_per_batch)
        """Stands in for it where a model is judged that has answered nobody yet. Nobody is refused by it: a
        GPU's first batch is slower than those that follow."""
        self.answered_at = -math.inf
        """When the model last answered a batch, by `time.monotonic`."""

    async def ask(self, sequences: Sequence[str], *, first: bool = False) -> list[Prediction]:
        """Return the model's answer for each clean sequence, in the order given.

        Identical sequences in flight, of all clients, are computed once. When the caller is cancelled or the
        deadline passes, what is not begun and nobody else wants is never computed. `first`: before everybody
        else, whatever the load; for the check whether the model answers at all.

        Raises: Overloaded at once if by the speed seen so far the model would be reached too late; TooLate
            when the deadline has passed, TooMuch if by that speed it always would; what the model raises for
            a batch, in the requests of that batch.
        """
        if not sequences:
            return []
        asked = self._join(sequences, first)
        deadline = asyncio.timeout(self._config.request_seconds)
        try:
            async with deadline:
                await asyncio.wrap_future(asked.future)
        except TimeoutError:
            if not deadline.expired():
                raise
            raise self._late(sequences) from None
        finally:
            with self._changed:
                self._line.leave(asked)
        return [asked.answers[sequence] for sequence in sequences]

    async def close(self) -> None:
        """Refuse what comes from now on, and return when all that was asked before is answered."""
        with self._changed:
            self._is_closed = True
            if self._thread is None:
                return
            self._changed.notify()
        await asyncio.shield(asyncio.wrap_future(self._ended))

    def is_overdue(self, patience_seconds: float) -> bool:
        """Whether the model sits on a batch for much longer than its speed explains."""
        with self._changed:
            if self._running is None:
                return False
            tokens, since = self._running
            expected = _SLACK * (self.speed.seconds(tokens) or self.speed_at_start.seconds(tokens))
            return time.monotonic() - since > patience_seconds + expected

    def _late(self, sequences: Sequence[str]) -> ServiceError:
        limit = self._config.request_seconds
        own = self.speed.seconds(sum(map(num_tokens, set(sequences))))
        if own > limit:
            metrics.REFUSED.labels("too_much").inc()
            return TooMuch(
                f"not answered within {limit:g} s, and these sequences alone take about {own:.0f} s: "
                "send fewer or shorter ones"
            )
        metrics.REFUSED.labels("too_late").inc()
        return TooLate(f"not answered within {limit:g} s: ask again, or send fewer or shorter sequences")

    def _join(self, sequences: Sequence[str], first: bool) -> Asked:
        with self._changed:
            self._admit(sequences, first)
            asked = Asked()
            self._line.join(asked, sequences, time.monotonic(), first=first)
            if self._thread is None:  # a daemon: a model that hangs must not keep the program from ending
                self._thread = threading.Thread(target=self._work, name="model", daemon=True)
                self._thread.start()
            self._changed.notify()
        return asked

    def _admit(self, sequences: Sequence[str], first: bool) -> None:
        wait = 0.0 if first else self._wait_seconds(sequences)
        allowed = self._config.queue_seconds
        if self._is_closed or wait > allowed:
            metrics.REFUSED.labels("overloaded").inc()
        if self._is_closed:
            raise Overloaded("the server is stopping", 1)
        if wait > allowed:
            raise Overloaded(
                f"the model has {wait:.0f} s of work before this request, expected at most {allowed:g}",
                math.ceil(wait - allowed),
            )

    def _wait_seconds(self, sequences: Sequence[str]) -> float:
        """How long others keep the model from being through with a request."""
        in_model = 0.0
        if self._running is not None:
            tokens, since = self._running
            in_model = max(0.0, self.speed.seconds(tokens) - (time.monotonic() - since))
        at_most = in_model + self.speed.seconds(self._line.num_tokens)
        if at_most <= self._config.queue_seconds:
            return at_most
        if self._line.num_tokens <= self._tokens_per_batch:
            return in_model  # all that waits is the next batch
        return in_model + self.speed.seconds(self._line.tokens_ahead(sequences))

    def _work(self) -> None:
        while (works := self._next_batch()) is not None:
            tokens = sum(work.num_tokens for work in works)
            began = time.monotonic()
            try:
                answers = self._ask_model(works)
                self._finish(works, answers, tokens, time.monotonic() - began)
            except Exception as error:
                _log.exception("the model failed on a batch: sequences %d, tokens %d", len(works), tokens)
                self._fail(works, error)
        self._ended.set_result(None)

    def _next_batch(self) -> list[Work] | None:
        """Wait for something to do; None when there is nothing and never will be."""
        with self._changed:
            self._running = None
            while not self._line.num_sequences:
                if self._is_closed:
                    return None
                self._changed.wait()
            works = self._line.take(self._tokens_per_batch)
            now = time.monotonic()
            self._running = sum(work.num_tokens for work in works), now
        for work in works:
            metrics.QUEUE_SECONDS.observe(now - work.since)
        return works

    def _ask_model(self, works: list[Work]) -> list[Prediction]:
        answers = list(self._answer([work.sequence for work in works]))
        if len(answers) != len(works):
            raise RuntimeError(f"the model gave {len(answers)} answers to {len(works)} sequences")
        return answers

    def _finish(self, works: list[Work], answers: list[Prediction], tokens: int, seconds: float) -> None:
        with self._changed:
            whole = self._line.finish(works, answers)
            self.answered_at = time.monotonic()
            if not works[0].goes_first:  # one residue alone says nothing of the speed
                self.speed.saw(tokens, seconds)
        metrics.MODEL_SECONDS.observe(seconds)
        metrics.BATCH_TOKENS.observe(tokens)
        for asked in whole:
            asked.future.set_result(None)

    def _fail(self, works: list[Work], error: Exception) -> None:
        with self._changed:
            lost = [asked for asked in self._line.fail(works) if not asked.future.done()]
            for asked in lost:
                self._line.leave(asked)  # at once, lest the next batch computes the rest of it
        for asked in lost:
            asked.future.set_exception(error)
