from __future__ import annotations

import multiprocessing
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from judged_models import GATE, BakeConfig, EatConfig, model_folder, report_on
from mlflow.tracking import MlflowClient
from mlflow_template import new_store
from small_cluster import SmallCluster, serving

from prottune.artifacts import read_manifest
from prottune.cluster import connection
from prottune.errors import ArtifactError, ConfigError, TrackingError
from prottune.registration import news, registry
from prottune.registration.champion import champion_folder, find_champion, model_address
from prottune.registration.news import is_news, tags_of_hold
from prottune.registration.promotion import PromoteReport, promote, rollback
from prottune.registration.provenance import code_digest, settings_digest
from prottune.registration.stage import RegisterReport, register
from prottune.tracking.mlflow_store import mlflow_client
from prottune.tracking.step import step


@pytest.fixture(autouse=True)
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("MLFLOW_RUN_ID", "PROTTUNE_PIPELINE_RUN"):
        monkeypatch.delenv(name, raising=False)
    uri = new_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def registered(folder: Path, run_key: str = "run-1", settings: str = "", **verdict: str) -> RegisterReport:
    model = model_folder(folder, weights=folder.name)
    return register(model, str(model), report_on(model, **verdict), run_key, settings)


def versions(uri: str) -> dict[int, str]:
    """Number of each version in the registry, and the pipeline run that it carries as a tag."""
    found = mlflow_client(uri).search_model_versions("name = 'prottune'")
    return {int(entry.version): entry.tags["prottune.pipeline_run"] for entry in found}


def die(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do something that ends when it makes a certain call to MLflow, as if the process died there."""

    def until(call: str, does: Callable[..., None], act: Callable[[], object]) -> None:
        with monkeypatch.context() as dying:
            dying.setattr(MlflowClient, call, does)
            with pytest.raises(KeyboardInterrupt):
                act()

    return until


def test_a_model_that_is_named_is_looked_for_before_any_work(tmp_path: Path) -> None:
    model = model_folder(tmp_path / "model", weights="w")
    assert model_address(str(model)) == (str(model), "")
    with pytest.raises(ArtifactError, match=r"/gone: no manifest\.json; this is not a finished"):
        model_address(str(tmp_path / "gone"))
    report = report_on(model)
    with pytest.raises(ArtifactError, match="made by stage 'evaluate', expected one made by 'train'"):
        model_address(str(report))
    with pytest.raises(ConfigError, match="has no champion; promote a version, or name a model"):
        model_address("registry")


def test_before_the_first_model_there_is_no_champion() -> None:
    assert find_champion() is None
    assert is_news("data-1", "settings-1", GATE)
    with champion_folder() as (folder, version):
        assert (folder, version) == (None, "")


def test_a_registered_model_is_the_challenger_and_says_what_made_it(tmp_path: Path, uri: str) -> None:
    report = registered(tmp_path / "model", settings="settings-1")
    model = tmp_path / "model"
    assert (report.version, report.uri) == ("1", str(model))
    assert (report.created, report.uploaded, report.compared_with) == (True, False, "")
    version = mlflow_client(uri).get_model_version_by_alias("prottune", "challenger")
    assert version.source == str(model)
    assert version.tags == {
        "prottune.pipeline_run": "run-1",
        "prottune.model_digest": read_manifest(model).digest,
        "prottune.dataset_digest": "data-1",
        "prottune.settings_digest": "settings-1",
        "prottune.code_digest": code_digest(),
        "prottune.artifact_uri": str(model),
        "prottune.decision": "promote",
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


@pytest.mark.parametrize(
    "last_call", ["create_registered_model", "create_model_version", "log_text", "update_model_version"]
)
def test_whatever_call_was_the_last_a_retry_ends_with_one_whole_version(
    last_call: str, tmp_path: Path, uri: str, interrupted: Callable[..., None]
) -> None:
    model = model_folder(tmp_path / "model")
    report, call = report_on(model), getattr(MlflowClient, last_call)

    def ends_here(*args: Any, **kwargs: Any) -> None:
        call(*args, **kwargs)
        raise KeyboardInterrupt

    with step("register"):
        interrupted(last_call, ends_here, lambda: register(model, str(model), report, "run-1", "settings-1"))
        register(model, str(model), report, "run-1", "settings-1")
    assert versions(uri) == {1: "run-1"}
    version = mlflow_client(uri).get_model_version_by_alias("prottune", "challenger")
    assert version.tags["prottune.settings_digest"] == "settings-1"
    assert version.description.startswith("# Model card: prottune version 1\n")


def test_a_version_made_by_another_process_meanwhile_counts_and_the_own_one_is_taken_back(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_folder(tmp_path / "model")
    report, create = report_on(model), MlflowClient.create_model_version
    with monkeypatch.context() as racing:
        racing.setattr(
            MlflowClient, "create_model_version", lambda *a, **k: (create(*a, **k), create(*a, **k))[1]
        )
        entry = register(model, str(model), report, "run-1")
    assert (entry.version, entry.created) == ("1", False)
    assert versions(uri) == {1: "run-1"}
    assert mlflow_client(uri).get_model_version_by_alias("prottune", "challenger").version == 1


def test_two_processes_that_register_and_promote_at_once_end_with_one_version_and_one_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forked: a new interpreter would import MLflow for seconds. The store is new to both."""
    for name in ("a", "b", "c"):
        registered(tmp_path / name)
    promote("1", "")
    model = model_folder(tmp_path / "model")
    report = report_on(model)
    (tmp_path / "shared").mkdir()
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "shared")
    shared = f"sqlite:///{tmp_path / 'shared' / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared)
    context = multiprocessing.get_context("fork")
    start, told = context.Barrier(2), context.SimpleQueue()

    def race(version: str) -> None:
        start.wait(60)
        entry = register(model, str(model), report, "run-2")
        start.wait(60)
        told.put((entry.version, promote(version, "1").promoted, version))

    racers = [context.Process(target=race, args=(version,)) for version in ("2", "3")]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(120)
    assert [racer.exitcode for racer in racers] == [0, 0]
    first, second = told.get(), told.get()
    assert first[0] == second[0]
    assert sorted(versions(shared).values()) == ["run-1", "run-1", "run-1", "run-2"]
    assert sorted([first[1], second[1]]) == [False, True]
    winner = first[2] if first[1] else second[2]
    client = mlflow_client(shared)
    assert str(client.get_model_version_by_alias("prottune", "champion").version) == winner
    assert client.get_model_version_by_alias("prottune", "previous").version == 1
    assert str(client.get_model_version_by_alias("prottune", "challenger").version) == first[0]


def test_the_card_is_shown_with_the_version_and_kept_with_its_run(tmp_path: Path, uri: str) -> None:
    with step("register") as tracker:
        entry = registered(tmp_path / "model", settings="settings-1")
    client = mlflow_client(uri)
    version = client.get_model_version("prottune", entry.version)
    assert version.description == entry.card
    (kept,) = client.list_artifacts(tracker.run_id, "register")
    assert kept.path == "register/model-card-1.md"
    assert (tmp_path / "mlartifacts" / tracker.run_id / "artifacts" / kept.path).read_text() == entry.card


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
    for version in ("7", "v1", "-1", "latest"):
        with pytest.raises(ConfigError, match=f"has no version '{version}'"):
            promote(version, "")
    assert promote("01", "").champion == "1"


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


def test_promotions_on_one_server_share_a_lock_whatever_folder_they_are_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("PROTTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_LOCK_SECONDS", 0.1)
    monkeypatch.chdir(tmp_path)
    with registry.registry().lock():
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pytest.raises(TrackingError, match="held by another promotion"), registry.registry().lock():
            pass


def test_promotions_share_a_lease_when_a_cluster_has_a_server_and_else_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
    (tmp_path / "token").write_text("secret")
    assert not connection.in_cluster(), "a token alone is no cluster"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with registry.registry().lock():
        assert (tmp_path / "promotion.lock").is_file(), "the registry is a file"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with serving(SmallCluster()) as cluster:
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig(tmp_path / "config")))
        monkeypatch.setattr(connection, "in_cluster", lambda: False)  # reached as from outside
        with registry.registry().lock():
            lease = cluster.get("leases.coordination.k8s.io", "prottune-promotion")
            assert lease["spec"]["holderIdentity"].startswith("a promotion (")
        lease = cluster.get("leases.coordination.k8s.io", "prottune-promotion")
        assert "holderIdentity" not in lease["spec"]


def test_a_version_that_the_gate_held_is_promoted_only_when_overruled(tmp_path: Path) -> None:
    entry = registered(tmp_path / "a", decision="hold", champion="")
    held = promote("1", "")
    assert (held.promoted, held.champion) == (False, "")
    assert held.reason == "the gate held version 1; to promote it nevertheless: --overrule"
    assert promote("1", "", overrule=True).promoted
    assert entry.compared_with == ""
    assert registered(tmp_path / "b", champion="1").compared_with == "1"


@pytest.mark.parametrize("last", ["hold", "promote"])
def test_of_a_model_that_was_judged_twice_the_last_word_counts(last: str, tmp_path: Path, uri: str) -> None:
    first = {"hold": "promote", "promote": "hold"}[last]
    model = model_folder(tmp_path / "a", weights="a")
    register(model, str(model), report_on(model, decision=first), "run-1")
    registered(tmp_path / "b")
    promote("2", "")
    shutil.rmtree(tmp_path / "a-report")
    again = report_on(model, decision=last, champion="2", accuracy=0.5)
    assert register(model, str(model), again, "run-1").version == "1"
    tags = mlflow_client(uri).get_model_version("prottune", "1").tags
    assert (tags["prottune.decision"], tags["prottune.compared_with"]) == (last, "2")
    assert tags["prottune.test_accuracy"] == "0.5000"
    assert promote("1", "2").promoted is (last == "promote")


def test_to_overrule_the_gate_is_not_to_overrule_a_race(tmp_path: Path) -> None:
    for name in ("a", "b"):
        registered(tmp_path / name)
    promote("1", "")
    assert not promote("2", "", overrule=True).promoted


def test_an_interrupted_promotion_is_finished_by_repeating_it(
    tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    for name in ("a", "b", "c"):
        registered(tmp_path / name)
    promote("1", "")
    promote("2", "1")
    set_alias = MlflowClient.set_registered_model_alias

    def ends_at_champion(client: MlflowClient, name: str, alias: str, version: str) -> None:
        if alias == "champion":
            raise KeyboardInterrupt
        set_alias(client, name, alias, version)

    interrupted("set_registered_model_alias", ends_at_champion, lambda: promote("3", "2"))
    assert find_champion().version == "2"  # type: ignore[union-attr]
    again = promote("3", "2")
    assert (again.promoted, again.champion, again.previous) == (True, "3", "2")


def test_rollback_lets_the_previous_champion_serve_again_and_a_second_one_is_refused(
    tmp_path: Path, uri: str
) -> None:
    for name in ("a", "b"):
        registered(tmp_path / name)
    promote("1", "")
    promote("2", "1")
    back = rollback()
    assert back == PromoteReport(promoted=True, reason="version 2 was rolled back", champion="1", previous="")
    assert mlflow_client(uri).get_model_version("prottune", "2").tags["prottune.rolled_back"] == "true"
    for _ in range(2):  # by a retry, or a nervous hand: the bad model does not come back
        with pytest.raises(ConfigError, match="nothing to roll back to: champion 1, previous none; nothing "):
            rollback()
        assert find_champion().version == "1"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "last_call", ["set_model_version_tag", "set_registered_model_alias", "delete_registered_model_alias"]
)
def test_a_rollback_that_was_interrupted_is_finished_by_repeating_it(
    last_call: str, tmp_path: Path, interrupted: Callable[..., None]
) -> None:
    for name in ("a", "b"):
        registered(tmp_path / name)
    promote("1", "")
    promote("2", "1")
    interrupted(last_call, die, rollback)
    if last_call == "delete_registered_model_alias":  # all that serves has happened
        with pytest.raises(ConfigError, match="champion 1, previous none"):
            rollback()
    else:
        assert rollback().champion == "1"
    assert find_champion().version == "1"  # type: ignore[union-attr]


def test_a_retried_promotion_does_not_undo_a_rollback(tmp_path: Path, uri: str) -> None:
    for name in ("a", "b"):
        registered(tmp_path / name)
    promote("1", "")
    promote("2", "1")
    rollback()
    held = promote("2", "1")
    assert (held.promoted, held.champion) == (False, "1")
    assert held.reason == "version 2 was rolled back; to promote it nevertheless: --overrule"
    assert promote("2", "1", overrule=True).champion == "2"
    assert "prottune.rolled_back" not in mlflow_client(uri).get_model_version("prottune", "2").tags


def test_rollback_without_a_previous_champion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to roll back to: champion none, previous none"):
        rollback()
    registered(tmp_path / "a")
    promote("1", "")
    with pytest.raises(ConfigError, match="champion 1, previous none"):
        rollback()


def test_what_made_a_model_that_was_rolled_back_is_no_news(tmp_path: Path) -> None:
    """Else the next scheduled run would train it again, and promote it again."""
    registered(tmp_path / "a", settings="settings-1")
    registered(tmp_path / "b", settings="settings-2")
    promote("1", "")
    promote("2", "1")
    rollback()
    assert not is_news("data-1", "settings-2", GATE)
    assert not is_news("data-1", "settings-1", GATE)
    assert is_news("data-2", "settings-2", GATE)


def test_the_same_data_settings_and_code_are_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_digest(BakeConfig(), EatConfig())
    registered(tmp_path / "a", settings=settings)
    assert is_news("data-1", settings, GATE)
    promote("1", "")
    assert not is_news("data-1", settings, GATE)
    assert is_news("data-2", settings, GATE)
    assert is_news("data-1", settings_digest(BakeConfig(degrees=200), EatConfig()), GATE)
    monkeypatch.setattr(news, "code_digest", lambda: "other code")
    assert is_news("data-1", settings, GATE)


def held(folder: Path, champion: str = "") -> str:
    """A model that the gate held, as the step `hold` leaves it; returns its run."""
    report = report_on(model_folder(folder, weights=folder.name), decision="hold", champion=champion)
    with step("hold") as tracker:
        tracker.tags(tags_of_hold(report, "settings-1"))
        tracker.flush()
        return tracker.run_id


def test_what_made_a_model_that_was_held_is_no_news_while_the_gate_and_the_champion_stay(
    tmp_path: Path,
) -> None:
    """Else a nightly run would train it every night, to be held again."""
    registered(tmp_path / "a", settings="settings-0")
    promote("1", "")
    assert is_news("data-1", "settings-1", GATE)
    held(tmp_path / "b", champion="1")
    assert not is_news("data-1", "settings-1", GATE)
    assert is_news("data-2", "settings-1", GATE)
    assert is_news("data-1", "settings-2", GATE)
    assert is_news("data-1", "settings-1", EatConfig(guests=5)), "another gate may let it pass"
    registered(tmp_path / "c", settings="settings-2", champion="1")
    promote("2", "1")
    assert is_news("data-1", "settings-1", GATE), "it may be better than another champion"
    rollback()
    assert not is_news("data-1", "settings-1", GATE), "it was held against this one"


def test_a_model_that_was_held_before_there_was_a_champion_is_no_news_either(tmp_path: Path) -> None:
    held(tmp_path / "a")
    assert not is_news("data-1", "settings-1", GATE)
    registered(tmp_path / "b", settings="settings-0")
    promote("1", "")
    assert is_news("data-1", "settings-1", GATE)


def test_other_code_may_make_of_a_held_model_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(tmp_path / "a")
    monkeypatch.setattr(news, "code_digest", lambda: "other code")
    assert is_news("data-1", "settings-1", GATE)


def test_who_deletes_the_run_of_a_held_model_has_it_trained_again(tmp_path: Path, uri: str) -> None:
    mlflow_client(uri).delete_run(held(tmp_path / "a"))
    assert is_news("data-1", "settings-1", GATE)


def test_a_held_model_is_found_in_the_experiment_of_who_made_the_run(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with Kubeflow Pipelines' own plugin for MLflow, which makes the runs and names their ids."""
    client = mlflow_client(uri)
    elsewhere = client.create_experiment("of the plugin")
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run(elsewhere).info.run_id)
    held(tmp_path / "a")
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run(elsewhere).info.run_id)
    assert not is_news("data-1", "settings-1", GATE)


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
