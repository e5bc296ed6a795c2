"""Bases that are no BERT, from a published folder through training to answers."""

from pathlib import Path

import pytest
import torch

from prottune.artifacts import new_folder
from prottune.model.base import find_base
from prottune.model.folder import load_model
from prottune.model.golden import read_golden
from prottune.model.inference import Predictor
from prottune.training.job import Job
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig, TrainReport
from prottune.training.stage import train
from prottune.training.worker import run_rank
from tests.model.small_encoders import write_base, write_esm_base
from tests.tiny_tokens import LABELS

CONFIG = TrainConfig(
    learning_rate=1e-3, head_learning_rate=1e-3, epochs=2, tokens_per_batch=256, precision="fp32"
)


def config_for(base: Path, **changes: object) -> TrainConfig:
    return TrainConfig(**{**vars(CONFIG), "base_model": str(base), **changes})


def assert_answers_as_it_was_trained(model: Path, report: TrainReport, attention: str) -> None:
    assert report.facts["attention"] == attention
    assert report.validation_accuracy > 0.8, "the two compositions are easy to tell apart"
    golden = read_golden(model)
    answers = Predictor.load(model, "fp32").predict([entry["sequence"] for entry in golden])
    for entry, answer in zip(golden, answers, strict=True):
        assert answer.location == entry["location"]
        assert answer.probabilities.tolist() == pytest.approx(list(entry["probabilities"].values()), abs=1e-5)
    in_bf16 = Predictor.load(model, "bf16").predict([entry["sequence"] for entry in golden])
    for exact, rounded in zip(answers, in_bf16, strict=True):
        assert rounded.probabilities.tolist() == pytest.approx(exact.probabilities.tolist(), abs=0.02)


@pytest.mark.parametrize(("family", "attention"), [("esm", "packed"), ("roformer", "padded")])
def test_a_published_folder_is_trained_saved_loaded_and_answers(
    make_token_folder, tmp_path: Path, family: str, attention: str
) -> None:
    base = write_esm_base(tmp_path / "base") if family == "esm" else write_base(tmp_path / "base", family)
    with new_folder(tmp_path / "model", "train", CONFIG) as draft:
        job = Job(
            tokens=str(make_token_folder()),
            model=str(draft.path),
            config=config_for(base),
            base=find_base(str(base), "", tmp_path),
            dataset_digest="",
            label_set="custom",
            labels=LABELS,
            max_residues=0,
            cut="head_tail",
        )
        report = run_rank(job, Ranks(0, 1, torch.device("cpu")))
    assert report is not None
    assert_answers_as_it_was_trained(tmp_path / "model", report, attention)


@pytest.mark.integration
def test_two_processes_train_an_esm_as_one_does(make_token_folder, tmp_path: Path) -> None:
    """ESM's contact head, on which no answer depends, must not leave ranks waiting for its gradient."""
    tokens, base = make_token_folder(), write_esm_base(tmp_path / "base")
    reports = {}
    for count in (1, 2):
        config = config_for(base, num_processes=count, head_dropout=0.0)
        reports[count] = train(tokens, tmp_path / f"model-{count}", config)
        assert_answers_as_it_was_trained(tmp_path / f"model-{count}", reports[count], "packed")
    assert reports[2].validation_loss == pytest.approx(reports[1].validation_loss, rel=1e-4)
    ours, theirs = (load_model(tmp_path / f"model-{count}")[0].state_dict() for count in (1, 2))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-3, msg=name)
