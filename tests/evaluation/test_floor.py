"""The floor: each feature by value, the answers by label set, and the known score on the real proteins."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from prottune.alphabet import STANDARD_RESIDUES, clean
from prottune.errors import DataError
from prottune.evaluation.floor import NUM_FEATURES, Floor, fit_floor, floor_features
from prottune.fasta import read_fasta
from prottune.records import DEEPLOC10

DIPEPTIDES, LENGTH, FIRST, LAST, TAIL = 20, 420, 421, 501, 581
"""Where each block of features begins."""
WINDOWS = (10, 20, 40, 80)
IS_A = {letter: index for index, letter in enumerate(STANDARD_RESIDUES)}


def features_by_hand(sequence: str) -> list[float]:
    """The recipe once more, slowly, as one would write it on paper."""

    def composition(residues: str) -> list[float]:
        return [residues.count(letter) / len(residues) for letter in STANDARD_RESIDUES]

    pairs = [sequence[at : at + 2] for at in range(len(sequence) - 1)]
    features = composition(sequence)
    features += [
        pairs.count(a + b) / max(len(pairs), 1) for a in STANDARD_RESIDUES for b in STANDARD_RESIDUES
    ]
    features.append(math.log(len(sequence)))
    for window in WINDOWS:
        features += composition(sequence[:window])
    for window in WINDOWS:
        features += composition(sequence[-window:])
    for place in range(1, 7):
        letter = sequence[-place] if place <= len(sequence) else ""
        features += [float(letter == other) for other in STANDARD_RESIDUES]
    return features


def test_composition_and_length_count_every_residue():
    (features,) = floor_features(["AAAC"])
    assert features[IS_A["A"]] == 0.75
    assert features[IS_A["C"]] == 0.25
    assert features[:20].sum() == 1.0
    assert features[LENGTH] == math.log(4)


def test_dipeptides_are_ordered_and_never_span_two_proteins():
    first, second = floor_features(["AAC", "CW"])
    assert first[DIPEPTIDES + 20 * IS_A["A"] + IS_A["A"]] == 0.5
    assert first[DIPEPTIDES + 20 * IS_A["A"] + IS_A["C"]] == 0.5
    assert first[DIPEPTIDES + 20 * IS_A["C"] + IS_A["A"]] == 0.0
    assert second[DIPEPTIDES + 20 * IS_A["C"] + IS_A["W"]] == 1.0
    assert first[DIPEPTIDES:LENGTH].sum() == second[DIPEPTIDES:LENGTH].sum() == 1.0


def test_terminal_windows_see_only_their_end():
    (features,) = floor_features(["A" * 10 + "C" * 5 + "D" * 10])
    assert features[FIRST + IS_A["A"]] == 1.0
    assert features[FIRST + 20 + IS_A["A"]] == 0.5
    assert features[FIRST + 20 + IS_A["C"]] == 0.25
    assert features[FIRST + 40 + IS_A["A"]] == 0.4, "shorter than 40: the protein is its own window"
    assert features[LAST + IS_A["D"]] == 1.0
    assert features[LAST + 20 + IS_A["C"]] == 0.25


def test_the_last_six_residues_are_read_from_the_end():
    (features,) = floor_features(["WWWSKL"])
    tail = features[TAIL:].reshape(6, 20)
    assert [STANDARD_RESIDUES[row.argmax()] for row in tail] == list("LKSWWW")
    assert tail.sum() == 6.0


def test_letters_that_are_no_standard_residue_count_in_lengths_only():
    (features,) = floor_features(["AXAU"])
    assert features[IS_A["A"]] == 0.5
    assert features[:20].sum() == 0.5
    assert features[DIPEPTIDES:LENGTH].sum() == 0.0
    assert features[TAIL:].reshape(6, 20).sum(axis=1).tolist() == [0, 1, 0, 1, 0, 0]


def test_features_equal_the_recipe_written_out_slowly():
    generator = np.random.default_rng(43)
    letters = np.array(list(STANDARD_RESIDUES + "X"))
    lengths = [1, 2, 5, 6, 7, 10, 11, 79, 80, 81, 200, 431]
    sequences = ["".join(generator.choice(letters, length)) for length in lengths]
    features = floor_features(sequences)
    assert features.shape == (len(lengths), NUM_FEATURES)
    np.testing.assert_allclose(features, [features_by_hand(sequence) for sequence in sequences], rtol=1e-12)


def test_an_empty_sequence_is_refused_by_its_place():
    with pytest.raises(DataError, match="sequence 2 is empty"):
        floor_features(["MK", "", "MK"])


def toy_floor() -> Floor:
    return fit_floor(
        ["KKKKRKKR", "KRKRKKKK", "LLLLVLLV", "LVLVLLLL"], np.array([4, 4, 1, 1]), num_locations=6
    )


def test_answers_are_in_label_set_order_and_absent_locations_get_nothing():
    probabilities = toy_floor().probabilities(["KKKKKKKK", "LLLLLLLL"])
    assert probabilities.argmax(axis=1).tolist() == [4, 1]
    assert probabilities[:, [0, 2, 3, 5]].tolist() == [[0, 0, 0, 0]] * 2
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_no_protein_gets_no_answer():
    assert toy_floor().probabilities([]).shape == (0, 6)


def test_the_floor_is_deterministic():
    again = [toy_floor().probabilities(["KLKLKLKV"]).tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_one_location_alone_is_refused():
    with pytest.raises(DataError, match="all training proteins are in one location"):
        fit_floor(["MK", "MR"], np.array([3, 3]), num_locations=10)


def real_proteins(path: Path, *, is_test: bool) -> tuple[list[str], np.ndarray]:
    """The real file's proteins without the 23 Cytoplasm-Nucleus ones, which it spells Cytoplasm-U."""
    sequences, labels = [], []
    with path.open("rb") as stream:
        for record in read_fasta(stream, path.name):
            _, place, *rest = record.header.split()
            if (rest == ["test"]) == is_test and (is_test or place != "Cytoplasm-U"):
                sequences.append(clean(record.sequence))
                labels.append(DEEPLOC10.index(place.rpartition("-")[0]))
    return sequences, np.array(labels)


@pytest.mark.integration
def test_the_floor_on_the_official_test_is_the_known_one(deeploc_fasta: Path):
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    train_sequences, train_labels = real_proteins(deeploc_fasta, is_test=False)
    test_sequences, test_labels = real_proteins(deeploc_fasta, is_test=True)
    assert (len(train_sequences), len(test_sequences)) == (10_908, 2_773)
    floor = fit_floor(train_sequences, train_labels, len(DEEPLOC10))
    answers = floor.probabilities(test_sequences).argmax(axis=1)
    assert accuracy_score(test_labels, answers) == pytest.approx(0.578, abs=0.002)
    assert f1_score(test_labels, answers, average="macro") == pytest.approx(0.441, abs=0.002)
    assert matthews_corrcoef(test_labels, answers) == pytest.approx(0.486, abs=0.002)
