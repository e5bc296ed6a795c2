"""A model that learnt the sample explains its answers by the sorting signals, an untrained one does not.

What exchanging residues does to an answer is another witness: it knows nothing of gradients or signals.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipelines.demo import SETTINGS
from prottune.alphabet import STANDARD_RESIDUES
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
"""Right answers that are explained."""

STRETCH, STEP, NUM_DRAWS, NUM_EXCHANGED = 10, 5, 4, 20
"""Residues that are exchanged at once, how far apart such stretches begin, how often each is, in how many
proteins."""
MIN_AGREEMENT = 0.9
"""Correlation of a stretch's scores with what the answer loses; with a baseline of X it was 0.87."""

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
    """Test proteins with a signal, also one that is too long to hold three times its share."""
    proteins = read_proteins(folder / "records", [Split.TEST])
    return [protein for protein in proteins if protein.accession in signals]


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    """The demo's model, ready to explain."""
    return Predictor.load(folder / "model", "fp32")


@pytest.fixture(scope="module")
def right(predictor: Predictor, marked: list[Protein]) -> list[Protein]:
    """Those that the model places rightly."""
    answers = predictor.predict([protein.sequence for protein in marked])
    pairs = zip(marked, answers, strict=True)
    return [protein for protein, answer in pairs if answer.location == protein.location]


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
    predictor: Predictor, right: list[Protein], signals: Signals
) -> None:
    asked = right[:NUM_PROTEINS]
    assert len(asked) == NUM_PROTEINS
    found = [attribute(predictor, protein.sequence) for protein in asked]
    assert all(attribution.is_complete for attribution in found)
    enriched = [
        enrichment(attribution, signals[protein.accession]) >= MIN_ENRICHMENT
        for protein, attribution in zip(asked, found, strict=True)
    ]
    assert np.mean(enriched) >= MIN_SHARE_OF_PROTEINS


def losses(
    predictor: Predictor, sequence: str, output: int, generator: np.random.Generator
) -> npt.NDArray[np.float64]:
    """How much an answer's centred logit falls when a stretch is exchanged for random residues."""
    changed = [
        sequence[:first] + "".join(letters) + sequence[first + STRETCH :]
        for first in range(0, len(sequence) - STRETCH + 1, STEP)
        for letters in generator.choice(list(STANDARD_RESIDUES), (NUM_DRAWS, STRETCH))
    ]
    answers = predictor.predict([sequence, *changed])
    log_NC = np.log(np.array([answer.probabilities for answer in answers], np.float64))
    centred_N = log_NC[:, output] - log_NC.mean(axis=1)
    lost: npt.NDArray[np.float64] = (centred_N[0] - centred_N[1:]).reshape(-1, NUM_DRAWS).mean(axis=1)
    return lost


def test_the_scores_of_a_stretch_agree_with_what_the_answer_loses_without_it(
    predictor: Predictor, right: list[Protein]
) -> None:
    generator = np.random.default_rng(0)
    agreements = []
    for protein in right[:NUM_EXCHANGED]:
        found = attribute(predictor, protein.sequence)
        output = predictor.labels.index(protein.location)
        lost = losses(predictor, protein.sequence, output, generator)
        scores = [found.scores_R[STEP * place :][:STRETCH].sum() for place in range(len(lost))]
        agreements.append(np.corrcoef(scores, lost)[0, 1])
    assert np.mean(agreements) >= MIN_AGREEMENT


def test_a_model_that_learnt_nothing_does_not_pass(
    folder: Path, marked: list[Protein], signals: Signals
) -> None:
    _, description = load_model(folder / "model")
    torch.manual_seed(0)
    blank = load_base(SETTINGS["base_model"], "", description.head, description.labels, 0.0)
    untrained = Predictor(blank, description)
    enriched = [
        enrichment(attribute(untrained, protein.sequence, protein.location), signals[protein.accession])
        for protein in marked[:40]
    ]
    assert np.mean(np.array(enriched) >= MIN_ENRICHMENT) < MIN_SHARE_OF_PROTEINS / 2
