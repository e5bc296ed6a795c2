"""JSON by the letter of its standard: bytes in, a value out; what could be read in two ways is refused.

Python's reader takes the last of two equal keys, NaN, numbers that become infinite, and UTF-16; each of them
could turn into an answer about something else than what was asked.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

from prottune.serving.sdk import InvalidInput

MAX_PARTS = 100_000
"""Most commas and opening brackets of one text. 256 proteins need a thousand; the millions that fit into a
body would hold up everybody for seconds. A text of less than twice as many characters is not counted."""

_MARK = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[,\[{]', re.DOTALL)
"""A text between quotes, whatever stands in it, or what begins another value."""


def read_json(body: bytes | str) -> Any:
    """Read one JSON text (RFC 8259, UTF-8; a byte order mark is tolerated).

    Raises: InvalidInput (400) naming the character or the field: text that is no JSON, bytes that are not
        UTF-8, the same key twice in an object, NaN and infinite numbers, integers of thousands of digits,
        nesting beyond what can be read, more than `MAX_PARTS`.
    """
    faults: list[tuple[object, str]] = []
    try:
        text = body if isinstance(body, str) else body.decode("utf-8-sig")
        if _has_too_many_parts(text):
            raise InvalidInput(f"body: expected at most {MAX_PARTS} texts, commas and brackets, got more")
        value = json.loads(text, **_hooks(faults))
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InvalidInput(f"body: byte 0x{byte:02x} at position {error.start + 1} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise InvalidInput(f"body: not JSON at character {error.pos + 1} ({error.msg})") from None
    except RecursionError:
        raise InvalidInput("body: not JSON that can be read; lists or objects are nested too deep") from None
    if faults:
        place, words = faults[0]
        raise InvalidInput(f"{_where(value, place)}: {words}")
    return value


def shown(value: object, longest: int = 40) -> str:
    """A value as a refusal quotes it: ASCII, and never long."""
    words = ascii(value)
    return words if len(words) <= longest else f"{words[:longest]}..."


def _has_too_many_parts(text: str) -> bool:
    """Whether reading it would take long. Commas and brackets inside texts, as in FASTA headers, are free."""
    if len(text) <= 2 * MAX_PARTS:
        return False
    num_marks = 0
    for mark in ",[{":  # find leaps over sequences, which count would read letter by letter
        place = text.find(mark)
        while place >= 0 and num_marks <= MAX_PARTS:
            num_marks += 1
            place = text.find(mark, place + 1)
    return num_marks > MAX_PARTS and any(islice(_MARK.finditer(text), MAX_PARTS, None))


def _hooks(faults: list[tuple[object, str]]) -> dict[str, Any]:
    """What the reader calls: each puts a mark into the value where it found fault, and says why."""

    def fault(place: object, words: str) -> object:
        if not faults:  # the first is told; a body can hold millions
            faults.append((place, words))
        return place

    def as_object(pairs: list[tuple[str, Any]]) -> Any:
        value = dict(pairs)
        if len(value) == len(pairs) or faults:
            return value
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return fault(value, f"the key {shown(twice)} is given more than once")

    def as_integer(digits: str) -> object:
        try:
            return int(digits)
        except ValueError:
            return fault(_Mark(), f"an integer of {len(digits)} digits; no field takes one")

    def as_number(digits: str) -> object:
        number = float(digits)
        return number if math.isfinite(number) else fault(_Mark(), f"{shown(digits)} is too large a number")

    def as_constant(word: str) -> object:
        return fault(_Mark(), f"{word} is no JSON; expected a value")

    return {
        "object_pairs_hook": as_object,
        "parse_int": as_integer,
        "parse_float": as_number,
        "parse_constant": as_constant,
    }


class _Mark:
    """Stands in a value for what could not be read."""


def _where(value: Any, place: object) -> str:
    """The path to one part of a value, as `instances[3].sequence`."""
    waiting = [iter([("", value)])]
    while waiting:
        if (found := next(waiting[-1], None)) is None:
            waiting.pop()
            continue
        path, part = found
        if part is place:
            return path or "body"
        waiting.append(_parts(part, path))
    return "body"  # below a key that was given twice, where only the last value stays


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The path to each part of a value, and the part; one at a time, for paths may be long and parts many."""
    if isinstance(value, dict):
        yield from ((f"{path}.{_name(key)}" if path else _name(key), inner) for key, inner in value.items())
    elif isinstance(value, list):
        yield from ((f"{path}[{index}]", inner) for index, inner in enumerate(value))


def _name(key: str) -> str:
    return key if key.isidentifier() and key.isascii() and len(key) <= 40 else shown(key)
