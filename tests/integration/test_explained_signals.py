"""A model that learnt the sample explains its answers by the sorting signals, an untrained one does not."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipelines.demo import SETTINGS
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.stage import ingest
from prottune.model.attribution import Attribution, attribute
from prottune.model.base import load_base
from prottune.model.folder import load_model
from prottune.model.inference import Predictor
from prottune.records import Protein, Split, read_proteins
from prottune.sample import SIGNALS_FILE, SampleConfig, write_sample
from prottune.tokenization import TokenizeConfig, tokenize
from prottune.training.settings import TrainConfig
from prottune.training.stage import train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

MIN_ENRICHMENT = 3
"""So many times its share of the length must a signal's share of what speaks for the answer be."""
MIN_SHARE_OF_PROTEINS = 0.8
NUM_PROTEINS = 200
"""Asked for an explanation, of those whose signals leave room for so much: a third of the length or less."""

Signals = Mapping[str, list[tuple[int, int]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample, its records and tokens, and the demo's model of it."""
    folder = tmp_path_factory.mktemp("signals")
    write_sample(folder / "sample.fasta", SampleConfig())
    ingest(str(folder / "sample.fasta"), folder / "records", IngestConfig())
    tokenize(folder / "records", folder / "tokens", TokenizeConfig())
    train(folder / "tokens", folder / "model", TrainConfig(**SETTINGS))  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def signals(folder: Path) -> Signals:
    """First and last residue of every signal, by accession."""
    found: dict[str, list[tuple[int, int]]] = {}
    rows = (folder / SIGNALS_FILE).read_text(encoding="ascii").splitlines()[2:]
    for accession, first, last in (row.split("\t") for row in rows):
        found.setdefault(accession, []).append((int(first), int(last)))
    return found


@pytest.fixture(scope="module")
def marked(folder: Path, signals: Signals) -> list[Protein]:
    """Test proteins whose signals take a third of it or less: others have no room for three times that."""
    proteins = read_proteins(folder / "records", [Split.TEST])
    return [
        protein
        for protein in proteins
        if 0
        < in_signals(protein.num_residues, signals.get(protein.accession, [])).mean()
        <= 1 / MIN_ENRICHMENT
    ]


def in_signals(num_residues: int, ranges: list[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """True for the residues of the signals, [R]."""
    is_signal_R = np.zeros(num_residues, bool)
    for first, last in ranges:
        is_signal_R[first - 1 : last] = True
    return is_signal_R


def enrichment(found: Attribution, ranges: list[tuple[int, int]]) -> float:
    """How many times as much speaks for the answer in the signals as their length would have by chance."""
    is_signal_R = in_signals(len(found.scores_R), ranges)
    for_it_R = np.maximum(found.scores_R, 0.0)
    return float(for_it_R[is_signal_R].sum() / for_it_R.sum() / is_signal_R.mean())


def test_what_speaks_for_a_right_answer_lies_in_the_signal(
    folder: Path, marked: list[Protein], signals: Signals
) -> None:
    predictor = Predictor.load(folder / "model", "fp32")
    answers = predictor.predict([protein.sequence for protein in marked])
    right = [
        protein
        for protein, answer in zip(marked, answers, strict=True)
        if answer.location == protein.location
    ][:NUM_PROTEINS]
    assert len(right) == NUM_PROTEINS
    found = [attribute(predictor, protein.sequence) for protein in right]
    assert all(attribution.is_complete for attribution in found)
    enriched = [
        enrichment(attribution, signals[protein.accession]) >= MIN_ENRICHMENT
        for protein, attribution in zip(right, found, strict=True)
    ]
    assert np.mean(enriched) >= MIN_SHARE_OF_PROTEINS


def test_a_model_that_learnt_nothing_does_not_pass(
    folder: Path, marked: list[Protein], signals: Signals
) -> None:
    _, description = load_model(folder / "model")
    torch.manual_seed(0)
    blank = load_base(SETTINGS["base_model"], "", description.head, description.labels, 0.0)
    predictor = Predictor(blank, description)
    enriched = [
        enrichment(attribute(predictor, protein.sequence, protein.location), signals[protein.accession])
        for protein in marked[:40]
    ]
    assert np.mean(np.array(enriched) >= MIN_ENRICHMENT) < MIN_SHARE_OF_PROTEINS / 2
