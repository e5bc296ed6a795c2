"""What the last act of training leaves in the model folder: thresholds, and answers that follow them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy_proteins import write_base, write_toy

from prottune.alphabet import VOCABULARY
from prottune.artifacts import new_folder, read_manifest
from prottune.evaluation.strangers import score_unlike_training
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.stage import ingest
from prottune.model.base import find_base
from prottune.model.calibration import NOBODY
from prottune.model.folder import load_model
from prottune.model.golden import read_golden
from prottune.model.inference import Predictor
from prottune.records import Split, read_proteins, read_tokens
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


def sequences_of(tokens: Path, split: Split) -> list[str]:
    rows = read_tokens(tokens).to_pylist()
    return ["".join(VOCABULARY[token] for token in row["ids"][1:-1]) for row in rows if row["split"] == split]


@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_model_flags_what_was_set_apart_in_training(
    kind: str, make_token_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """Of 12 validation proteins only the least recognised one lies beyond what 99 % keep within."""
    tokens = make_token_folder(membrane="MSUX")
    folder = trained(tokens, tmp_path / "model", replace(CONFIG, **KINDS[kind]))
    predictor = Predictor.load(folder, "fp32")
    answers = predictor.predict(sequences_of(tokens, Split.VALIDATION))
    assert len(answers) == 12
    least = max(answers, key=lambda answer: answer.unlikeness)
    assert [answer.unlike_training for answer in answers] == [answer is least for answer in answers]

    golden = read_golden(folder)
    answers = predictor.predict([entry["sequence"] for entry in golden])
    for name in ("confident", "unlike_training"):
        assert [entry[name] for entry in golden] == [getattr(answer, name) for answer in answers]


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


def test_a_model_that_has_learned_recognises_proteins_more_than_strangers(tmp_path: Path) -> None:
    """Small made-up proteins whose spacing tells their location; strangers have other spacings."""
    source = write_toy(tmp_path / "toy.fasta")
    ingest(str(source), tmp_path / "records", IngestConfig())
    tokenize(tmp_path / "records", tmp_path / "tokens", TokenizeConfig())
    base = str(write_base(tmp_path / "base"))
    rates = {"learning_rate": 3e-3, "head_learning_rate": 3e-3}
    config = replace(CONFIG, base_model=base, head="attention", epochs=4, tokens_per_batch=1024, **rates)
    folder = trained(tmp_path / "tokens", tmp_path / "model", config)
    sequences = [protein.sequence for protein in read_proteins(tmp_path / "records", [Split.TEST])]
    found = score_unlike_training(Predictor.load(folder, "fp32"), sequences, seed=1)
    assert found is not None
    assert found["random"]["auroc"] > 0.9
    assert found["shuffled"]["auroc"] > 0.9
    assert found["share_flagged"] < 0.1
