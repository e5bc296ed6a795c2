"""The place of checkpoints: numbered, whole or refused by name, never silently empty."""

import logging
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_store import Store

from prottune.artifacts import MANIFEST_FILE, Manifest, read_manifest
from prottune.errors import ArtifactError, ConfigError, DivergedError, StorageError
from prottune.s3.calls import patience
from prottune.training.checkpoints import STAGE, Checkpoints, Name, place_of_run
from prottune.training.settings import TrainConfig

CONFIG = TrainConfig(base_model="tiny")
INPUTS = {"tokens": "t" * 64, "base": "b" * 64, "labels": "Nucleus,Cytoplasm"}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    (tmp_path / "scratch").mkdir()
    return Checkpoints(str(tmp_path / "kept"), CONFIG, INPUTS, str(tmp_path / "scratch"))


def keep(checkpoints: Checkpoints, step: int, content: bytes = b"") -> str:
    def fill(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(content or f"weights of step {step}".encode() * 100)
        (folder / "state.json").write_text(f'{{"step": {step}}}\n')

    return checkpoints.write(step, {"processes": 2}, fill)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in Path(checkpoints.place).iterdir())


def test_checkpoints_are_numbered_sealed_and_the_newest_is_found_by_number(checkpoints: Checkpoints) -> None:
    assert [keep(checkpoints, step) for step in (99_999_999, 200, 100_000_000)] == [
        "step-99999999",
        "step-00000200",
        "step-100000000",
    ]
    folder, _ = checkpoints.newest()
    assert folder == Path(checkpoints.place) / "step-100000000"
    manifest = read_manifest(folder, STAGE)
    assert manifest.facts == {"run": checkpoints.run, "step": 100_000_000, "processes": 2}
    assert manifest.inputs == INPUTS
    assert manifest.settings["learning_rate"] == CONFIG.learning_rate


def test_a_name_is_never_used_twice(checkpoints: Checkpoints) -> None:
    assert [keep(checkpoints, 5), keep(checkpoints, 5), keep(checkpoints, 5)] == [
        "step-00000005",
        "step-00000005-2",
        "step-00000005-3",
    ]
    folder, _ = checkpoints.newest()
    assert folder is not None
    assert folder.name == "step-00000005-3"
    assert sorted([Name(5, 10), Name(6), Name(5, 9), Name(5)]) == [Name(5), Name(5, 9), Name(5, 10), Name(6)]


def test_without_checkpoints_a_run_begins(checkpoints: Checkpoints) -> None:
    assert checkpoints.newest() == (None, checkpoints)
    Path(checkpoints.place).mkdir()
    (Path(checkpoints.place) / "notes.txt").write_text("mine")
    (Path(checkpoints.place) / "step-12").mkdir()
    assert checkpoints.newest() == (None, checkpoints)


def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2, 3, 4):
        keep(checkpoints, step)
    place = Path(checkpoints.place)
    (place / "step-00000002" / "model.safetensors").write_bytes(b"other")
    (place / "step-00000003" / "state.json").unlink()
    (place / "step-00000004" / MANIFEST_FILE).unlink()
    with caplog.at_level(logging.WARNING):
        folder, found = checkpoints.newest()
    assert folder == place / "step-00000001"
    assert found.refused == ("step-00000003", "step-00000002")
    unfinished, missing, damaged = caplog.messages
    assert unfinished == "checkpoint step-00000004 was never finished (no manifest.json): passed over"
    assert missing.startswith(f"checkpoint step-00000003 refused: {place}/step-00000003/state.json: missing")
    assert damaged.startswith("checkpoint step-00000002 refused: ")
    assert damaged.endswith("5 bytes, expected 1700; looking at the one before it")


def test_if_no_finished_checkpoint_is_whole_the_run_does_not_silently_begin(checkpoints: Checkpoints) -> None:
    for step in (1, 2):
        keep(checkpoints, step)
        (Path(checkpoints.place) / f"step-0000000{step}" / "state.json").write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=r"kept: none of its 2 finished checkpoints is whole \(.*step-0"):
        checkpoints.newest()


def test_a_thousand_flipped_bits_and_two_hundred_cuts_are_all_found(checkpoints: Checkpoints) -> None:
    """Anywhere: in weights, state and manifest."""
    draw = random.Random(20)
    keep(checkpoints, 1)
    keep(checkpoints, 2, content=draw.randbytes(4000))
    older, newest = (Path(checkpoints.place) / f"step-0000000{step}" for step in (1, 2))
    good = {path: path.read_bytes() for path in sorted(newest.iterdir())}
    assert len(good) == 3
    total = sum(map(len, good.values()))

    def damaged(position: int) -> tuple[Path, int]:
        for path, content in good.items():
            if position < len(content):
                return path, position
            position -= len(content)
        raise AssertionError(position)

    num_found, in_manifest = 0, 0
    for trial in range(1200):
        path, position = damaged(draw.randrange(total))
        with path.open("r+b") as stream:
            stream.seek(position)
            if trial < 1000:
                stream.write(bytes([good[path][position] ^ 1 << draw.randrange(8)]))
            else:
                stream.truncate()
        if trial % 50 == 0:
            folder, found = checkpoints.newest()
            assert (folder, found.refused) == (older, ("step-00000002",))
        try:
            read_manifest(newest, STAGE)
        except ArtifactError:
            num_found += 1
        in_manifest += path.name == MANIFEST_FILE
        with path.open("r+b") as stream:
            stream.seek(position)
            stream.write(good[path][position:])
    assert num_found == 1200
    assert in_manifest > 200
    assert checkpoints.newest() == (newest, checkpoints)


def test_files_of_two_checkpoints_that_changed_places_are_found(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 3):
        keep(checkpoints, step)
    second, third = (Path(checkpoints.place) / f"step-0000000{step}" for step in (2, 3))
    ours, theirs = ((folder / "model.safetensors").read_bytes() for folder in (second, third))
    (second / "model.safetensors").write_bytes(theirs)
    (third / "model.safetensors").write_bytes(ours)
    folder, _ = checkpoints.newest()
    assert folder is not None
    assert folder.name == "step-00000001"


def test_only_the_newest_are_kept_and_damaged_and_unfinished_ones_go(checkpoints: Checkpoints) -> None:
    for step in (1, 2, 3, 4):
        keep(checkpoints, step)
    place = Path(checkpoints.place)
    (place / "step-00000004" / "state.json").write_bytes(b"{}")
    _, found = checkpoints.newest()
    (place / "step-00000005.partial").mkdir()
    (place / "step-00000005.partial" / "model.safetensors").write_bytes(b"half")
    (place / "notes.txt").write_text("mine")
    assert keep(found, 4) == "step-00000004-2"
    found.prune()
    assert names(found) == ["notes.txt", "step-00000003", "step-00000004-2"]


def test_the_step_of_a_damaged_checkpoint_that_is_gone_is_kept_under_another_name(
    checkpoints: Checkpoints,
) -> None:
    for step in (5, 12):
        keep(checkpoints, step)
    (Path(checkpoints.place) / "step-00000012" / "state.json").write_bytes(b"{}")
    _, found = checkpoints.newest()
    keep(found, 10)
    found.prune()
    assert names(found) == ["step-00000005", "step-00000010"]
    assert keep(found, 12) == "step-00000012-2"
    found.prune()
    assert names(found) == ["step-00000010", "step-00000012-2"]


def test_a_store_that_lets_nobody_delete_stops_nothing(
    checkpoints: Checkpoints, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        keep(checkpoints, step)

    def denied(path: Path) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(shutil, "rmtree", denied)
    checkpoints.prune()
    assert caplog.messages == [
        f"checkpoint step-00000001 cannot be removed: {checkpoints.place}/step-00000001: "
        "cannot be removed (not permitted)"
    ]


def test_a_write_that_fails_leaves_nothing_and_the_checkpoint_before_stays(checkpoints: Checkpoints) -> None:
    keep(checkpoints, 1)

    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.write(2, {}, fail)
    assert names(checkpoints) == ["step-00000001"]
    folder, _ = checkpoints.newest()
    assert folder is not None


@pytest.mark.parametrize(
    ("changes", "inputs", "line"),
    [
        ({"learning_rate": 0.5}, {}, r"another run \(learning_rate was 3e-05, now 0.5\); name another"),
        ({}, {"tokens": "u" * 64}, r"another run \(tokens was t{64}, now u{64}\)"),
        ({}, {"labels": "Cytoplasm,Nucleus"}, r"labels was Nucleus,Cytoplasm, now Cytoplasm,Nucleus"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_what_differs(
    checkpoints: Checkpoints, changes: dict[str, float], inputs: dict[str, str], line: str
) -> None:
    keep(checkpoints, 1)
    other = replace(checkpoints, config=replace(CONFIG, **changes), inputs=INPUTS | inputs)
    with pytest.raises(ConfigError, match=line):
        other.newest()


def test_settings_that_say_how_a_run_runs_may_change(checkpoints: Checkpoints) -> None:
    keep(checkpoints, 1)
    how = {"num_processes": 8, "checkpoint_every": 7, "keep_checkpoints": 1, "rank_timeout_seconds": 9}
    folder, _ = replace(checkpoints, config=replace(CONFIG, **how, base_model="/elsewhere")).newest()
    assert folder is not None


def test_a_setting_that_a_checkpoint_does_not_know_had_its_default(checkpoints: Checkpoints) -> None:
    keep(checkpoints, 1)
    path = Path(checkpoints.place) / "step-00000001" / MANIFEST_FILE
    manifest = Manifest.parse(path.read_bytes(), "it")
    older = {name: value for name, value in manifest.settings.items() if name != "layer_decay"}
    path.write_bytes(replace(manifest, settings=older).sealed())
    folder, _ = checkpoints.newest()
    assert folder is not None
    with pytest.raises(ConfigError, match=r"layer_decay was 1.0, now 0.9"):
        replace(checkpoints, config=replace(CONFIG, layer_decay=0.9)).newest()


def test_a_run_that_diverged_is_not_trained_again_with_the_same_settings(checkpoints: Checkpoints) -> None:
    checkpoints.raise_if_refused()
    checkpoints.refuse(DivergedError("training diverged at step 3, rank 1: the loss is nan"))
    with pytest.raises(
        DivergedError, match=r"^training diverged at step 3, rank 1: the loss is nan \(an ear"
    ):
        checkpoints.raise_if_refused()
    replace(checkpoints, config=replace(CONFIG, learning_rate=1e-6)).raise_if_refused()
    replace(checkpoints, inputs=INPUTS | {"tokens": "other"}).raise_if_refused()


@pytest.mark.parametrize("content", [b"", b'{"run": "x"}', b"[]", b"\xff"])
def test_a_refusal_that_cannot_be_read_is_not_passed_over(checkpoints: Checkpoints, content: bytes) -> None:
    Path(checkpoints.place).mkdir()
    (Path(checkpoints.place) / "refused.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"kept/refused.json: cannot be read"):
        checkpoints.raise_if_refused()


def test_a_pipeline_run_has_a_place_of_its_own_below_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert place_of_run("s3://bucket/kept/") == "s3://bucket/kept/"
    monkeypatch.setenv("PROTTUNE_PIPELINE_RUN", "run-7")
    assert place_of_run("s3://bucket/kept/") == "s3://bucket/kept/run-7"
    assert place_of_run("/kept") == "/kept/run-7"
    assert place_of_run("") == ""


@pytest.fixture
def in_a_store(store: Store, checkpoints: Checkpoints) -> Checkpoints:
    return replace(checkpoints, place="s3://bucket/run")


def test_checkpoints_go_straight_to_a_store_and_come_back(
    store: Store, in_a_store: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    assert in_a_store.newest() == (None, in_a_store)
    assert [keep(in_a_store, step) for step in (1, 2, 2, 3)][2] == "step-00000002-2"
    assert store.puts[:3] == [
        f"bucket/run/step-00000001/{name}" for name in ("model.safetensors", "state.json", MANIFEST_FILE)
    ]
    assert list(Path(in_a_store.scratch).iterdir()) == [], "a pod's disk may be small"
    store.objects["bucket/run/step-00000003/state.json"] = b'{"step": 4}\n'
    del store.objects["bucket/run/step-00000002-2/state.json"]
    folder, found = in_a_store.newest()
    assert folder == Path(in_a_store.scratch) / "step-00000002"
    assert read_manifest(folder).facts["step"] == 2
    assert found.refused == ("step-00000003", "step-00000002-2")
    assert "checkpoint step-00000003 refused: " in caplog.text
    assert "state.json: damaged, SHA-256" in caplog.text
    assert "step-00000002-2/state.json: missing, though the manifest lists it" in caplog.text

    keep(found, 3)
    store.deletes.clear()
    found.prune()
    left = {key.split("/")[2] for key in store.objects}
    assert left == {"step-00000002", "step-00000003-2"}
    assert store.deletes[0] == f"bucket/run/step-00000001/{MANIFEST_FILE}"


def test_an_upload_that_was_cut_off_is_no_checkpoint(
    store: Store, in_a_store: Checkpoints, caplog: pytest.LogCaptureFixture
) -> None:
    keep(in_a_store, 1)
    keep(in_a_store, 2)
    del store.objects[f"bucket/run/step-00000002/{MANIFEST_FILE}"]
    folder, found = in_a_store.newest()
    assert folder is not None
    assert folder.name == "step-00000001"
    assert "checkpoint step-00000002 was never finished" in caplog.text
    assert keep(found, 2) == "step-00000002-2"


def test_a_checkpoint_whose_upload_broke_before_its_first_file_was_there_is_tidied_away(
    store: Store, in_a_store: Checkpoints
) -> None:
    store.parts["bucket/run/step-00000001/weights"] = {1: b"half"}
    store.parts["bucket/run/launch/model"] = {1: b"somebody else's"}
    assert in_a_store.newest() == (None, in_a_store)
    keep(in_a_store, 2)
    in_a_store.prune()
    assert list(store.parts) == ["bucket/run/launch/model"]
    assert keep(in_a_store, 3) == "step-00000003"


def test_a_store_that_is_away_is_an_outside_failure_and_no_reason_to_begin(
    store: Store, in_a_store: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(in_a_store, 1)
    monkeypatch.setenv("S3_ENDPOINT", "http://127.0.0.1:9")
    with patience(0.3), pytest.raises(StorageError, match="s3://bucket/run"):
        in_a_store.newest()


def test_a_refusal_lies_in_the_store_too(store: Store, in_a_store: Checkpoints) -> None:
    in_a_store.refuse(DivergedError("the loss is nan"))
    assert list(store.objects) == ["bucket/run/refused.json"]
    with pytest.raises(
        DivergedError, match=r"^the loss is nan \(an earlier .*s3://bucket/run/refused.json\)"
    ):
        in_a_store.raise_if_refused()
    assert in_a_store.newest() == (None, in_a_store)
