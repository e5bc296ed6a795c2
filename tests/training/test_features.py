"""A frozen encoder that reads every protein once against one that reads it in every epoch."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_runs import ALONE, DTYPES, new_model, run, splits_of

from prottune.errors import ConfigError
from prottune.training.features import EncodedExamples, shared_table, with_features
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig
from prottune.training.stage import train


@pytest.fixture
def config(make_base_folder: Callable[..., Path]) -> TrainConfig:
    """A wholly frozen encoder, which has dropout that must not act, and a head that learns fast."""
    return TrainConfig(
        base_model=str(make_base_folder(num_hidden_layers=2, hidden_dropout_prob=0.2)),
        freeze_layers=-1,
        head_learning_rate=1e-2,
        head_dropout=0.1,
        epochs=3,
        tokens_per_batch=256,
        precision="fp32",
    )


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def losses(curve: Path) -> list[float]:
    points = [json.loads(line) for line in curve.read_text().splitlines()]
    return [point[name] for point in points for name in ("train/loss", "validation/loss") if name in point]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("head", ["cls", "mean", "attention"])
def test_a_head_learns_the_same_whether_the_encoder_reads_once_or_every_epoch(
    make_token_folder, config: TrainConfig, tmp_path: Path, head: str, precision: str
) -> None:
    config = replace(config, head=head, precision=precision)
    splits = splits_of(make_token_folder())
    every_epoch = run(new_model(config), splits, config, tmp_path / "every")

    model = new_model(config)
    features = with_features(model, splits, config, ALONE, DTYPES[precision])
    asked = []
    model.layers()[0].register_forward_hook(lambda *_: asked.append(1))
    once = run(model, features, config, tmp_path / "once")
    assert asked == []

    tolerance = 1e-5 if precision == "fp32" else 1e-3
    assert losses(tmp_path / "once") == pytest.approx(
        losses(tmp_path / "every"), rel=tolerance, abs=tolerance
    )
    assert once.best.epoch == every_epoch.best.epoch
    torch.testing.assert_close(
        once.best.logits_NO, every_epoch.best.logits_NO, rtol=tolerance * 10, atol=tolerance * 10
    )
    assert losses(tmp_path / "once")[-1] < 0.8 * losses(tmp_path / "once")[0], "it learns"


def test_pooled_features_take_one_vector_a_protein_and_no_disk(
    make_token_folder, config: TrainConfig, scratch: Path
) -> None:
    config = replace(config, head="mean")
    shutil.rmtree(scratch)  # nothing could be written there
    model, splits = new_model(config), splits_of(make_token_folder())
    train, _ = with_features(model, splits, config, ALONE, torch.float32)
    protein = 3
    batch = train.batch([5, protein])
    assert batch.num_tokens == 6
    assert batch.hidden_TD is not None
    mean_D = model.encode(splits[0].batch([protein]))[1:-1].mean(dim=0)
    torch.testing.assert_close(batch.hidden_TD[4], mean_D, rtol=0, atol=1e-6)


def test_residue_features_are_the_encoders_outputs_in_the_heads_precision_and_leave_no_file(
    make_token_folder, config: TrainConfig, scratch: Path
) -> None:
    model, splits = new_model(config), splits_of(make_token_folder())
    encoded, _ = with_features(model, splits, config, ALONE, torch.bfloat16)
    assert isinstance(encoded, EncodedExamples)
    assert encoded.table_TD.dtype == torch.bfloat16
    assert len(encoded.table_TD) == splits[0].num_tokens_N.sum()
    assert list(scratch.iterdir()) == []
    for protein in (0, len(encoded) - 1):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            expected_TD = model.encode(splits[0].batch([protein]))
        found_TD = encoded.batch([protein]).hidden_TD
        assert found_TD is not None
        torch.testing.assert_close(found_TD, expected_TD.bfloat16(), rtol=0.02, atol=0.02)


def test_nothing_is_cached_when_a_layer_learns_or_the_settings_say_so(
    make_token_folder, config: TrainConfig
) -> None:
    splits = splits_of(make_token_folder())
    for changed in (replace(config, cache_features=False), replace(config, freeze_layers=1)):
        assert with_features(new_model(changed), splits, changed, ALONE, torch.float32) is splits


def test_a_scratch_disk_without_room_is_refused_with_what_it_takes_and_what_it_has(scratch: Path) -> None:
    too_many = 2 * shutil.disk_usage(scratch).free
    line = r"all residues take \d+\.\d GB, .*scratch has \d+\.\d GB free; name a larger disk \(TMPDIR\)"
    with pytest.raises(ConfigError, match=line):
        shared_table((too_many // 4 // 1024, 1024), torch.float32, ALONE)
    assert list(scratch.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_refused_and_left_clean(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(ConfigError, match=r"vectors of all residues take 4\.1 MB"):
        shared_table((1000, 1024), torch.float32, ALONE)
    assert list(scratch.iterdir()) == []


def test_a_rank_on_another_machine_is_told_what_it_cannot_see(scratch: Path) -> None:
    class Far(Ranks):
        def tell(self, words: str) -> str:
            return "/on/another/machine"

    with pytest.raises(ConfigError, match=r"rank 1 does not see /on/another/machine, .* take head=mean"):
        shared_table((1, 1), torch.float32, Far(1, 2, torch.device("cpu")))


@pytest.mark.integration
def test_two_processes_share_one_reading_and_the_curve_is_that_of_one(
    make_token_folder,
    config: TrainConfig,
    tmp_path: Path,
    scratch: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Their gradients travel as bf16, so only the first loss is the same to the last digits."""
    caplog.set_level("INFO")
    config = replace(config, head_dropout=0.0)
    tokens = make_token_folder()
    run(new_model(config), splits_of(tokens), config, tmp_path / "curve")
    train(tokens, tmp_path / "two", replace(config, num_processes=2, compress_gradients=True))
    one, two = losses(tmp_path / "curve"), losses(tmp_path / "two" / "history.jsonl")
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    assert two == pytest.approx(one, rel=0.02, abs=0.02)
    assert two != pytest.approx(one, rel=1e-6)
    assert "frozen layers 2 of 2, predicted speed up 3.00" in caplog.text
    assert re.search(r"features of every residue: 0\.1 MB in .*scratch, which has .* free", caplog.text)
    assert list(scratch.iterdir()) == []
