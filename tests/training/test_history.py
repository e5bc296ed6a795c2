import json
import logging
from pathlib import Path

import pytest

from prottune.training.history import HistoryFollower, HistoryWriter, Progress, following

POINTS = [
    {"step": 1, "train/loss": 2.0, "train/tokens_per_second": 10.0},
    {"step": 2, "train/loss": 1.0, "train/tokens_per_second": 20.0},
    {"step": 2, "epoch": 1, "validation/loss": 1.25, "validation/accuracy": 0.5},
]


def test_a_follower_sees_each_point_once_while_the_file_grows(tmp_path: Path) -> None:
    seen: list[dict[str, float | int]] = []
    follower = HistoryFollower(tmp_path / "history.jsonl", seen.append)
    follower.catch_up()
    assert seen == []
    with HistoryWriter(tmp_path / "history.jsonl") as history:
        history.point(POINTS[0])
        follower.catch_up()
        assert seen == POINTS[:1]
        history.point(POINTS[1])
        history.point(POINTS[2])
    follower.catch_up()
    follower.catch_up()
    assert seen == POINTS


def test_a_half_written_line_is_left_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    seen: list[dict[str, float | int]] = []
    follower = HistoryFollower(path, seen.append)
    line = json.dumps(POINTS[0]) + "\n"
    path.write_text(line + line[:9])
    follower.catch_up()
    assert seen == POINTS[:1]
    path.write_text(line + line)
    follower.catch_up()
    assert seen == [POINTS[0], POINTS[0]]


def test_following_hands_on_what_is_left_when_the_block_ends(tmp_path: Path) -> None:
    seen: list[dict[str, float | int]] = []
    with following(HistoryFollower(tmp_path / "h", seen.append), every_seconds=60):
        with HistoryWriter(tmp_path / "h") as history:
            history.point(POINTS[0])
        assert seen == []
    assert seen == POINTS[:1]


def test_a_number_that_json_cannot_spell_is_never_written(tmp_path: Path) -> None:
    with HistoryWriter(tmp_path / "h") as history, pytest.raises(ValueError, match="JSON compliant"):
        history.point({"step": 1, "train/loss": float("nan")})
    assert (tmp_path / "h").read_text() == ""


def test_without_a_terminal_progress_is_one_line_an_epoch(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Progress(2, 3) as progress:
        for point in POINTS:
            progress(point)
    assert caplog.messages == ["epoch 1 of 3, step 2: validation loss 1.2500, accuracy 0.5000"]
