"""Command-line words in, a frozen dataclass out; anything wrong is refused in one line.

Flags are made from fields: `max_residues: int` becomes `--max-residues`, the string under a field its help.
The fields of a settings dataclass inside appear without a prefix.
"""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

import tyro

# tyro's public way to report a wrong flag is a box of several lines. This hook is private: tyro's version is
# locked, and tests/test_flags.py meets every kind of refusal.
from tyro import _errors as refusals

from prottune.addresses import is_address
from prottune.errors import ConfigError

Flags = TypeVar("Flags")

_NARROWEST = 40
"""Columns of a terminal."""
_KINDS = {"INT": "a whole number", "FLOAT": "a number"}


def parse_flags(kind: type[Flags], words: Sequence[str], program: str, description: str) -> Flags:
    """Read flags into a dataclass; `--help` prints the flags and ends the program.

    Raises: ConfigError, in one line, for a flag that is unknown, missing or without a value, for a value
        of the wrong type, and for settings that the dataclass refuses.
    """

    if shutil.get_terminal_size().columns < _NARROWEST:
        os.environ["COLUMNS"] = str(_NARROWEST)  # tyro takes minutes to fit its help into less

    def refuse(event: refusals.ParseErrorEvent) -> NoReturn:
        raise _Refused(_explain(event, list(_flag_names(kind)), program))

    try:
        with refusals.on_parse_error(refuse):
            flat = (tyro.conf.OmitArgPrefixes,)
            flags = tyro.cli(kind, prog=program, description=description, args=list(words), config=flat)
    except _Refused as refused:
        raise ConfigError(str(refused)) from None
    _refuse_addresses(flags)
    return flags


def _refuse_addresses(flags: Any) -> None:
    """Refuse `s3://...` where a path is asked for: as a path it would name a folder of this machine."""
    for field in fields(flags):
        value = getattr(flags, field.name)
        if is_dataclass(value):
            _refuse_addresses(value)
        elif isinstance(value, Path) and is_address(value):
            flag = f"--{field.name.replace('_', '-')}"
            raise ConfigError(f"{flag}: got the address {str(value)!r}, expected a path of this machine")


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """Carries the line out of tyro, which takes a ValueError for its own."""


def _explain(event: refusals.ParseErrorEvent, known: Sequence[str], program: str) -> str:
    more = f"; `{program} --help` lists all"
    line = f"{program}: these words cannot be read ({type(event).__name__}){more}"
    match event:
        case (
            refusals.UnrecognizedArgs(tokens=tokens)
            | refusals.MissingArgs(unrecognized_tokens=[_, *_] as tokens)
        ):
            line = _unknown(tokens, known) + more
        case refusals.MissingArgs(missing_arguments=missing):
            line = f"missing {', '.join(_flag(entry.arg) for entry in missing)}{more}"
        case refusals.BadValue(argument=argument):
            line = f"{_flag(argument)} needs a value{more}"
        case refusals.InvalidChoice(argument=argument, value=value, choices=choices):
            line = f"{_flag(argument)}: got {value!r}, expected one of {', '.join(choices)}"
        case refusals.InstantiationFailure(argument=argument, message=message):
            line = " ".join(message.split())
            if argument is not None:
                kind = str(argument.lowered.metavar)
                line = f"{_flag(argument)}: got {line.rsplit(': ', 1)[-1]}, expected {_KINDS.get(kind, kind)}"
    return line


def _flag(argument: Any) -> str:
    return str(argument.lowered.name_or_flags[-1])


def _unknown(words: Sequence[str], known: Sequence[str]) -> str:
    flag = next((word for word in words if word.startswith("-")), "")
    if not flag:
        return f"unexpected word {words[0]!r}"
    near = difflib.get_close_matches(flag.split("=")[0].replace("_", "-"), known, n=1)
    return f"unknown flag {flag}" + (f" (did you mean {near[0]}?)" if near else "")


def _flag_names(kind: Any) -> list[str]:
    found = []
    hints = get_type_hints(kind)
    for field in fields(kind):
        inner = hints[field.name]
        if isinstance(inner, type) and is_dataclass(inner):
            found += _flag_names(inner)
        else:
            found.append(f"--{field.name.replace('_', '-')}")
    return found
