"""`prottune <verb>`, one verb a stage; `prottune --help` lists them, `prottune train --help` the flags."""

from __future__ import annotations

import difflib
import logging
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

from prottune import __version__
from prottune.errors import ConfigError, ProttuneError
from prottune.screen import patient_screen

VERBS = {
    "sample": "write synthetic proteins that show whether the pipeline learns",
    "ingest": "read labelled proteins, check every one, split them by homology",
    "tokenize": "turn ingested proteins into token ids",
    "train": "fine-tune a base model on tokens",
    "evaluate": "score a model beside the floor and the champion, and decide: promote or hold",
    "register": "enter a model in the registry as challenger",
    "deploy": "serve a model and hold its endpoint to the golden answers",
    "promote": "make a registered version the champion",
    "rollback": "let the previous champion serve again",
    "serve": "answer requests over HTTP until stopped",
    "predict": "label a FASTA file of any size",
    "explain": "say which residues of a protein speak for its location",
}
_INTERRUPTED = 130
_WRONG_PLACES = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
_OTHER_NAMES = {"--expected-sha256": "--expected-digest"}
"""The command line's fixed name -> the setting, which takes a git blob's hash too."""


def main() -> None:
    """Run the verb that the command line names and end with its exit code."""
    sys.exit(guarded(_run_verb, sys.argv[1:], "prottune", VERBS))


def guarded(
    run: Callable[[Sequence[str]], int], words: Sequence[str], program: str, verbs: Mapping[str, str]
) -> int:
    """Run a verb; a refusal is one line on stderr and its own exit code, a bug a traceback and 1."""
    try:
        with patient_screen():
            _refuse_unreadable(words)
            match words:
                case ["help", verb, *_] if verb in verbs:
                    words = [verb, "--help"]
            exit_code = _answer(words[0] if words else "", program, verbs)
            if exit_code is None:
                exit_code = run(words)
    except ProttuneError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as interrupt:  # who stopped on the way may say how to go on
        print(f"error: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return _INTERRUPTED
    except ModuleNotFoundError as error:
        return _missing(error)
    except _WRONG_PLACES as error:
        return _misplaced(error)
    except Exception:  # a bug: all of it, and the exit code that says so
        traceback.print_exc()
        return 1
    return exit_code


def _refuse_unreadable(words: Sequence[str]) -> None:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(f"{word!r}: not UTF-8; expected names that can be written") from error


def _misplaced(error: OSError) -> int:
    """Refuse a file that is where it cannot be read or written; without a name it is a bug."""
    if error.filename is None:
        traceback.print_exc()
        return 1
    print(f"error: {error.filename}: {error.strerror}; name another place", file=sys.stderr)
    return ConfigError.exit_code


def _missing(error: ModuleNotFoundError) -> int:
    """Refuse a verb whose packages are not installed; that a module of our own is missing is a bug."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "prottune", "pipelines"):
        traceback.print_exc()
        return 1
    print(
        f"error: package {package!r} is not installed here; train, evaluate, predict, explain and serve need "
        "those of requirements/torch.in, which the image prottune-torch has",
        file=sys.stderr,
    )
    return ConfigError.exit_code


def _answer(word: str, program: str, verbs: Mapping[str, str]) -> int | None:
    """Answer what needs no verb; None if `word` is one.

    Raises: ConfigError for a word that is no verb.
    """
    if word in verbs:
        return None
    if word in ("-h", "--help", "help", ""):
        print(overview(program, verbs))
        return 0 if word else ConfigError.exit_code
    if word == "--version":
        print(f"prottune {__version__}")
        return 0
    near = difflib.get_close_matches(word, verbs, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"unknown verb {word!r}{hint}; `{program} --help` lists them")


def overview(program: str, verbs: Mapping[str, str]) -> str:
    """The verbs, a line each."""
    width = max(map(len, verbs))
    lines = [f"  {name:{width}}  {text}" for name, text in verbs.items()]
    more = f"`{program} <verb> --help` lists the flags of a verb."
    return "\n".join([f"usage: {program} <verb> [flags]", "", *lines, "", more])


def _run_verb(words: Sequence[str]) -> int:
    from prottune.commands import COMMANDS
    from prottune.flags import parse_flags

    verb, *rest = words
    flags = [
        _OTHER_NAMES.get(flag, flag) + equals + value
        for flag, equals, value in (w.partition("=") for w in rest)
    ]
    command = parse_flags(COMMANDS[verb], flags, f"prottune {verb}", VERBS[verb])
    # Plain lines of long work; other people's libraries speak only when something is wrong.
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("prottune").setLevel(logging.INFO)
    for line in command.run():
        print(line)
    return 0
