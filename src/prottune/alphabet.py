"""Residues -> token ids: the one preprocessing, shared by training, evaluation, prediction and serving."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prottune.errors import ConfigError, DataError

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

CUT_POLICIES = ("head_tail", "head", "tail")
"""Which residues of a too long protein are kept: both ends, the first, or the last ones."""

_RESIDUES = STANDARD_RESIDUES + "X" + RARE_RESIDUES
CLS_MARK, SEP_MARK = "\x01", "\x02"
"""Control characters that stand for [CLS] and [SEP] in a flat buffer of residues."""


def _translation_table() -> bytes:
    """256 bytes: the id of each letter, [UNK] for all else; two control bytes stand for [CLS] and [SEP]."""
    table = bytearray([UNK_ID] * 256)
    for letter in _RESIDUES:
        spelled = "X" if letter in RARE_RESIDUES else letter
        table[ord(letter)] = VOCABULARY.index(spelled)
    table[ord(CLS_MARK)], table[ord(SEP_MARK)] = CLS_ID, SEP_ID
    return bytes(table)


TABLE = _translation_table()
"""Byte -> id, 256 of them."""

ALPHABET_SHA256 = hashlib.sha256("\n".join(VOCABULARY).encode() + TABLE).hexdigest()
"""Identity of vocabulary and letter table; a model refuses to be read with another one."""


_NO_RESIDUE = re.compile(f"[^{_RESIDUES}{_RESIDUES.lower()}]")
"""Judged before upper-casing, which would turn letters of other alphabets into residues."""
_RARE_TO_X = str.maketrans(dict.fromkeys(RARE_RESIDUES, "X"))


def clean(sequence: str) -> str:
    """Spell a sequence as prottune reads it: white space removed, upper case, U Z O B J -> X.

    Raises: DataError naming the first character that is no residue and its position (from 1), or that
        nothing is left.
    """
    residues = "".join(sequence.split())
    if not residues:
        raise DataError("the sequence is empty; expected at least one residue")
    if stranger := _NO_RESIDUE.search(residues):
        raise DataError(
            f"{stranger[0]!r} at residue {stranger.start() + 1} is no amino acid; "
            f"expected letters of {_RESIDUES}"
        )
    return residues.upper().translate(_RARE_TO_X)


def encode(sequences: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Turn clean sequences into ids: one flat buffer, and the offsets at which each protein begins.

    Protein i is `ids[offsets[i]:offsets[i + 1]]`, [CLS] and [SEP] included. Sequences must be `clean`.
    """
    offsets = np.zeros(len(sequences) + 1, np.int64)
    if not sequences:
        return np.zeros(0, np.uint8), offsets
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    np.cumsum(lengths + NUM_SPECIAL_TOKENS, out=offsets[1:])
    marked = CLS_MARK + (SEP_MARK + CLS_MARK).join(sequences) + SEP_MARK
    return np.frombuffer(marked.encode("ascii").translate(TABLE), np.uint8), offsets


def kept_ends(max_residues: int, policy: str) -> tuple[int, int]:
    """How many residues a cut keeps from the head and from the tail; of an odd number the head gets one more.

    Raises: ConfigError for a policy that is not one of `CUT_POLICIES`, or for a number that is no length.
    """
    if policy not in CUT_POLICIES:
        raise ConfigError(f"cut={policy!r}: expected one of {', '.join(CUT_POLICIES)}")
    if not 0 <= max_residues < 2**31:
        raise ConfigError(f"max_residues={max_residues}: expected 1 to 2^31 - 1, or 0 for whole proteins")
    head = {"head_tail": (max_residues + 1) // 2, "head": max_residues, "tail": 0}[policy]
    return head, max_residues - head


def cut(sequence: str, max_residues: int, policy: str) -> str:
    """Keep at most `max_residues` of a protein's residues; 0 keeps it whole."""
    head, tail = kept_ends(max_residues, policy)
    if max_residues == 0 or len(sequence) <= max_residues:
        return sequence
    return sequence[:head] + sequence[len(sequence) - tail :]
