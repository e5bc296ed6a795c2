"""What the last act of training leaves in the model folder, and that the endpoint's model knows strangers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from prottune.artifacts import new_folder, read_manifest
from prottune.evaluation.strangers import score_unlike_training
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.stage import ingest
from prottune.model.base import find_base
from prottune.model.calibration import NOBODY
from prottune.model.folder import load_model
from prottune.model.golden import read_golden
from prottune.model.inference import Predictor
from prottune.model.likeness import LIKENESS_FILE
from prottune.records import Split, read_proteins
from prottune.sample import SampleConfig, write_sample
from prottune.tokenization import TokenizeConfig, tokenize
from prottune.training.job import Job
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig
from prottune.training.worker import run_rank

ALONE = Ranks(0, 1, torch.device("cpu"))
CONFIG = TrainConfig(
    base_model="tiny", head="mean", learning_rate=1e-3, epochs=1, tokens_per_batch=256, precision="fp32"
)
KINDS = {
    "cls": {"head": "cls"},
    "mean": {"head": "mean"},
    "attention": {"head": "attention"},
    "membrane": {"membrane_weight": 0.5},
    "LoRA": {"lora_rank": 2},
    "one vector cached": {"freeze_layers": -1},
    "all residues cached": {"freeze_layers": -1, "head": "attention"},
    "bf16": {"precision": "bf16"},
}


def trained(tokens: Path, folder: Path, config: TrainConfig) -> Path:
    """A finished model folder, made in this process."""
    facts = read_manifest(tokens, "tokenize").facts
    with new_folder(folder, "train", config) as draft:
        run_rank(
            Job(
                tokens=str(tokens),
                model=str(draft.path),
                config=config,
                base=find_base(config.base_model, config.base_revision, folder),
                dataset_digest="",
                label_set=facts["label_set"],
                labels=tuple(facts["labels"]),
                max_residues=facts["max_residues"],
                cut=facts["cut"],
            ),
            ALONE,
        )
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_knows_its_training_proteins_and_flags_what_lies_apart(
    kind: str, make_token_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """The made-up proteins are of six residues each; none of them has a tryptophan."""
    tokens = make_token_folder(membrane="MSUX")
    folder = trained(tokens, tmp_path / "model", replace(CONFIG, **KINDS[kind]))
    assert LIKENESS_FILE in read_manifest(folder, "train").files
    predictor = Predictor.load(folder, "fp32")
    assert predictor.description.unlike_above is not None
    known, foreign = predictor.predict(["KRPSGD" * 5, "W" * 30])
    assert known.unlikeness is not None
    assert foreign.unlikeness is not None
    assert known.unlikeness < foreign.unlikeness
    assert foreign.unlike_training

    golden = read_golden(folder)
    answers = predictor.predict([entry["sequence"] for entry in golden])
    for name in ("confident", "unlike_training"):
        assert [entry[name] for entry in golden] == [getattr(answer, name) for answer in answers]


def test_the_same_training_leaves_the_same_statistics(
    make_token_folder: Callable[..., Path], tmp_path: Path
) -> None:
    tokens = make_token_folder()
    one, two = (
        safetensors.torch.load_file(trained(tokens, tmp_path / name, CONFIG) / LIKENESS_FILE) for name in "ab"
    )
    assert one.keys() == two.keys() == {"centres_CD", "whitening_DD"}
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_threshold_for_confidence_follows_its_setting(
    make_token_folder: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 120 made-up proteins 24 are for validation; a model that can tell them apart may be sure of all."""
    tokens = make_token_folder(num_proteins=120)
    easy = trained(tokens, tmp_path / "easy", replace(CONFIG, confident_accuracy=0.01))
    assert load_model(easy)[1].confident_above < NOBODY
    assert "no answer will be called confident" not in caplog.text
    few = trained(make_token_folder("few tokens"), tmp_path / "few", CONFIG)
    assert load_model(few)[1].confident_above == NOBODY, "12 validation answers are no ground for confidence"
    assert "no answer will be called confident" in caplog.text


def test_on_the_sample_strangers_are_told_from_proteins(tmp_path: Path) -> None:
    """At small scale: 300 synthetic proteins, one epoch."""
    write_sample(tmp_path / "sample.fasta", SampleConfig(num_proteins=300))
    ingest(str(tmp_path / "sample.fasta"), tmp_path / "records", IngestConfig())
    tokenize(tmp_path / "records", tmp_path / "tokens", TokenizeConfig())
    config = replace(CONFIG, head="attention", tokens_per_batch=2048)
    folder = trained(tmp_path / "tokens", tmp_path / "model", config)
    sequences = [protein.sequence for protein in read_proteins(tmp_path / "records", [Split.TEST])]
    found = score_unlike_training(Predictor.load(folder, "fp32"), sequences, seed=1)
    assert found is not None
    assert found["random"]["auroc"] > 0.7
    assert found["shuffled"]["auroc"] > 0.6
    assert found["share_flagged"] < 0.1
