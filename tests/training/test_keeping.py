"""When a checkpoint is kept; what becomes of a write that fails and of a request to end."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from prottune.artifacts import read_manifest
from prottune.errors import StorageError
from prottune.training.checkpoints import Checkpoints
from prottune.training.keeping import CheckpointKeeper
from prottune.training.settings import TrainConfig
from prottune.training.snapshots import Outcome, Pace, Place, Snapshot
from prottune.training.stopping import GRACE_SECONDS, Stop, Stopped

CONFIG = TrainConfig(base_model="tiny", checkpoint_every=3)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    (tmp_path / "scratch").mkdir()
    return Checkpoints(str(tmp_path / "kept"), CONFIG, {"tokens": "t"}, str(tmp_path / "scratch"))


@pytest.fixture
def stop(checkpoints: Checkpoints) -> Stop:
    return Stop(Path(checkpoints.scratch))


@pytest.fixture
def keeper(checkpoints: Checkpoints, stop: Stop) -> CheckpointKeeper:
    return CheckpointKeeper(checkpoints, stop, world_size=2)


def at(place: Place) -> Callable[[], Snapshot]:
    """A moment whose one weight is its step."""
    weights = {"weight": torch.tensor([float(place.step)])}
    return lambda: Snapshot(replace(place), Outcome(), Pace(), weights, {}, b"")


def pass_borders(keeper: CheckpointKeeper, steps: range) -> None:
    for step in steps:
        place = Place(step=step, position=step)
        keeper.at_border(place, at(place))
        keeper.wait()


def kept(checkpoints: Checkpoints) -> dict[int, float]:
    """Step -> the weight that was kept, of all whole checkpoints."""
    found = {}
    for folder in Path(checkpoints.place).glob("step-????????"):
        manifest = read_manifest(folder, "checkpoint")
        found[manifest.facts["step"]] = float(Snapshot.read(folder, leads=True).model["weight"])
    return found


def test_every_third_step_is_kept_and_the_last_two_stay(
    keeper: CheckpointKeeper, checkpoints: Checkpoints
) -> None:
    pass_borders(keeper, range(11))
    assert kept(checkpoints) == {6: 6.0, 9: 9.0}
    folder, _ = checkpoints.newest()
    assert folder is not None
    facts = read_manifest(folder).facts
    assert (facts["processes"], facts["torch"]) == (2, torch.__version__)


def test_after_a_resume_steps_are_counted_from_the_checkpoint(
    keeper: CheckpointKeeper, checkpoints: Checkpoints
) -> None:
    keeper.resumed("step-00000004", Place(step=4, position=4))
    pass_borders(keeper, range(4, 11))
    assert kept(checkpoints) == {7: 7.0, 10: 10.0}


@contextmanager
def held(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Writes wait until the event is set."""
    go_on, write = threading.Event(), Snapshot.write

    def wait_and_write(snapshot: Snapshot, folder: Path) -> None:
        assert go_on.wait(20)
        write(snapshot, folder)

    monkeypatch.setattr(Snapshot, "write", wait_and_write)
    try:
        yield go_on
    finally:
        go_on.set()


def test_training_goes_on_while_one_is_written_and_a_due_one_waits_for_the_next_border(
    keeper: CheckpointKeeper, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(checkpoints, monkeypatch) as go_on:
        for step in range(8):
            place = Place(step=step, position=step)
            keeper.at_border(place, at(place))
        assert kept(checkpoints) == {}
        go_on.set()
    keeper.wait()
    assert kept(checkpoints) == {3: 3.0}
    pass_borders(keeper, range(8, 9))
    assert kept(checkpoints) == {3: 3.0, 8: 8.0}


def test_the_last_moment_is_kept_once(keeper: CheckpointKeeper, checkpoints: Checkpoints) -> None:
    pass_borders(keeper, range(6))
    end = Place(step=5, epoch=2, ended=True)
    keeper.at_end(end, at(end))
    keeper.at_end(end, at(end))
    assert sorted(path.name for path in Path(checkpoints.place).iterdir()) == [
        "step-00000003",
        "step-00000005",
    ]


def test_a_request_to_end_keeps_this_very_step_and_ends(
    keeper: CheckpointKeeper, checkpoints: Checkpoints, stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(checkpoints, monkeypatch) as go_on:
        for step in range(5):
            place = Place(step=step, position=step)
            keeper.at_border(place, at(place))
        threading.Timer(0.2, go_on.set).start()
        stop.ask_and_wait(lambda: True)  # nobody listens: returns at once
        place = Place(step=5, position=5)
        with pytest.raises(Stopped, match="stopped after step 5, which is kept"):
            keeper.at_border(place, at(place))
    assert kept(checkpoints) == {3: 3.0, 5: 5.0}


def test_a_request_before_the_first_step_keeps_nothing(
    keeper: CheckpointKeeper, checkpoints: Checkpoints, stop: Stop
) -> None:
    stop.ask_and_wait(lambda: True)
    with pytest.raises(Stopped):
        keeper.at_border(Place(), at(Place()))
    assert checkpoints.newest() == (None, checkpoints)


def test_a_write_that_fails_ends_the_run_with_the_place_the_reason_and_what_is_whole(
    keeper: CheckpointKeeper, checkpoints: Checkpoints
) -> None:
    pass_borders(keeper, range(4))
    place = Path(checkpoints.place)
    (place / "step-00000006.partial").write_bytes(b"in the way")  # a file where a folder must be made
    with pytest.raises(StorageError) as refused:
        pass_borders(keeper, range(4, 12))
    assert str(refused.value).startswith(f"{place}: the checkpoint of step 6 could not be written (")
    assert str(refused.value).endswith(
        "the newest whole one is step-00000003: see to the place and start again"
    )
    assert kept(checkpoints) == {3: 3.0}


def test_a_place_that_lets_nobody_look_around_keeps_what_is_written(
    keeper: CheckpointKeeper,
    checkpoints: Checkpoints,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_: Checkpoints) -> None:
        raise StorageError("s3://bucket/kept: not allowed to list")

    monkeypatch.setattr(Checkpoints, "prune", refuse)
    pass_borders(keeper, range(4))
    keeper.wait()
    assert kept(checkpoints) == {3: 3.0}
    words = f"{checkpoints.place}: older checkpoints stay there (s3://bucket/kept: not allowed to list)"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [words]


def test_a_block_that_fails_still_finishes_what_is_being_written(
    keeper: CheckpointKeeper, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with keeper.finishing(), held(checkpoints, monkeypatch):
            place = Place(step=3, position=3)
            keeper.at_border(place, at(place))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert kept(checkpoints) == {3: 3.0}


def test_whoever_asks_waits_while_somebody_listens(stop: Stop) -> None:
    heard = threading.Event()

    def listen() -> None:
        with stop.listening():
            heard.set()
            while not stop.asked():
                threading.Event().wait(0.01)

    listener = threading.Thread(target=listen)
    listener.start()
    assert heard.wait(5)
    stop.ask_and_wait(lambda: True)
    listener.join(5)
    assert not listener.is_alive()


def test_nobody_waits_for_a_listener_that_died_or_for_longer_than_the_grace(
    stop: Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic()
    with stop.listening():
        stop.ask_and_wait(lambda: False)
        monkeypatch.setattr("prottune.training.stopping.GRACE_SECONDS", 0.1)
        stop.ask_and_wait(lambda: True)
    assert time.monotonic() - begun < GRACE_SECONDS / 2
