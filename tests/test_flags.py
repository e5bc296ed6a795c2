"""Every way in which a command line can be wrong ends in one line that says which flag and what to do."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from prottune.errors import ConfigError
from prottune.flags import parse_flags
from prottune.training.settings import TrainConfig

GOOD = ["--tokens", "t", "--model", "m"]


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Flags with settings inside."""

    tokens: Path
    """Folder to read."""
    model: Path
    """Folder to make."""
    settings: TrainConfig


def parse(words: list[str]) -> Flags:
    return parse_flags(Flags, words, "prottune train", "Train a model.")


def test_flags_are_made_from_fields_and_settings_have_no_prefix() -> None:
    flags = parse([*GOOD, "--epochs", "3", "--learning-rate", "0.5", "--head", "cls"])
    assert (flags.tokens, flags.model) == (Path("t"), Path("m"))
    assert flags.settings == TrainConfig(epochs=3, learning_rate=0.5, head="cls")


def test_a_setting_that_is_not_given_has_the_default_beside_its_field() -> None:
    assert parse(GOOD).settings == TrainConfig()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--tokens", "t"], "missing --model; `prottune train --help` lists all"),
        ([], "missing --tokens, --model; `prottune train --help` lists all"),
        (
            ["--token", "t", "--model", "m"],
            "unknown flag --token (did you mean --tokens?); `prottune train --help` lists all",
        ),
        (
            [*GOOD, "--epoch", "3"],
            "unknown flag --epoch (did you mean --epochs?); `prottune train --help` lists all",
        ),
        (
            [*GOOD, "--max_grad_nrm=1"],
            "unknown flag --max_grad_nrm=1 (did you mean --max-grad-norm?)"
            "; `prottune train --help` lists all",
        ),
        ([*GOOD, "--zzz", "1"], "unknown flag --zzz; `prottune train --help` lists all"),
        ([*GOOD, "extra"], "unexpected word 'extra'; `prottune train --help` lists all"),
        ([*GOOD, "--epochs"], "--epochs needs a value; `prottune train --help` lists all"),
        ([*GOOD, "--epochs", "many"], "--epochs: got 'many', expected a whole number"),
        ([*GOOD, "--learning-rate", "fast"], "--learning-rate: got 'fast', expected a number"),
        ([*GOOD, "--epochs", "0"], "epochs=0: expected at least 1"),
        ([*GOOD, "--head", "none"], "head='none': expected one of cls, mean, attention"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_refused_in_one_line(words: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(words)
    assert str(refused.value) == line


def test_help_shows_the_string_under_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "--tokens PATH Folder to read. (required)" in shown
    assert "Decides weights, order and dropout. (default: 43)" in shown
