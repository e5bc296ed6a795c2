"""A proteome cut into shards that many machines answer at once, and their answers joined and counted again.

A shard is a run of proteins as they stand in the file, of about as many residues as the others. What the cut
wrote down of each shard (how many proteins, and a hash over accessions and lengths in their order) must be
what the joined table holds: every protein has its row, once, at its place, or there is no table.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from prottune.artifacts import Manifest, manifest_of, new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError
from prottune.prediction.page import SUMMARY_FILE, write_pages
from prottune.prediction.reading import Question, opened
from prottune.prediction.settings import MergeConfig, PredictConfig, SplitConfig
from prottune.prediction.stage import PredictReport, predict
from prottune.prediction.tables import Totals, said_of, write_table

ANSWERS_FILE = "answers.parquet"
TABLE_NAME = "predictions"
_SHOWN = 5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What a file was cut into, in plain numbers."""

    shards: tuple[str, ...]
    """Names of the shards, in the order of the file."""
    num_proteins: int
    num_residues: int
    num_skipped: int
    num_stops_removed: int
    largest_share: float
    """Of all residues, in the largest shard."""


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """What the joined table says, in plain numbers."""

    num_proteins: int
    num_residues: int
    num_shards: int
    num_skipped: int
    """Proteins with a character that is no residue, under on_bad=skip."""
    num_stops_removed: int
    num_confident: int
    num_unlike_training: int
    num_truncated: int
    locations: dict[str, int]
    """How many proteins each location got."""
    precisions: tuple[str, ...]
    """What the shards were computed in; more than one where the machines differ and none was asked for."""
    model_digest: str
    summary: str
    """The same in Markdown."""
    seconds: float


def split(source: str, shards: Path, config: SplitConfig) -> SplitReport:
    """Cut a FASTA file into shards of about as many residues each; every protein is checked on the way.

    Raises: ConfigError for a missing file; DataError with file:line for input outside the grammar or
        (on_bad=refuse) with characters that are no residues, and if no protein is left.
    """
    with opened(source, config) as file, new_folder(shards, "split", config, {"source": source}) as draft:
        survey = file.survey()
        questions = file.questions(survey)
        entries = _write_shards(draft.path, questions, config.num_shards, survey.num_residues)
        draft.inputs["source_sha256"] = survey.sha256
        draft.facts |= {
            "shards": entries,
            "num_skipped": survey.num_skipped,
            "num_stops_removed": survey.num_stops_removed,
        }
    return SplitReport(
        shards=tuple(entry["name"] for entry in entries),
        num_proteins=survey.num_proteins,
        num_residues=survey.num_residues,
        num_skipped=survey.num_skipped,
        num_stops_removed=survey.num_stops_removed,
        largest_share=max(entry["num_residues"] for entry in entries) / survey.num_residues,
    )


def predict_shard(
    shards: Path, shard: str, model: Path, answers: Path, config: PredictConfig
) -> PredictReport:
    """Answer one shard with a finished model folder.

    Raises: ConfigError if there is no such shard; ArtifactError if shards or model are damaged.
    """
    cut = read_manifest(shards, "split")
    if shard not in (known := [entry["name"] for entry in cut.facts["shards"]]):
        some = ", ".join(known[:_SHOWN])
        raise ConfigError(f"{shards}: has no shard {shard!r}; it has {some} ({len(known)} in all)")
    inputs = {"shards": cut.digest, "model": manifest_of(model).digest}
    with new_folder(answers, "predict", config, inputs) as draft:
        report = predict(model, str(shards / _fasta_name(shard)), draft.path / ANSWERS_FILE, config)
        draft.facts |= {"shard": shard, "precision": report.precision}
    return report


def merge(shards: Path, answers: Sequence[Path], table: Path, config: MergeConfig) -> MergeReport:
    """Join the answers of all shards to one table, in the order of the file, and count them again.

    `table` is a folder: the table itself, `report.html` and `summary.md`.

    Raises: ArtifactError if a shard's answers are missing, damaged, there twice, of another file or of
        another model than the others', or do not hold every protein of the shard once and in its place.
    """
    begun = time.monotonic()
    cut = read_manifest(shards, "split")
    parts = _parts(cut, answers)
    digest = next(iter(parts.values()))[1].inputs["model"]
    totals = Totals()
    with new_folder(table, "merge", config, {"shards": cut.digest, "model": digest}) as draft:
        output = draft.path / f"{TABLE_NAME}.{config.table_format}"
        schema = pa.parquet.read_schema(next(iter(parts.values()))[0] / ANSWERS_FILE)
        pieces = _checked_rows(cut, {name: folder for name, (folder, _) in parts.items()}, schema)
        write_table(output, output.with_suffix(".unfinished"), schema, _counted(pieces, totals))
        figures: dict[str, Any] = {
            "num_proteins": totals.num_proteins,
            "num_residues": totals.num_residues,
            "num_shards": len(parts),
            "num_skipped": int(cut.facts["num_skipped"]),
            "num_stops_removed": int(cut.facts["num_stops_removed"]),
            "precisions": _precisions(manifest for _, manifest in parts.values()),
            "locations": dict(totals.locations.most_common()),
            **{f"num_{name}": totals.flags[name] for name in totals.flags},
        }
        draft.facts |= figures
        write_pages(draft.path, figures, source=cut.inputs["source"], model_digest=digest)
        summary = (draft.path / SUMMARY_FILE).read_text(encoding="utf-8")
    seconds = time.monotonic() - begun
    return MergeReport(**figures, model_digest=digest, summary=summary, seconds=seconds)


def _write_shards(
    folder: Path, questions: Iterable[Question], num_shards: int, num_residues: int
) -> list[dict[str, Any]]:
    """Write all shards; returns what is to be known of each."""
    entries = []
    for number, (_, group) in enumerate(groupby(_shared(questions, num_shards, num_residues), itemgetter(0))):
        name, order = f"{number:04d}", _Order()
        path = folder / _fasta_name(name)
        with said_of(path), path.open("w", encoding="utf-8") as stream:
            for _, question in group:
                stream.write(f">{question.accession}\n{question.sequence}\n")
                order.add([question.accession], [len(question.sequence)])
        entries.append({"name": name, **order.facts})
    return entries


def _shared(
    questions: Iterable[Question], num_shards: int, num_residues: int
) -> Iterator[tuple[int, Question]]:
    """Each protein with the share of all residues in which its middle lies; shares may be left empty."""
    before = 0
    for question in questions:
        length = len(question.sequence)
        yield (2 * before + length) * num_shards // (2 * num_residues), question
        before += length


class _Order:
    """Counts proteins and hashes their order: equal only if all are there, once each, in their places."""

    def __init__(self) -> None:
        self._num_proteins = self._num_residues = 0
        self._hash = hashlib.sha256()

    def add(self, accessions: Sequence[str], num_residues: Sequence[int]) -> None:
        """Take the next proteins."""
        self._num_proteins += len(accessions)
        self._num_residues += sum(num_residues)
        for accession, number in zip(accessions, num_residues, strict=True):
            self._hash.update(f"{accession}\t{number}\n".encode())

    @property
    def in_words(self) -> str:
        return f"{self._num_proteins:,} proteins, {self._num_residues:,} residues"

    @property
    def facts(self) -> dict[str, Any]:
        """What is written down of a shard, and must be found again in its answers."""
        return {
            "num_proteins": self._num_proteins,
            "num_residues": self._num_residues,
            "order": self._hash.hexdigest(),
        }


def _parts(cut: Manifest, answers: Sequence[Path]) -> dict[str, tuple[Path, Manifest]]:
    """Shard -> its answers, in the order of the file; exactly one for each shard, all of one model.

    Raises: ArtifactError.
    """
    found: dict[str, tuple[Path, Manifest]] = {}
    for folder in answers:
        manifest = read_manifest(folder, "predict")
        shard = manifest.facts["shard"]
        if manifest.inputs["shards"] != cut.digest:
            raise ArtifactError(f"{folder}: answers to shards of another file")
        if shard in found:
            raise ArtifactError(f"{folder}: shard {shard} is answered already, in {found[shard][0]}")
        found[shard] = (folder, manifest)
    names = [entry["name"] for entry in cut.facts["shards"]]
    if missing := [name for name in names if name not in found]:
        raise ArtifactError(
            f"{len(missing)} of {len(names)} shards have no answers: {', '.join(missing[:_SHOWN])}"
        )
    models = {manifest.inputs["model"]: name for name, (_, manifest) in found.items()}
    if len(models) > 1:
        told = ", ".join(f"shard {name} by {model[:12]}" for model, name in models.items())
        raise ArtifactError(f"the shards were answered by {len(models)} models ({told}); run them all again")
    return {name: found[name] for name in names}


def _precisions(answers: Iterable[Manifest]) -> tuple[str, ...]:
    """What the shards were computed in. Several make no wrong table, but none that another run repeats."""
    found = tuple(sorted({manifest.facts["precision"] for manifest in answers}))
    if len(found) > 1:
        _log.warning(
            "the shards were computed in %s, as their machines differ, and another run may score a little "
            "otherwise; precision=fp32 makes a table that can be repeated",
            " and ".join(found),
        )
    return found


def _checked_rows(cut: Manifest, parts: Mapping[str, Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of all shards in their order, a row group at a time, each shard counted when it ends.

    Raises: ArtifactError if a shard's answers are not those of its proteins.
    """
    for entry in cut.facts["shards"]:
        path = parts[entry["name"]] / ANSWERS_FILE
        order = _Order()
        with pa.parquet.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema):
                raise ArtifactError(f"{path}: has other columns than the first shard's answers")
            for number in range(file.num_row_groups):
                rows = file.read_row_group(number)
                order.add(rows["accession"].to_pylist(), rows["num_residues"].to_pylist())
                yield rows
        expected = {name: entry[name] for name in order.facts}
        if order.facts != expected:
            raise ArtifactError(
                f"{path}: {order.in_words}; the shard has {entry['num_proteins']:,} proteins, "
                f"{entry['num_residues']:,} residues, in an order of their own; answer it again"
            )


def _counted(pieces: Iterable[pa.Table], totals: Totals) -> Iterator[pa.Table]:
    for rows in pieces:
        totals.add(rows)
        yield rows


def _fasta_name(shard: str) -> str:
    return f"{shard}.fasta"
