"""Which scored proteins have a relative among the training proteins: their location can be remembered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from prottune.cache import remember
from prottune.evaluation.exam import Exam
from prottune.evaluation.metrics import Bools
from prottune.homology import (
    MIN_COVERAGE,
    MIN_IDENTITY,
    SEARCH_RULES,
    mmseqs_version,
    nearest_relatives,
)


@dataclass(frozen=True)
class Relatives:
    """The nearest relative of each scored protein in the training split, in the order of `exam.scored`."""

    accessions: list[str | None]
    """None where there is no relative."""
    identities: list[float | None]
    """Share of equal residues in the alignment."""

    @property
    def has_relative(self) -> Bools:
        """True where there is a relative."""
        return np.array([accession is not None for accession in self.accessions], dtype=bool)


def find_relatives(exam: Exam) -> Relatives:
    """Search each scored protein among the training proteins; found again in the cache for the same records.

    Raises: ConfigError if no MMseqs2 binary is installed; ServiceError with its last words if it fails.
    """
    asked = [protein.sequence for protein in exam.scored]
    trained = [protein.sequence for protein in exam.train]
    decided_by = {
        "asked": asked,
        "trained": trained,
        "rules": [*SEARCH_RULES, MIN_IDENTITY, MIN_COVERAGE],
        "mmseqs": mmseqs_version(),
    }

    def search() -> pa.Table:
        with TemporaryDirectory(prefix="prottune-") as scratch:
            found = nearest_relatives(asked, trained, Path(scratch))
        return pa.table(
            {
                "place": pa.array([one and one[0] for one in found], pa.int64()),
                "identity": pa.array([one and one[1] for one in found], pa.float64()),
            }
        )

    table = remember("relatives", decided_by, search)
    places = table["place"].to_pylist()
    accessions = [None if place is None else exam.train[place].accession for place in places]
    return Relatives(accessions, table["identity"].to_pylist())
