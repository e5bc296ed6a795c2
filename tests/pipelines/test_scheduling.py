"""Schedules in files, applied to a small Kubeflow Pipelines server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import small_kfp
import yaml

from pipelines.__main__ import main
from pipelines.scheduling import FOLDER, next_times, read_schedule
from prottune.errors import ConfigError, ServiceError

DAILY = {
    "name": "daily",
    "cron": "0 30 2 * * *",
    "parameters": {"source": "s3://bucket/deeploc.fasta", "epochs": 3},
}


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[small_kfp.Backend]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    with small_kfp.running(small_kfp.Backend()) as running:
        yield running


def written(folder: Path, **changes: object) -> Path:
    path = folder / "schedule.yaml"
    path.write_text(yaml.safe_dump(DAILY | changes))
    return path


def schedule(backend: small_kfp.Backend, *words: str) -> int:
    return main(["schedule", *words, "--host", backend.url])


def test_a_schedule_is_made_with_one_run_at_a_time_and_without_catching_up(
    backend: small_kfp.Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert schedule(backend, "apply", str(written(tmp_path))) == 0
    (made,) = backend.recurringRuns
    assert made["trigger"]["cron_schedule"]["cron"] == "0 30 2 * * *"
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == (1, True, "ENABLE")
    assert made["runtime_config"]["parameters"] == DAILY["parameters"]
    assert made["service_account"] == "prottune-run"
    assert capsys.readouterr().out.startswith("daily: made; next run ")


def test_applying_twice_changes_nothing(
    backend: small_kfp.Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(written(tmp_path))
    schedule(backend, "apply", file)
    before = list(backend.writes)
    schedule(backend, "apply", file)
    assert backend.writes == before
    assert capsys.readouterr().out.endswith("daily: unchanged\n")


def test_applying_twice_changes_nothing_in_a_profile_either(
    backend: small_kfp.Backend, tmp_path: Path
) -> None:
    backend.multi_user = True
    file = str(written(tmp_path))
    schedule(backend, "apply", file, "--namespace", "ann")
    before = list(backend.writes)
    schedule(backend, "apply", file, "--namespace", "ann")
    assert backend.writes == before
    schedule(backend, "apply", file, "--namespace", "bob")
    assert len(backend.recurringRuns) == len(backend.pipelines) == 2


def test_a_changed_schedule_is_made_anew_and_a_paused_one_stays_paused(
    backend: small_kfp.Backend, tmp_path: Path
) -> None:
    schedule(backend, "apply", str(written(tmp_path)))
    schedule(backend, "pause", "daily")
    schedule(backend, "apply", str(written(tmp_path, cron="0 0 3 * * *")))
    (made,) = backend.recurringRuns
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert made["mode"] == "DISABLE"


def test_a_schedule_takes_the_images_of_the_registry_unless_its_file_names_them(
    backend: small_kfp.Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROTTUNE_REGISTRY", "registry.example/lab")
    named = {"source": "s3://b/k", "torch_image": "mine@sha256:1"}
    assert schedule(backend, "apply", str(written(tmp_path, parameters=named))) == 0
    values = backend.recurringRuns[0]["runtime_config"]["parameters"]
    assert values["light_image"].startswith("registry.example/lab/prottune-light:")
    assert values["torch_image"] == "mine@sha256:1"


def test_two_of_one_name_become_one(backend: small_kfp.Backend, tmp_path: Path) -> None:
    file = str(written(tmp_path))
    schedule(backend, "apply", file)
    backend.recurringRuns.append(backend.recurringRuns[0] | {"recurring_run_id": "77"})
    schedule(backend, "apply", file)
    assert len(backend.recurringRuns) == 1


def test_a_failure_half_way_is_mended_by_the_next_apply(backend: small_kfp.Backend, tmp_path: Path) -> None:
    schedule(backend, "apply", str(written(tmp_path)))
    changed = str(written(tmp_path, cron="0 0 3 * * *"))
    backend.refuse = {"DELETE": 500}
    with pytest.raises(ServiceError):
        schedule(backend, "apply", changed)
    assert len(backend.recurringRuns) == 2
    backend.refuse = {}
    schedule(backend, "apply", changed)
    assert [each["trigger"]["cron_schedule"]["cron"] for each in backend.recurringRuns] == ["0 0 3 * * *"]


def test_others_schedules_are_left_alone(backend: small_kfp.Backend, tmp_path: Path) -> None:
    backend.recurringRuns.append({"recurring_run_id": "9", "display_name": "theirs", "mode": "ENABLE"})
    schedule(backend, "apply", str(written(tmp_path)))
    assert [each["display_name"] for each in backend.recurringRuns] == ["theirs", "daily"]


def test_a_schedule_that_somebody_else_made_by_hand_is_never_replaced(
    backend: small_kfp.Backend, tmp_path: Path
) -> None:
    theirs = {"recurring_run_id": "9", "display_name": "daily", "mode": "ENABLE", "description": "by Ann"}
    backend.recurringRuns.append(dict(theirs))
    with pytest.raises(ConfigError, match=r"somebody else's schedule is called daily.*: rename yours"):
        schedule(backend, "apply", str(written(tmp_path)))
    assert backend.recurringRuns == [theirs]
    assert backend.writes == []


def test_a_schedule_whose_file_is_gone_goes_on_and_is_named(
    backend: small_kfp.Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule(backend, "apply", str(written(tmp_path, name="weekly")))
    backend.recurringRuns.append({"recurring_run_id": "9", "display_name": "theirs", "mode": "ENABLE"})
    capsys.readouterr()
    schedule(backend, "apply", str(written(tmp_path)))
    line = "weekly: in none of these files, left as it is (`schedule delete weekly` ends it)"
    assert capsys.readouterr().out.splitlines()[1:] == [line]
    assert [each["display_name"] for each in backend.recurringRuns] == ["weekly", "theirs", "daily"]


def test_schedules_are_listed_paused_resumed_and_deleted(
    backend: small_kfp.Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule(backend, "apply", str(written(tmp_path)))
    capsys.readouterr()
    for words in (["list"], ["pause", "daily"], ["pause", "daily"], ["list"], ["resume", "daily"]):
        schedule(backend, *words)
    schedule(backend, "delete", "daily")
    schedule(backend, "list")
    assert capsys.readouterr().out.splitlines() == [
        "daily: 0 30 2 * * *, runs",
        "daily: paused",
        "daily: unchanged",
        "daily: 0 30 2 * * *, paused",
        "daily: resumed",
        "daily: deleted",
        "no schedules",
    ]


def test_a_schedule_that_is_not_there_cannot_be_paused(backend: small_kfp.Backend) -> None:
    with pytest.raises(ConfigError, match="no schedule is called 'nightly'"):
        schedule(backend, "pause", "nightly")


def test_a_preview_shows_the_next_five_times_and_asks_nobody(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schedule", "preview", str(written(tmp_path))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "daily: finetune, '0 30 2 * * *'"
    assert len(lines) == 6
    assert all(line.endswith("02:30:00 UTC") for line in lines[1:])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cron": "30 2 * * *"}, "cron: got '30 2 \\* \\* \\*', expected six fields: second minute hour"),
        ({"cron": "0 61 2 * * *"}, "cron: '0 61 2 \\* \\* \\*'"),
        ({"cron": "0 0 0 31 2 *"}, "cron: '0 0 0 31 2 \\*'"),
        ({"graph": "train"}, "graph: got 'train', expected one of finetune, predict"),
        ({"every": "day"}, "unknown every"),
        ({"parameters": {"epochs": 3}}, "parameters: source is missing"),
        ({"parameters": {"source": "s3://b/k", "epoch": 3}}, "finetune has none called 'epoch'"),
        ({"parameters": {"source": "s3://b/k", "epochs": "3"}}, "epochs: got '3', expected int"),
        ({"parameters": {"source": "s3://b/k", "head": "median"}}, "head='median'"),
        ({"parameters": {"source": "s3://b/k", "tolerations": "gpu"}}, "'gpu', expected a list"),
        ({"parameters": {"source": "s3://b/k", "node_selector": ["a"]}}, "'a'\\], expected an object"),
        ({"parameters": {"source": "s3://b/k", "node_selector": {"a": True}}}, "'a' is True, expected words"),
        ({"parameters": {"source": "s3://b/k", "deploy_to": "local"}}, "deploy_to='local': the step"),
        ({"parameters": None}, "parameters: got None, expected a mapping"),
        ({"name": 7}, "name: got 7, expected a word"),
        ({"experiment": None}, "experiment: got None, expected a word"),
        ({"parameters": {"source": "local.fasta"}}, "a pod cannot read that"),
        ({"parameters": {"source": "s3://b/k", "num_nodes": 2}}, "num_nodes=2: checkpoints='', expected"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_nothing_is_sent(
    changes: dict[str, object], words: str, backend: small_kfp.Backend, tmp_path: Path
) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigError, match=words) as refused:
        schedule(backend, "apply", str(path))
    assert str(refused.value).startswith(f"{path}: ")
    assert backend.calls == []


def test_help_names_the_verbs_and_what_each_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["schedule", "pause", "--help"])
    assert capsys.readouterr().out.startswith("usage: python -m pipelines schedule pause NAME [-h] ")
    with pytest.raises(ConfigError, match="schedule list: unexpected word 'extra'"):
        main(["schedule", "list", "extra"])
    assert main(["schedule", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: python -m pipelines schedule <verb> [flags]"
    told = {words[0]: words[1] for line in lines if len(words := line.split()) > 1}
    assert (told["apply"], told["preview"], told["pause"]) == ("[FILE", "[FILE", "NAME:")


def test_times_count_seconds_first() -> None:
    after = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
    assert [f"{time:%m-%d %H:%M:%S}" for time in next_times("15 30 2 ? * MON", 2, after)] == [
        "02-02 02:30:15",
        "02-09 02:30:15",
    ]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_schedule_of_the_repository_can_be_read(path: Path) -> None:
    assert read_schedule(path).name == path.stem
