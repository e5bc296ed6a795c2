"""requirements/*.sh end well after an interruption: seen with programs that only note how they are called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYTHON = """#!/bin/sh
echo "python $*" >> "$NOTES"
[ "$1 $2" = "-m venv" ] || exit 0
for last; do :; done
mkdir -p "$last/bin" && cp "$WHOLE" "$last/bin/python"
"""
WHOLE = '#!/bin/sh\necho "whole $*" >> "$NOTES"\n'
WITHOUT_PIP = '#!/bin/sh\necho "No module named pip" >&2\nexit 1\n'


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def notes_of(script: str, tmp_path: Path) -> list[str]:
    """Run a script; how its programs were called."""
    notes = tmp_path / "notes"
    notes.write_text("")
    programs = {
        "PYTHON": program(tmp_path / "python", PYTHON),
        "WHOLE": program(tmp_path / "whole", WHOLE),
        "NOTES": notes,
    }
    subprocess.run(
        ["sh", ROOT / "requirements" / script, tmp_path / "venv"],
        env=os.environ | {name: str(path) for name, path in programs.items()},
        check=True,
        capture_output=True,
    )
    return notes.read_text().splitlines()


@pytest.mark.parametrize("script", ["set-up.sh", "set-up-checkov.sh"])
def test_an_environment_whose_making_was_stopped_before_pip_came_is_made_anew(
    script: str, tmp_path: Path
) -> None:
    program(tmp_path / "venv/bin/python", WITHOUT_PIP)
    (tmp_path / "venv/left").touch()
    notes = notes_of(script, tmp_path)
    made = notes.index(f"python -m venv --clear {tmp_path / 'venv'}")
    assert any("pip --disable-pip-version-check" in note and "install" in note for note in notes[made:])


@pytest.mark.parametrize("script", ["set-up.sh", "set-up-checkov.sh"])
def test_an_environment_that_is_whole_is_kept(script: str, tmp_path: Path) -> None:
    program(tmp_path / "venv/bin/python", WHOLE)
    assert not [note for note in notes_of(script, tmp_path) if "-m venv" in note]
