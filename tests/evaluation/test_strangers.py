"""How well a model tells proteins from what only looks like them, with models whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from prottune.evaluation.strangers import NUM_ASKED, score_unlike_training, strangers

SEQUENCES = ["M" + "K" * number + "L" * (30 - number) for number in range(30)]


@dataclass(frozen=True)
class Said:
    unlikeness: float | None
    unlike_training: bool | None


@dataclass(frozen=True)
class Judge:
    """Finds a sequence as unlike training as a rule says; above 10 it is flagged."""

    rule: Callable[[str], float | None]

    def predict(self, sequences: Sequence[str], /) -> list[Said]:
        found = [self.rule(sequence) for sequence in sequences]
        return [Said(number, None if number is None else number > 10) for number in found]


def num_foreign(sequence: str) -> float:
    return sum(letter not in "MKL" for letter in sequence)


def test_a_stranger_has_the_residues_or_only_the_length_of_its_protein() -> None:
    made = strangers(SEQUENCES, np.random.default_rng(1))
    for sequence, shuffled, random in zip(SEQUENCES, made["shuffled"], made["random"], strict=True):
        assert sorted(shuffled) == sorted(sequence)
        assert len(random) == len(sequence)
    assert sum(made["shuffled"][number] != SEQUENCES[number] for number in range(30)) > 25
    assert len(set("".join(made["random"]))) == 20


def test_a_model_that_counts_foreign_residues_knows_random_ones_and_no_shuffled_ones() -> None:
    assert score_unlike_training(Judge(num_foreign), SEQUENCES, seed=1) == {
        "num_proteins": 30,
        "share_flagged": 0.0,
        "shuffled": {"auroc": 0.5, "share_flagged": 0.0},
        "random": {"auroc": 1.0, "share_flagged": 1.0},
    }


def test_a_model_that_reads_the_order_knows_shuffled_ones() -> None:
    found = score_unlike_training(Judge(lambda sequence: not sequence.startswith("M")), SEQUENCES, seed=1)
    assert found is not None
    assert found["shuffled"]["auroc"] > 0.9
    assert found["random"]["auroc"] > 0.9


def test_the_same_strangers_are_made_for_every_model() -> None:
    asked: list[list[str]] = [[], []]
    for heard in asked:
        score_unlike_training(
            Judge(lambda sequence, heard=heard: heard.append(sequence) or 0.0), SEQUENCES, 7
        )
    assert asked[0] == asked[1]


def test_of_many_proteins_some_are_drawn() -> None:
    found = score_unlike_training(Judge(num_foreign), ["MKLMKLMKLMKLMKLMKL"] * 2000, seed=1)
    assert found is not None
    assert found["num_proteins"] == NUM_ASKED


@pytest.mark.parametrize("rule", [lambda sequence: None, num_foreign])
def test_nothing_is_said_of_a_model_that_does_not_tell_or_of_no_proteins(rule: Callable[..., float]) -> None:
    sequences = [] if rule is num_foreign else SEQUENCES
    assert score_unlike_training(Judge(rule), sequences, seed=1) is None


def test_numbers_that_are_none_are_counted() -> None:
    judge = Judge(lambda sequence: float("nan") if sequence == SEQUENCES[3] else 0.0)
    assert score_unlike_training(judge, SEQUENCES, seed=1) == {"num_proteins": 30, "num_not_finite": 1}
