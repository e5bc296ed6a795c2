"""Killed, interrupted or out of disk: the same command again makes the same table."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import counting_letters
import pytest
from counting_letters import Answer, LettersPredictor

from prottune.errors import ArtifactError, ConfigError, DataError, StorageError
from prottune.prediction.keeping import KeptWindows, kept_windows
from prottune.prediction.settings import PredictConfig
from prottune.prediction.stage import PredictReport, predict_with

WINDOW = 3
NUM_WINDOWS = 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    draws = random.Random(43)
    path = tmp_path / "many.fasta"
    proteins = (
        f">P{n % 50}\n{''.join(draws.choices('KLSW', k=n % 9 + 1))}\n" for n in range(NUM_WINDOWS * WINDOW)
    )
    path.write_text("".join(proteins))
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "table.csv"


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return tmp_path / "table.csv.partial"


def answer(source: Path, output: Path, predictor: Any = None, **changed: Any) -> PredictReport:
    settings = {"digest": "letters", "restart": False, "window": WINDOW} | changed
    digest, restart = settings.pop("digest"), settings.pop("restart")
    config = PredictConfig(**settings)
    used = predictor or LettersPredictor()
    return predict_with(used, str(source), output, config, digest=digest, restart=restart)


class Stopping(LettersPredictor):
    """Stops like a program that is interrupted, behind a number of windows."""

    def __init__(self, num_windows: int, reason: BaseException) -> None:
        super().__init__()
        self.num_windows, self.reason = num_windows, reason

    def predict(self, sequences: Sequence[str]) -> list[Answer]:
        if len(self.windows) == self.num_windows:
            raise self.reason
        return super().predict(sequences)


def stopped(source: Path, output: Path, num_windows: int = 5) -> None:
    with pytest.raises(KeyboardInterrupt):
        answer(source, output, Stopping(num_windows, KeyboardInterrupt()))


def killed_after(num_windows: int, delay_seconds: float, source: Path, output: Path) -> bool:
    """Start a program that labels the file and kill it; True if it was done before."""
    program = [sys.executable, counting_letters.__file__, str(source), str(output), str(WINDOW)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        for _ in range(num_windows):
            child.stdout.readline()
        until = perf_counter() + delay_seconds
        while perf_counter() < until:
            pass
        child.kill()
        said = child.stderr.read()
    assert child.returncode in (0, -9), said
    return child.returncode == 0


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_made_through_kills_is_byte_for_byte_the_one_made_at_once(
    source: Path, tmp_path: Path, suffix: str
) -> None:
    answer(source, tmp_path / f"whole{suffix}")
    draws = random.Random(suffix)
    output = tmp_path / f"table{suffix}"
    for _ in range(3):
        if killed_after(draws.randrange(1, 12), draws.random() * 4e-3, source, output):
            break
    report = answer(source, output) if not output.exists() else None
    assert output.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert report is None or report.num_resumed >= WINDOW


def test_windows_that_are_answered_are_not_asked_again_and_all_are_counted(
    source: Path, output: Path, parts: Path
) -> None:
    stopped(source, output, num_windows=7)
    assert len(list(parts.glob("*.parquet"))) == 7
    predictor = LettersPredictor()
    report = answer(source, output, predictor)
    assert len(predictor.windows) == NUM_WINDOWS - 7
    assert (report.num_proteins, report.num_resumed) == (NUM_WINDOWS * WINDOW, 7 * WINDOW)
    assert sum(report.locations.values()) == report.num_proteins
    assert not parts.exists()


def test_who_interrupts_is_told_how_to_go_on(source: Path, output: Path, parts: Path) -> None:
    with pytest.raises(
        KeyboardInterrupt, match=rf"^interrupted; the same command .* 15 proteins in {parts}$"
    ):
        answer(source, output, Stopping(5, KeyboardInterrupt()))


def test_before_the_first_whole_window_nothing_is_kept_and_nothing_promised(
    source: Path, output: Path, parts: Path
) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        answer(source, output, Stopping(0, KeyboardInterrupt()))
    assert not parts.exists()


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"digest": "other"}, "with another model; repeat that command, .* --restart"),
        ({"window": 4}, "with another window;"),
        ({"on_bad": "skip"}, "with another on_bad;"),
    ],
    ids=["model", "window", "settings"],
)
def test_answers_to_something_else_are_never_mixed_in(
    source: Path, output: Path, parts: Path, changed: dict[str, Any], line: str
) -> None:
    stopped(source, output)
    before = {path.name: path.read_bytes() for path in parts.iterdir()}
    with pytest.raises(ConfigError, match=line):
        answer(source, output, **changed)
    assert {path.name: path.read_bytes() for path in parts.iterdir()} == before
    predictor = LettersPredictor()
    answer(source, output, predictor, restart=True, **changed)
    assert sum(predictor.windows) == NUM_WINDOWS * WINDOW


def test_what_auto_meant_on_one_machine_is_not_mixed_with_what_it_means_on_another(
    source: Path, output: Path
) -> None:
    class OfAnotherMachine(LettersPredictor):
        is_fp32 = False

    stopped(source, output)
    with pytest.raises(ConfigError, match="with another precision; repeat that command"):
        answer(source, output, OfAnotherMachine())
    assert answer(source, output, precision="fp32").num_resumed == 5 * WINDOW  # which auto meant


def test_a_source_that_was_changed_is_another_source(source: Path, output: Path) -> None:
    stopped(source, output)
    source.write_text(source.read_text() + ">last\nK\n")
    with pytest.raises(ConfigError, match="with another source;"):
        answer(source, output)


def test_a_source_that_changes_while_it_is_read_is_refused(source: Path, output: Path) -> None:
    class Changing(LettersPredictor):
        def predict(self, sequences: Sequence[str]) -> list[Answer]:
            if not self.windows:
                source.write_text(source.read_text() + ">last\nK\n")
            return super().predict(sequences)

    with pytest.raises(DataError, match=r"many\.fasta: changed while it was read"):
        answer(source, output, Changing())
    assert not output.exists()


def test_answers_to_a_source_that_changed_and_was_put_back_are_not_taken_for_its_own(
    source: Path, output: Path
) -> None:
    before = source.read_text()
    assert before.count("K") > 100

    class Changing(Stopping):
        def predict(self, sequences: Sequence[str]) -> list[Answer]:
            if not self.windows:
                source.write_text(before.replace("K", "L"))  # as long as it was, under the same names
            return super().predict(sequences)

    before = "".join(f">W{n}\n{'W' * 50_000}\n" for n in range(20)) + before  # longer than what is read ahead
    source.write_text(before)
    with pytest.raises(KeyboardInterrupt):
        answer(source, output, Changing(20, KeyboardInterrupt()))
    source.write_text(before)
    with pytest.raises(ArtifactError, match="holds other proteins than the source; begin anew"):
        answer(source, output)
    answer(source, output, restart=True)
    answer(source, output.with_name("whole.csv"))
    assert output.read_bytes() == output.with_name("whole.csv").read_bytes()


def test_a_mistake_at_the_end_of_the_file_is_found_before_the_model_is_asked(
    source: Path, output: Path, parts: Path
) -> None:
    source.write_text(source.read_text() + ">last\nK1\n")
    predictor = LettersPredictor()
    with pytest.raises(DataError, match=r"many\.fasta:241: last: '1' at residue 2"):
        answer(source, output, predictor)
    assert predictor.windows == []
    assert not parts.exists()


class Late(Stopping):
    """Finds, after some windows, that somebody else made the table."""

    def __init__(self, output: Path, num_windows: int, reason: BaseException | None = None) -> None:
        super().__init__(num_windows, reason or KeyboardInterrupt())
        self.output, self.is_stopped = output, reason is not None

    def predict(self, sequences: Sequence[str]) -> list[Answer]:
        if len(self.windows) == self.num_windows:
            self.output.write_text("precious\n")
            if not self.is_stopped:
                self.num_windows = -1
        return super().predict(sequences)


def test_an_output_that_appears_meanwhile_is_neither_replaced_nor_costs_what_is_answered(
    source: Path, output: Path, parts: Path
) -> None:
    line = rf"table\.csv exists already; .*; the same command goes on from the 120 proteins in {parts}"
    with pytest.raises(ConfigError, match=line):
        answer(source, output, Late(output, 7))
    assert output.read_text() == "precious\n"
    assert len(list(parts.glob("*.parquet"))) == NUM_WINDOWS
    output.unlink()
    assert answer(source, output).num_resumed == NUM_WINDOWS * WINDOW
    assert not parts.exists()


def test_who_is_interrupted_while_an_output_appears_goes_on_all_the_same(
    source: Path, output: Path, parts: Path
) -> None:
    with pytest.raises(KeyboardInterrupt, match="goes on from the 21 proteins"):
        answer(source, output, Late(output, 7, KeyboardInterrupt()))
    output.unlink()
    assert answer(source, output).num_resumed == 7 * WINDOW


def test_an_output_that_appears_while_the_windows_are_joined_is_not_replaced(
    source: Path, output: Path, parts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = KeptWindows.read

    def read_late(kept: KeptWindows, number: int) -> Any:
        if number == NUM_WINDOWS - 1:
            output.write_text("precious\n")
        return read(kept, number)

    monkeypatch.setattr(KeptWindows, "read", read_late)
    with pytest.raises(ConfigError, match=r"table\.csv exists already"):
        answer(source, output)
    assert output.read_text() == "precious\n"
    assert len(list(parts.glob("*.parquet"))) == NUM_WINDOWS


def test_a_damaged_window_is_refused(source: Path, output: Path, parts: Path) -> None:
    stopped(source, output)
    (path,) = parts.glob("000002-*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"000002-\w+\.parquet: damaged.*--restart"):
        answer(source, output)


def test_windows_that_took_each_others_names_are_refused(source: Path, output: Path, parts: Path) -> None:
    stopped(source, output)
    (one,), (other,) = parts.glob("000001-*"), parts.glob("000002-*")
    one.unlink()
    other.rename(parts / other.name.replace("000002", "000001"))
    with pytest.raises(ArtifactError, match="holds other proteins than the source"):
        answer(source, output)


def test_two_programs_do_not_write_one_table(source: Path, output: Path) -> None:
    with (
        kept_windows(output, {}, restart=False),
        pytest.raises(ConfigError, match="another prottune predict is writing this table"),
    ):
        answer(source, output)


def test_a_folder_of_somebody_elses_is_left_alone(source: Path, output: Path, parts: Path) -> None:
    parts.mkdir()
    (parts / "thesis.txt").write_text("mine")
    for restart in (False, True):
        with pytest.raises(ConfigError, match="in the way, and not made by prottune predict"):
            answer(source, output, restart=restart)
    assert (parts / "thesis.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused_in_one_line(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"table\.csv\.partial: cannot be made \(Not a directory\)"):
        answer(source, tmp_path / "file" / "table.csv")


@pytest.fixture
def full_disk() -> Iterator[None]:
    """A limit on the size of files, which the system enforces as it does the end of a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (7_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_one_line_and_what_is_answered_stays(source: Path, output: Path, parts: Path) -> None:
    line = rf"table\.csv: cannot be written \(.*\); the same command goes on from the 120 proteins in {parts}"
    with pytest.raises(StorageError, match=line):
        answer(source, output)
    assert len(list(parts.glob("*.parquet"))) == NUM_WINDOWS
    assert not output.exists()
