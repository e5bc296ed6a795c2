import numpy as np
import pytest

from prottune import alphabet
from prottune.errors import ConfigError, DataError


def test_the_vocabulary_is_protberts():
    assert len(alphabet.VOCABULARY) == 30
    assert alphabet.VOCABULARY[:6] == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "L")
    assert [alphabet.VOCABULARY.index(letter) for letter in "MKTAXO"] == [21, 12, 15, 6, 25, 29]


@pytest.mark.parametrize(
    ("written", "residues"),
    [
        ("MKTA", "MKTA"),
        ("mkta", "MKTA"),
        ("M K T A", "MKTA"),
        (" MK\r\nTA\t", "MKTA"),
        ("MUZOBJ", "MXXXXX"),
        ("muzobj", "MXXXXX"),
        ("X", "X"),
    ],
)
def test_clean_spells_a_sequence_one_way(written, residues):
    assert alphabet.clean(written) == residues


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("", "the sequence is empty; expected at least one residue"),
        (" \n\t", "the sequence is empty"),
        ("MK*", "'\\*' at residue 3 is no amino acid"),
        ("MK1TA", "'1' at residue 3"),
        ("M K -", "'-' at residue 3"),
        ("MK\x01TA", "at residue 3"),
        ("MK\u00c4", "at residue 3"),
        ("[CLS]", "'\\[' at residue 1"),
    ],
)
def test_clean_refuses_what_is_no_residue_by_position(written, words):
    with pytest.raises(DataError, match=words):
        alphabet.clean(written)


def test_encode_lays_proteins_side_by_side_with_their_special_tokens():
    ids, offsets = alphabet.encode(["MKTA", "X"])
    assert ids.dtype == np.uint8
    assert ids.tolist() == [2, 21, 12, 15, 6, 3, 2, 25, 3]
    assert offsets.tolist() == [0, 6, 9]


def test_encode_of_nothing_is_nothing():
    ids, offsets = alphabet.encode([])
    assert ids.tolist() == []
    assert offsets.tolist() == [0]


def test_the_table_marks_what_is_no_residue_as_unknown():
    assert list(b"\x01Ma*\x00\x02\xff".translate(alphabet.TABLE)) == [2, 21, 1, 1, 1, 3, 1]


@pytest.mark.parametrize(
    ("policy", "max_residues", "kept"),
    [
        ("head_tail", 4, "ABIJ"),
        ("head_tail", 5, "ABCIJ"),
        ("head_tail", 1, "A"),
        ("head", 4, "ABCD"),
        ("tail", 4, "GHIJ"),
        ("tail", 1, "J"),
        ("head_tail", 10, "ABCDEFGHIJ"),
        ("head", 11, "ABCDEFGHIJ"),
        ("tail", 0, "ABCDEFGHIJ"),
    ],
)
def test_cut_keeps_the_ends_that_the_policy_names(policy, max_residues, kept):
    assert alphabet.cut("ABCDEFGHIJ", max_residues, policy) == kept


def test_cut_refuses_an_unknown_policy_and_a_negative_length():
    with pytest.raises(ConfigError, match="cut='middle': expected one of head_tail, head, tail"):
        alphabet.cut("MK", 1, "middle")
    with pytest.raises(ConfigError, match=r"max_residues=-1: expected 1 to 2\^31 - 1, or 0 for whole"):
        alphabet.cut("MK", -1, "head")


@pytest.mark.parametrize("letter", ["\u0131", "\u017f", "\u00df", "\uff2d"])
def test_letters_of_other_alphabets_never_become_residues(letter: str) -> None:
    with pytest.raises(DataError, match="at residue 3 is no amino acid"):
        alphabet.clean(f"MK{letter}T")
