"""Who waits for the model, and in which order they are served.

Every request has an equal share of the model's time (fair queueing). A sequence's place in the line is the
place that is being served now, plus the tokens of its request up to it: what is small comes soon, and a
request of 256 long proteins is worked off between the others. Places only grow, so everybody's turn comes.

Source: Golestani 1994, "A self-clocked fair queueing scheme for broadband applications", IEEE INFOCOM,
    section 3.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from prottune.alphabet import NUM_SPECIAL_TOKENS

if TYPE_CHECKING:
    from prottune.model.inference import Prediction

_FIRST = -1
"""Place of what goes before everybody."""
_FEW = 1000
"""So many entries of sequences that nobody waits for any more are not worth tidying up."""


@dataclass(eq=False, slots=True)
class Asked:
    """What one request waits for."""

    missing: set[str] = field(default_factory=set)
    answers: dict[str, Prediction] = field(default_factory=dict)
    tokens_in_line: int = 0
    """Of the sequences that are in the line because of this request."""
    future: Future[None] = field(default_factory=Future)
    """Done when nothing is missing; settled by the model's thread."""

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # a caller who goes away leaves the line, no more


@dataclass(eq=False, slots=True)
class Work:
    """One sequence that somebody waits for; identical ones are one."""

    sequence: str
    place: int
    since: float
    """When it was asked for, by `time.monotonic`."""
    payer: Asked
    """The request whose share it takes."""
    wanted_by: set[Asked]
    is_begun: bool = False
    num_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_tokens = num_tokens(self.sequence)

    @property
    def goes_first(self) -> bool:
        return self.place == _FIRST


class Line:
    """The sequences in front of the model. It has no lock: whoever owns it has one."""

    def __init__(self) -> None:
        self.num_sequences = 0
        """Those that wait; the model has not begun them."""
        self.num_tokens = 0
        self._works: dict[str, Work] = {}
        self._heap: list[tuple[int, int, Work]] = []
        self._arrival = count()
        self._served = 0
        self._asked: set[Asked] = set()

    def tokens_ahead(self, sequences: Sequence[str]) -> int:
        """How many tokens of others are served before a request for these sequences would be through.

        Sharing equally, each of the others gets as much as it, or what it still waits for if that is less.
        What others have asked for already costs a request nothing.
        """
        own = sum(num_tokens(sequence) for sequence in set(sequences) if sequence not in self._works)
        return sum(min(asked.tokens_in_line, own) for asked in self._asked)

    def join(self, asked: Asked, sequences: Sequence[str], now: float, *, first: bool = False) -> None:
        """Put what a request asks for into the line, short sequences before long ones."""
        self._asked.add(asked)
        place = self._served
        for sequence in sorted(dict.fromkeys(sequences), key=len):
            asked.missing.add(sequence)
            work = self._works.get(sequence)
            if work is None:
                work = Work(sequence, place, now, asked, set())
                self._works[sequence] = work
                self.num_sequences += 1
                self._charge(work, asked)
            elif work.is_begun:
                work.wanted_by.add(asked)
                continue
            place += work.num_tokens if work.payer is asked else 0
            work.wanted_by.add(asked)
            sooner = _FIRST if first else place
            if len(work.wanted_by) == 1 or sooner < work.place:
                work.place = sooner
                heapq.heappush(self._heap, (sooner, next(self._arrival), work))

    def leave(self, asked: Asked) -> None:
        """Take a request out: what nobody else waits for and is not begun will never be computed."""
        self._asked.discard(asked)
        for sequence in asked.missing:
            work = self._works.get(sequence)
            if work is None or asked not in work.wanted_by:
                continue
            work.wanted_by.discard(asked)
            if work.is_begun:
                continue
            if work.payer is asked:
                self._charge(work, None)
                if work.wanted_by:
                    self._charge(work, next(iter(work.wanted_by)))
            if not work.wanted_by:
                del self._works[sequence]
                self.num_sequences -= 1
        self._tidy()

    def take(self, tokens_per_batch: int) -> list[Work]:
        """The next sequences in the line, as many as fit; a longer one is a batch of its own.

        What goes before everybody goes alone: others could break it.
        """
        works: list[Work] = []
        tokens = 0
        while self._heap:
            place, _, work = self._heap[0]
            if not _is_current(place, work):
                heapq.heappop(self._heap)
                continue
            if works and (works[0].goes_first or tokens + work.num_tokens > tokens_per_batch):
                break
            heapq.heappop(self._heap)
            self._charge(work, None)
            self.num_sequences -= 1
            work.is_begun = True
            self._served = max(self._served, place)
            works.append(work)
            tokens += work.num_tokens
        return works

    def finish(self, works: Sequence[Work], answers: Sequence[Prediction]) -> list[Asked]:
        """Give the answers to those who wait for them; returns the requests that miss nothing now."""
        whole = []
        for work, answer in zip(works, answers, strict=True):
            for asked in self._close(work):
                asked.answers[work.sequence] = answer
                asked.missing.discard(work.sequence)
                if not asked.missing:
                    whole.append(asked)
        return whole

    def fail(self, works: Sequence[Work]) -> list[Asked]:
        """Return the requests that will never be whole, as the model failed on these sequences."""
        return list({asked: None for work in works for asked in self._close(work)})

    def _close(self, work: Work) -> set[Asked]:
        del self._works[work.sequence]
        return work.wanted_by

    def _charge(self, work: Work, payer: Asked | None) -> None:
        """Count a waiting sequence's tokens for a request, or for none as it waits no longer."""
        if payer is None:
            work.payer.tokens_in_line -= work.num_tokens
            self.num_tokens -= work.num_tokens
        else:
            work.payer = payer
            payer.tokens_in_line += work.num_tokens
            self.num_tokens += work.num_tokens

    def _tidy(self) -> None:
        if len(self._heap) > 2 * self.num_sequences + _FEW:
            self._heap = [entry for entry in self._heap if _is_current(entry[0], entry[2])]
            heapq.heapify(self._heap)


def num_tokens(sequence: str) -> int:
    """What a sequence costs: its residues, [CLS] and [SEP]."""
    return len(sequence) + NUM_SPECIAL_TOKENS


def _is_current(place: int, work: Work) -> bool:
    return bool(work.wanted_by) and not work.is_begun and place == work.place
