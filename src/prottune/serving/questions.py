"""What a request asks: the body of either protocol comes in, clean sequences go out, all else is refused.

A refusal names the field and its position, as `instances[3].sequence` (counted from 0, as in JSON).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prottune.alphabet import clean
from prottune.errors import DataError
from prottune.serving.sdk import InferRequest, InvalidInput
from prottune.serving.settings import ServeConfig

INPUT_NAME = "sequence"
_MAX_ACCESSION = 200


@dataclass(frozen=True)
class Question:
    """One protein that somebody asks about."""

    sequence: str
    """Clean residues."""
    accession: str | None = None
    """How the caller calls it."""


def questions_of_v1(body: Any, config: ServeConfig) -> list[Question]:
    """Read `{"instances": ["MKT...", {"accession": "P1", "sequence": "MKT..."}]}`.

    A body that came without a JSON content type arrives as bytes and is read as JSON all the same.

    Raises: InvalidInput (400) for everything else.
    """
    if isinstance(body, (bytes, str)):
        body = _json(body)
    if not isinstance(body, dict) or "instances" not in body:
        raise InvalidInput('body: expected an object like {"instances": ["MKT..."]}')
    instances = body["instances"]
    if not isinstance(instances, list):
        raise InvalidInput(f"instances: expected a list, got {_kind(instances)}")
    _check_number("instances", instances, config)
    return [_question(f"instances[{index}]", entry, config) for index, entry in enumerate(instances)]


def questions_of_v2(request: InferRequest, config: ServeConfig) -> list[Question]:
    """Read the one BYTES input `sequence` of an Open Inference Protocol request.

    Raises: InvalidInput (400) for other names, types and shapes, and for what is no protein.
    """
    names = [entry.name for entry in request.inputs]
    if names != [INPUT_NAME]:
        raise InvalidInput(f"inputs: expected one called {INPUT_NAME!r}, got {names[:5]}")
    entry = request.inputs[0]
    if entry.datatype != "BYTES":
        raise InvalidInput(f"inputs[0].datatype: expected 'BYTES', got {entry.datatype!r}")
    rows = _rows(entry.data)
    if list(entry.shape) not in ([len(rows)], [len(rows), 1]):
        raise InvalidInput(f"inputs[0].shape: expected [{len(rows)}], as many as in data, got {entry.shape}")
    _check_number("inputs[0].data", rows, config)
    return [
        Question(_sequence(f"inputs[0].data[{index}]", _text(index, row), config))
        for index, row in enumerate(rows)
    ]


def _json(body: bytes | str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"body: not JSON ({error})") from None


def _question(where: str, entry: Any, config: ServeConfig) -> Question:
    if isinstance(entry, str):
        return Question(_sequence(where, entry, config))
    if not isinstance(entry, dict) or "sequence" not in entry:
        expected = 'a sequence, or an object like {"accession": "P1", "sequence": "MKT..."}'
        raise InvalidInput(f"{where}: expected {expected}, got {_kind(entry)}")
    accession = entry.get("accession")
    if accession is not None and (not isinstance(accession, str) or len(accession) > _MAX_ACCESSION):
        raise InvalidInput(
            f"{where}.accession: expected at most {_MAX_ACCESSION} characters of text, got {_kind(accession)}"
        )
    return Question(_sequence(f"{where}.sequence", entry["sequence"], config), accession)


def _sequence(where: str, value: Any, config: ServeConfig) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{where}: expected text, got {_kind(value)}")
    if not value.isascii():  # before upper(), which would turn some letters into residues
        position, letter = next((n, c) for n, c in enumerate(value, start=1) if not c.isascii())
        raise InvalidInput(f"{where}: {letter!a} at character {position} is no amino acid")
    try:
        residues = clean(value)
    except DataError as error:
        raise InvalidInput(f"{where}: {error}") from None
    if len(residues) > config.max_residues:
        raise InvalidInput(f"{where}: {len(residues)} residues, expected at most {config.max_residues}")
    return residues


def _rows(data: Any) -> list[Any]:
    """The elements of a tensor of shape [n] or [n, 1]."""
    if data is None or isinstance(data, (str, bytes)):
        raise InvalidInput("inputs[0].data: expected a list of sequences")
    return [row[0] if isinstance(row, list) and len(row) == 1 else row for row in data]


def _text(index: int, row: Any) -> Any:
    try:
        return row.decode("ascii") if isinstance(row, bytes) else row
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"inputs[0].data[{index}]: byte {error.object[error.start]} at character {error.start + 1} "
            "is no amino acid"
        ) from None


def _check_number(where: str, entries: Sequence[Any], config: ServeConfig) -> None:
    if not 1 <= len(entries) <= config.max_sequences:
        raise InvalidInput(f"{where}: expected 1 to {config.max_sequences} sequences, got {len(entries)}")


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return {**names, list: "a list", dict: "an object"}.get(type(value), type(value).__name__)
