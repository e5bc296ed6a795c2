from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow_template import new_store

from prottune import registration, registry
from prottune.artifacts import new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError, TrackingError
from prottune.mlflow_store import mlflow_client
from prottune.registration import (
    PromoteReport,
    RegisterReport,
    champion_folder,
    code_digest,
    find_champion,
    is_news,
    promote,
    register,
    rollback,
    settings_digest,
)
from prottune.tracking import step


@dataclass(frozen=True)
class BakeConfig:
    degrees: int = 180


@dataclass(frozen=True)
class EatConfig:
    guests: int = 4


@pytest.fixture(autouse=True)
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("MLFLOW_RUN_ID", "PROTTUNE_PIPELINE_RUN"):
        monkeypatch.delenv(name, raising=False)
    uri = new_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def model_folder(folder: Path, weights: str = "w", dataset: str = "data-1") -> Path:
    with new_folder(folder, "train", BakeConfig()) as draft:
        (draft.path / "model.safetensors").write_text(weights)
        (draft.path / "prottune.json").write_text(json.dumps({"dataset_digest": dataset}))
    return folder


def report_on(model: Path, accuracy: float = 0.75) -> Path:
    folder = model.with_name(f"{model.name}-report")
    scores = {"accuracy": accuracy, "macro_f1": 0.5, "mcc": 0.25, "ece": 0.125, "num_proteins": 50}
    with new_folder(folder, "evaluate", EatConfig(), {"model": read_manifest(model).digest}) as draft:
        metrics = {**scores, "test": {**scores, "per_class": {"Nucleus": {"f1": 0.5}}}, "gate": scores}
        (draft.path / "metrics.json").write_text(json.dumps(metrics))
    return folder


def registered(folder: Path, run_key: str = "run-1", settings: str = "") -> RegisterReport:
    model = model_folder(folder, weights=folder.name)
    return register(model, str(model), report_on(model), run_key, settings)


def test_before_the_first_model_there_is_no_champion() -> None:
    assert find_champion() is None
    assert is_news("data-1", "settings-1")
    with champion_folder() as (folder, version):
        assert (folder, version) == (None, "")


def test_a_registered_model_is_the_challenger_and_says_what_made_it(tmp_path: Path, uri: str) -> None:
    report = registered(tmp_path / "model", settings="settings-1")
    model = tmp_path / "model"
    assert report == RegisterReport(version="1", uri=str(model), created=True, uploaded=False)
    version = mlflow_client(uri).get_model_version_by_alias("prottune", "challenger")
    assert version.source == str(model)
    assert version.tags == {
        "prottune.pipeline_run": "run-1",
        "prottune.model_digest": read_manifest(model).digest,
        "prottune.dataset_digest": "data-1",
        "prottune.settings_digest": "settings-1",
        "prottune.code_digest": code_digest(),
        "prottune.test_accuracy": "0.7500",
        "prottune.test_macro_f1": "0.5000",
        "prottune.test_mcc": "0.2500",
        "prottune.test_ece": "0.1250",
        "prottune.gate_accuracy": "0.7500",
        "prottune.gate_macro_f1": "0.5000",
        "prottune.gate_mcc": "0.2500",
        "prottune.gate_ece": "0.1250",
    }


def test_a_version_knows_its_mlflow_run(tmp_path: Path, uri: str) -> None:
    with step("register") as tracker:
        version = registered(tmp_path / "model").version
    assert mlflow_client(uri).get_model_version("prottune", version).run_id == tracker.run_id


def test_one_pipeline_run_registers_a_model_once(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model")
    report = report_on(model)
    first, second = (register(model, str(model), report, "run-1") for _ in range(2))
    assert (first.version, first.created) == ("1", True)
    assert (second.version, second.created) == ("1", False)
    assert register(model, str(model), report, "run-2").version == "2"


def test_a_retry_after_the_alias_was_lost_sets_it_again(tmp_path: Path, uri: str) -> None:
    model = model_folder(tmp_path / "model")
    report = report_on(model)
    register(model, str(model), report, "run-1")
    mlflow_client(uri).delete_registered_model_alias("prottune", "challenger")
    register(model, str(model), report, "run-1")
    assert mlflow_client(uri).get_model_version_by_alias("prottune", "challenger").version == 1


def test_a_report_about_another_model_is_refused(tmp_path: Path) -> None:
    model, other = model_folder(tmp_path / "model"), model_folder(tmp_path / "other", "v")
    with pytest.raises(ArtifactError, match="is about model"):
        register(model, str(model), report_on(other), "run-1")
    assert find_champion() is None


def test_a_store_uri_is_kept_as_it_is_and_a_file_uri_becomes_a_path(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "my model")
    report = report_on(model)
    assert register(model, "s3://bucket/runs/1/model", report, "run-1").uri == "s3://bucket/runs/1/model"
    assert register(model, "minio://bucket/model", report, "run-2").uri == "s3://bucket/model"
    assert register(model, model.as_uri(), report, "run-3").uri == str(model)


def test_promotion_moves_champion_and_previous(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        registered(tmp_path / name)
    first = promote("1", "")
    assert first == PromoteReport(promoted=True, reason="it is the first champion", champion="1", previous="")
    assert promote("2", "1") == PromoteReport(
        promoted=True, reason="it takes the place of version 1", champion="2", previous="1"
    )
    assert promote("3", "2").previous == "2"
    champion = find_champion()
    assert champion is not None
    assert (champion.version, champion.uri) == ("3", str(tmp_path / "c"))
    with champion_folder() as (folder, version):
        assert (folder, version) == (tmp_path / "c", "3")


def test_a_model_compared_with_a_former_champion_is_held(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        registered(tmp_path / name)
    promote("1", "")
    promote("2", "1")
    held = promote("3", "1")
    assert (held.promoted, held.champion, held.previous) == (False, "2", "1")
    assert "champion is now version 2, but version 3 was compared with 1" in held.reason
    first = promote("3", "")
    assert not first.promoted
    assert find_champion().version == "2"  # type: ignore[union-attr]


def test_repeating_a_promotion_changes_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        registered(tmp_path / name)
    promote("1", "")
    promote("2", "1")
    again = promote("2", "1")
    assert (again.promoted, again.champion, again.previous) == (True, "2", "1")


def test_a_version_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no version '7'"):
        promote("7", "")
    registered(tmp_path / "a")
    with pytest.raises(ConfigError, match="has no version '7'"):
        promote("7", "")


def test_of_two_promotions_at_once_one_wins(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        registered(tmp_path / name)
    promote("1", "")
    reports: list[PromoteReport] = []
    threads = [threading.Thread(target=lambda v=v: reports.append(promote(v, "1"))) for v in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(report.promoted for report in reports) == [False, True]
    assert find_champion().version == next(r.champion for r in reports if r.promoted)  # type: ignore[union-attr]


def test_a_lock_that_is_never_released_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_LOCK_SECONDS", 0.1)
    with FileLock(tmp_path / "promotion.lock"), pytest.raises(TrackingError, match="another promotion"):
        promote("1", "")


def test_rollback_swaps_champion_and_previous(tmp_path: Path) -> None:
    for name in ("a", "b"):
        registered(tmp_path / name)
    promote("1", "")
    promote("2", "1")
    back = rollback()
    assert (back.promoted, back.champion, back.previous) == (True, "1", "2")
    assert find_champion().version == "1"  # type: ignore[union-attr]
    assert rollback().champion == "2"


def test_rollback_without_a_previous_champion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to roll back to: champion none, previous none"):
        rollback()
    registered(tmp_path / "a")
    promote("1", "")
    with pytest.raises(ConfigError, match="champion 1, previous none"):
        rollback()


def test_the_same_data_settings_and_code_are_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_digest(BakeConfig(), EatConfig())
    registered(tmp_path / "a", settings=settings)
    assert is_news("data-1", settings)
    promote("1", "")
    assert not is_news("data-1", settings)
    assert is_news("data-2", settings)
    assert is_news("data-1", settings_digest(BakeConfig(degrees=200), EatConfig()))
    monkeypatch.setattr(registration, "code_digest", lambda: "other code")
    assert is_news("data-1", settings)


def test_the_settings_digest_depends_on_values_not_on_order() -> None:
    assert settings_digest(BakeConfig(), EatConfig()) == settings_digest(EatConfig(), BakeConfig())
    assert settings_digest(BakeConfig()) != settings_digest(BakeConfig(degrees=181))


def test_a_registry_that_cannot_be_reached_is_a_service_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"^model registry at http://127.0.0.1:9: ") as caught:
        find_champion()
    assert "secret" not in str(caught.value)


def test_without_an_address_the_registry_is_in_the_runs_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    new_store(tmp_path / "runs")
    registered(tmp_path / "a")
    assert promote("1", "").champion == "1"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mlflow.db", "promotion.lock"]
