"""Residues -> token ids: the one preprocessing, shared by training, evaluation, prediction and serving."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prottune.errors import DataError

VOCABULARY: tuple[str, ...] = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *"LAGVESIKRDTPNQFYMHCWXUBZO",
)
"""ProtBERT's tokens; a token's position is its id. Source: Rostlab/prot_bert `vocab.txt` (81 bytes)."""

PAD_ID, UNK_ID, CLS_ID, SEP_ID, MASK_ID = range(5)
STANDARD_RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
RARE_RESIDUES = "UZOBJ"
"""Letters that become X. U, Z, O and B as in ProtTrans; J has no token at all."""

NUM_SPECIAL_TOKENS = 2
"""[CLS] before and [SEP] after the residues."""

_RESIDUES = STANDARD_RESIDUES + "X" + RARE_RESIDUES
_CLS_BYTE, _SEP_BYTE = b"\x01", b"\x02"


def _translation_table() -> bytes:
    """256 bytes: the id of each letter, [UNK] for all else; two control bytes stand for [CLS] and [SEP]."""
    table = bytearray([UNK_ID] * 256)
    for letter in _RESIDUES:
        spelled = "X" if letter in RARE_RESIDUES else letter
        table[ord(letter)] = VOCABULARY.index(spelled)
    table[_CLS_BYTE[0]], table[_SEP_BYTE[0]] = CLS_ID, SEP_ID
    return bytes(table)


_TABLE = _translation_table()

ALPHABET_SHA256 = hashlib.sha256("\n".join(VOCABULARY).encode() + _TABLE).hexdigest()
"""Identity of vocabulary and letter table; a model refuses to be read with another one."""


def clean(sequence: str) -> str:
    """Spell a sequence as prottune reads it: white space removed, upper case, U Z O B J -> X.

    Raises: DataError naming the first character that is no residue and its position (from 1), or that
        nothing is left.
    """
    residues = "".join(sequence.split()).upper()
    if not residues:
        raise DataError("the sequence is empty; expected at least one residue")
    for position, letter in enumerate(residues, start=1):
        if letter not in _RESIDUES:
            raise DataError(
                f"{letter!r} at residue {position} is no amino acid; expected letters of {_RESIDUES}"
            )
    return residues.translate({ord(letter): "X" for letter in RARE_RESIDUES})


def encode(sequences: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Turn clean sequences into ids: one flat buffer, and the offsets at which each protein begins.

    Protein i is `ids[offsets[i]:offsets[i + 1]]`, [CLS] and [SEP] included. Sequences must be `clean`.
    """
    offsets = np.zeros(len(sequences) + 1, np.int64)
    if not sequences:
        return np.zeros(0, np.uint8), offsets
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    np.cumsum(lengths + NUM_SPECIAL_TOKENS, out=offsets[1:])
    joined = (_SEP_BYTE + _CLS_BYTE).join(sequence.encode("ascii") for sequence in sequences)
    flat = (_CLS_BYTE + joined + _SEP_BYTE).translate(_TABLE)
    return np.frombuffer(flat, np.uint8), offsets
