"""Points on their way to MLflow: none lost, none twice, and nobody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient
from mlflow_template import new_store

from prottune.tracking import delivery
from prottune.tracking.delivery import Delivery, Parcel, RunWriter, parcels_of_numbers
from prottune.tracking.mlflow_store import EXPERIMENT, STEP_TAG, RunAddress, mlflow_client


class Line:
    """A real MLflow client at the end of a line that fails when told to: before the call, or after it."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self.is_cut = False
        self.lost_answers: list[str] = []
        """Names of calls that go through, but whose next answer is lost."""
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.is_cut:
                raise ConnectionError("the line is cut")
            answer = getattr(self._client, name)(*args, **kwargs)
            if name in self.lost_answers:
                self.lost_answers.remove(name)
                raise ConnectionError("the answer is lost")
            return answer

        return call


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def client(tmp_path: Path) -> MlflowClient:
    return mlflow_client(new_store(tmp_path))


@pytest.fixture
def line(client: MlflowClient) -> Line:
    return Line(client)


@pytest.fixture
def address(client: MlflowClient) -> RunAddress:
    return RunAddress(client.tracking_uri, tag=(STEP_TAG, "word"))


@pytest.fixture
def deliver(line: Line, address: RunAddress) -> Callable[[], Delivery]:
    """A function that starts a delivery over the line."""
    return lambda: Delivery(address, connect=lambda _: line)  # type: ignore[arg-type, return-value]


def losses(first: int, last: int, now: int = 1_700_000_000_000) -> list[Parcel]:
    return list(
        parcels_of_numbers(
            [("train/loss", number / 7, now + number, number) for number in range(first, last)]
        )
    )


def kept(client: MlflowClient, run_id: str, key: str = "train/loss") -> list[tuple[int, float]]:
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(run_id, key))


def all_of(last: int) -> list[tuple[int, float]]:
    return [(number, number / 7) for number in range(last)]


def test_numbers_travel_together_and_arrive_in_order(
    deliver: Callable[[], Delivery], line: Line, client: MlflowClient
) -> None:
    delivery_ = deliver()
    for number in range(1200):
        delivery_.put(losses(number, number + 1))
    assert delivery_.close(20) == []
    assert kept(client, delivery_.run_id) == all_of(1200)
    assert line.calls.count("log_batch") <= 5


def test_what_is_handed_over_while_the_line_is_cut_arrives_once_it_is_mended(
    deliver: Callable[[], Delivery], line: Line, client: MlflowClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "prottune")
    line.is_cut = True
    delivery_ = deliver()
    delivery_.put([Parcel(params=[("epochs", "3")])])
    delivery_.put(losses(0, 700))
    delivery_.flush(0.2)
    assert line.calls
    line.is_cut = False
    assert delivery_.close(20) == []
    assert kept(client, delivery_.run_id) == all_of(700)
    assert client.get_run(delivery_.run_id).data.params == {"epochs": "3"}
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_line_that_stays_cut_gives_everything_back_in_time(
    deliver: Callable[[], Delivery], line: Line
) -> None:
    line.is_cut = True
    delivery_ = deliver()
    parcels = [Parcel(params=[("epochs", "3")]), *losses(0, 700)]
    delivery_.put(parcels)
    begun = time.monotonic()
    assert delivery_.close(0.3) == parcels
    assert 0.2 < time.monotonic() - begun < 2
    assert delivery_.run_id == ""


def test_pauses_between_tries_grow(
    deliver: Callable[[], Delivery], line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_LONGEST_PAUSE_SECONDS", 0.5)
    line.is_cut = True
    delivery_ = deliver()
    time.sleep(1.6)  # tries after 0.01, 0.03, 0.07, 0.15, 0.31, 0.63, 1.13 seconds
    assert 4 <= len(line.calls) <= 9
    delivery_.close(0)


@pytest.mark.parametrize("lost", ["log_batch", "create_run", "create_experiment", "set_terminated"])
def test_a_call_whose_answer_was_lost_is_not_repeated_twice(
    lost: str, deliver: Callable[[], Delivery], line: Line, client: MlflowClient
) -> None:
    line.lost_answers = [lost]
    delivery_ = deliver()
    delivery_.put([*losses(0, 700), Parcel(ended=("FINISHED", 1_800_000_000_000))])
    assert delivery_.close(20) == []
    assert line.lost_answers == []
    experiment = client.get_experiment_by_name(EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert kept(client, run.info.run_id) == all_of(700)
    assert (run.info.status, run.info.end_time) == ("FINISHED", 1_800_000_000_000)


def test_a_training_that_resumes_hands_its_whole_history_over_again_and_nothing_is_doubled(
    deliver: Callable[[], Delivery], client: MlflowClient
) -> None:
    killed = deliver()
    killed.put(losses(0, 600))
    killed.close(20)
    resumed = deliver()
    resumed.put(losses(0, 900, now=1_700_000_009_000))
    assert resumed.close(20) == []
    assert resumed.run_id == killed.run_id
    assert kept(client, resumed.run_id) == all_of(900)


def test_another_value_of_the_same_step_is_kept_beside_the_first(
    client: MlflowClient, address: RunAddress
) -> None:
    run_id = client.create_run("0").info.run_id
    for value in (1.0, 2.0, 2.0):
        RunWriter(client, run_id).write(Parcel(numbers=[("seconds", value, 1_700_000_000_000, 0)]))
    assert kept(client, run_id, "seconds") == [(0, 1.0), (0, 2.0)]


def test_a_lost_call_that_is_written_after_the_run_was_asked_doubles_nothing(client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    late: list[Metric] = []

    class Late(Line):
        def log_batch(self, run_id: str, metrics: list[Metric], *words: Any) -> None:
            if not late:  # on its way, and slow: it arrives just before its own repetition
                late.extend(metrics)
                raise TimeoutError("no answer")
            client.log_batch(run_id, late)
            client.log_batch(run_id, metrics, *words)

    writer = RunWriter(Late(client), run_id)  # type: ignore[arg-type]
    (parcel,) = losses(0, 300)
    with pytest.raises(TimeoutError):
        writer.write(parcel)
    writer.write(parcel)
    assert kept(client, run_id) == all_of(300)


def test_handing_over_takes_no_time_while_a_call_hangs(line: Line, address: RunAddress) -> None:
    hangs = threading.Event()

    def connect(_: str) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise ConnectionError("not here")
        hangs.wait(30)
        raise ConnectionError("the line is dead")

    delivery_ = Delivery(address, connect=connect)
    longest = 0.0
    for number in range(2000):
        begun = time.perf_counter()
        delivery_.put(losses(number, number + 1))
        longest = max(longest, time.perf_counter() - begun)
    assert longest < 1.0, (
        "seconds, of 30 that the call hangs; a busy machine may stop this thread for a while"
    )
    begun = time.monotonic()
    assert sum(len(parcel.numbers) for parcel in delivery_.close(0.3)) == 2000
    assert time.monotonic() - begun < 2
    hangs.set()


def test_a_refusal_does_not_hold_up_what_comes_after_it(
    deliver: Callable[[], Delivery], client: MlflowClient
) -> None:
    delivery_ = deliver()
    delivery_.put([Parcel(params=[("epochs", "3")]), Parcel(params=[("epochs", "4")])])
    delivery_.put([Parcel(file=("/nowhere/report.html", "")), *losses(0, 3)])
    assert delivery_.close(20) == []
    assert delivery_.num_refused == 2
    assert kept(client, delivery_.run_id) == all_of(3)


def test_an_address_that_no_mlflow_knows_is_told_once_and_given_up(caplog: pytest.LogCaptureFixture) -> None:
    delivery_ = Delivery(RunAddress("gopher://nowhere", tag=(STEP_TAG, "word")))
    delivery_.put(losses(0, 3))
    assert delivery_.close(20) == []
    told = [record.levelname for record in caplog.records if "gopher" in record.getMessage()]
    assert told == ["WARNING"]
