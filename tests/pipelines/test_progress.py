"""What is shown of kfp's log, and what is kept for a failure."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.progress import Progress, key_numbers

CYAN, GREEN, RED, PLAIN = "\x1b[96m", "\x1b[92m", "\x1b[91m", "\x1b[0m"


def begins(step: str) -> str:
    return f"17:01:02.345 - INFO - Executing task {CYAN}'{step}'{PLAIN}\n"


def ends(step: str) -> str:
    return f"17:01:09.345 - INFO - Task {CYAN}'{step}'{PLAIN} finished with status {GREEN}SUCCESS{PLAIN}\n"


def fails(step: str) -> str:
    return f"17:01:09.345 - ERROR - Task {CYAN}'{step}'{PLAIN} finished with status {RED}FAILURE{PLAIN}\n"


def clock(*times: float) -> Callable[[], float]:
    waiting = iter(times)
    return lambda: next(waiting)


def write_outputs(steps: Path, step: str, parameters: dict[str, object], metrics: dict[str, object]) -> None:
    folder = steps / "prottune-finetune-2026" / step
    folder.mkdir(parents=True)
    artifacts = {"metrics": {"artifacts": [{"name": "metrics", "metadata": metrics}]}}
    content = {"parameterValues": parameters, "artifacts": artifacts}
    (folder / "executor_output.json").write_text(json.dumps(content), encoding="utf-8")


def test_a_step_is_a_line_when_it_begins_and_a_line_with_seconds_and_figures_when_it_ends(
    tmp_path: Path,
) -> None:
    write_outputs(tmp_path, "train", {}, {"epochs_run": 8, "best_epoch": 6, "validation_accuracy": 0.9137})
    screen = io.StringIO()
    progress = Progress(tmp_path, screen, clock(10.0, 62.25))
    for line in (
        begins("train"),
        "    [KFP Executor 2026-11-22 17:01:03,000 INFO]: Got executor_input:\n",
        ends("train"),
    ):
        progress.line(line)
    assert screen.getvalue().splitlines() == [
        "train       begins",
        "train          52.2 s  epochs run 8, best epoch 6, validation accuracy 0.914",
    ]
    assert progress.seconds == {"train": 52.2}
    assert progress.failed == ""


def test_epochs_of_a_long_training_are_shown_as_they_come(tmp_path: Path) -> None:
    screen = io.StringIO()
    progress = Progress(tmp_path, screen, clock(0.0))
    progress.line(begins("train"))
    progress.line("    [KFP Executor 2026-11-22 17:01:03,000 INFO]: epoch 1 of 8, step 40: accuracy 0.4\n")
    progress.line("    [KFP Executor 2026-11-22 17:01:03,000 INFO]: something else\n")
    assert screen.getvalue().splitlines()[1:] == ["            epoch 1 of 8, step 40: accuracy 0.4"]


def test_what_a_failed_step_said_is_kept_without_kfps_own_lines(tmp_path: Path) -> None:
    progress = Progress(tmp_path, io.StringIO(), clock(0.0, 1.0, 1.0, 2.0))
    for line in (
        begins("ingest"),
        "17:01:02.346 - INFO - Streamed logs:\n",
        "    [KFP Executor 2026-11-22 17:01:03,000 INFO]: Looking for component `ingest`\n",
        '        "inputs": {\n',
        "    Traceback (most recent call last):\n",
        "    prottune.errors.DataError: x.fasta:3: bad\n",
        fails("ingest"),
        begins("finish"),
        "    closing words\n",
        ends("finish"),
        "RuntimeError: Pipeline finished with status FAILURE\n",
    ):
        progress.line(line)
    assert progress.failed == "ingest"
    assert progress.said == [
        "Traceback (most recent call last):",
        "prottune.errors.DataError: x.fasta:3: bad",
    ]


def test_a_step_cannot_pretend_to_be_kfp(tmp_path: Path) -> None:
    progress = Progress(tmp_path, io.StringIO(), clock(0.0))
    progress.line(begins("train"))
    progress.line("    " + fails("train"))
    assert progress.failed == ""


@pytest.mark.parametrize(
    ("step", "parameters", "metrics", "words"),
    [
        ("compare", {"Output": "same"}, {}, "same"),
        ("register", {"Output": "3"}, {"version": "3"}, "version 3"),
        (
            "ingest",
            {},
            {"num_proteins": 13704.0, "splits/test": 2773.0},
            "proteins 13,704, splits test 2,773",
        ),
        ("evaluate", {"Output": "hold"}, {"baseline/accuracy": 0.578}, "hold, baseline accuracy 0.578"),
        ("deploy", {"Output": "url"}, {"largest_difference": 0.00123}, "url, largest difference 0.00123"),
        ("hold", {}, {}, ""),
    ],
)
def test_key_numbers_of_a_step_are_what_it_answered_and_its_main_figures(
    step: str, parameters: dict[str, object], metrics: dict[str, object], words: str, tmp_path: Path
) -> None:
    write_outputs(tmp_path, step, parameters, metrics)
    assert key_numbers(tmp_path, step) == words


def test_steps_of_a_loop_run_at_once_and_their_seconds_are_added(tmp_path: Path) -> None:
    screen = io.StringIO()
    progress = Progress(tmp_path, screen, clock(0.0, 1.0, 5.0, 9.0, 10.0, 12.0))
    loop = (begins("predict"), begins("predict"), ends("predict"), ends("predict"))
    for line in (*loop, begins("merge"), ends("merge")):
        progress.line(line)
    assert progress.seconds == {"predict": 5.0 + 8.0, "merge": 2.0}


class Terminal(io.StringIO):
    """A screen on which a line can be written anew."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_running_step_shows_its_seconds_and_its_last_words(tmp_path: Path) -> None:
    screen = Terminal()
    progress = Progress(tmp_path, screen, clock(0.0, 0.0, 5.2, 9.0))
    progress.line(begins("ingest"))
    progress.line("    [KFP Executor 2026-11-22 17:01:03,000 INFO]: clustering 300 sequences\n")
    progress.tick()
    progress.line(ends("ingest"))
    rewritten = screen.getvalue().split("\r\x1b[K")[1:]
    assert rewritten == [
        "ingest            0 s  ",
        "ingest            5 s  clustering 300 sequences",
        "ingest          9.0 s\n",
    ]
