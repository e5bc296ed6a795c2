"""What a request asks: the body of either protocol comes in, clean sequences go out, all else is refused.

A refusal names the field and its position, as `instances[3].sequence` (counted from 0, as in JSON).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prottune.alphabet import clean
from prottune.errors import DataError
from prottune.fasta import STOP, FastaRecord, accession_of, read_fasta
from prottune.serving.sdk import InferRequest, InvalidInput
from prottune.serving.settings import ServeConfig
from prottune.serving.strict_json import read_json, shown

INPUT_NAME = "sequence"
MAX_NAME = 200
"""Characters of an accession, a location or an id, which are sent back as they came."""

_NO_NAME = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
"""Control characters and halves of characters, which no answer could carry."""
_NO_TEXT = re.compile(r"[^\t-\r -~]")
"""Before white space is removed and letters are raised, which would turn some of these into residues."""


@dataclass(frozen=True)
class Question:
    """One protein that somebody asks about."""

    sequence: str
    """Clean residues."""
    accession: str | None = None
    """How the caller calls it."""
    location: str | None = None
    """The location that an explanation shall be about."""


def questions_of_v1(body: Any, config: ServeConfig) -> list[Question]:
    """Read `{"instances": ["MKT...", {"accession": "P1", "sequence": "MKT..."}]}`, as bytes or read already.

    Raises: InvalidInput (400) for everything else.
    """
    if isinstance(body, (bytes, str)):
        body = read_json(body)
    if not isinstance(body, dict) or "instances" not in body:
        raise InvalidInput('body: expected an object like {"instances": ["MKT..."]}')
    instances = body["instances"]
    if not isinstance(instances, list):
        raise InvalidInput(f"instances: expected a list, got {kind(instances)}")
    _check_number("instances", instances, config)
    return [_question(f"instances[{index}]", entry, config) for index, entry in enumerate(instances)]


def questions_of_v2(request: InferRequest, config: ServeConfig) -> list[Question]:
    """Read the one BYTES input `sequence` of an Open Inference Protocol request.

    Raises: InvalidInput (400) for other names, types and shapes, and for what is no protein.
    """
    names = [entry.name for entry in request.inputs]
    if names != [INPUT_NAME]:
        raise InvalidInput(f"inputs: expected one called {INPUT_NAME!r}, got {shown(names)}")
    entry = request.inputs[0]
    if entry.datatype != "BYTES":
        raise InvalidInput(f"inputs[0].datatype: expected 'BYTES', got {shown(entry.datatype)}")
    rows = _rows(entry.data)
    if list(entry.shape) not in ([len(rows)], [len(rows), 1]):
        raise InvalidInput(
            f"inputs[0].shape: expected [{len(rows)}], as many as in data, got {shown(entry.shape)}"
        )
    _check_number("inputs[0].data", rows, config)
    return [_protein(f"inputs[0].data[{index}]", _text(index, row), config) for index, row in enumerate(rows)]


def name_of(where: str, value: Any) -> str | None:
    """A name that is sent back as it came, if one was given.

    Raises: InvalidInput (400) if it is no text, too long, or holds characters that no answer could carry.
    """
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_NAME:
        got = f"{len(value)} characters" if isinstance(value, str) else kind(value)
        raise InvalidInput(f"{where}: expected at most {MAX_NAME} characters of text, got {got}")
    if stranger := _NO_NAME.search(value):
        raise InvalidInput(
            f"{where}: expected printable text, got {stranger[0]!a} at character {stranger.start() + 1}"
        )
    return value


def kind(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text"}
    return {**names, list: "a list", dict: "an object"}.get(type(value), type(value).__name__)


def _question(where: str, entry: Any, config: ServeConfig) -> Question:
    if isinstance(entry, str):
        return _protein(where, entry, config)
    if not isinstance(entry, dict) or "sequence" not in entry:
        expected = 'a sequence, or an object like {"accession": "P1", "sequence": "MKT..."}'
        raise InvalidInput(f"{where}: expected {expected}, got {kind(entry)}")
    protein = _protein(f"{where}.sequence", entry["sequence"], config)
    accession = name_of(f"{where}.accession", entry.get("accession"))
    location = name_of(f"{where}.location", entry.get("location"))
    return Question(protein.sequence, protein.accession if accession is None else accession, location)


def _protein(where: str, value: Any, config: ServeConfig) -> Question:
    """One protein as plain residues or as a FASTA record, whose header then names it."""
    if not isinstance(value, str):
        raise InvalidInput(f"{where}: expected text, got {kind(value)}")
    if not value.lstrip().startswith((">", "\ufeff>")):
        return Question(_residues(where, value, config))
    record = _record(where, value)
    accession = name_of(f"{where}, accession of the header", accession_of(record.header))
    return Question(_residues(where, record.sequence, config), accession)


def _record(where: str, text: str) -> FastaRecord:
    try:
        records = list(
            read_fasta(io.BytesIO(text.lstrip().encode("utf-8", "surrogatepass")), f"{where} line")
        )
    except DataError as error:
        raise InvalidInput(str(error)) from None
    if len(records) != 1:
        raise InvalidInput(
            f"{where}: {len(records)} FASTA records, expected one; send each as an instance of its own"
        )
    return records[0]


def _residues(where: str, text: str, config: ServeConfig) -> str:
    if not (text.isascii() and text.isprintable()) and (stranger := _NO_TEXT.search(text)):
        raise InvalidInput(f"{where}: {stranger[0]!a} at character {stranger.start() + 1} is no amino acid")
    try:
        residues = clean(text.rstrip().removesuffix(STOP))
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
        return row.decode("utf-8") if isinstance(row, bytes) else row
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"inputs[0].data[{index}]: byte {error.object[error.start]} at character {error.start + 1} "
            "is no amino acid"
        ) from None


def _check_number(where: str, entries: Sequence[Any], config: ServeConfig) -> None:
    if not 1 <= len(entries) <= config.max_sequences:
        raise InvalidInput(f"{where}: expected 1 to {config.max_sequences} sequences, got {len(entries)}")
