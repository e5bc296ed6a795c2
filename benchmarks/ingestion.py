"""How fast a FASTA file becomes the table of tokens, beside Biopython and the usual tokenizer.

One thread, processor time, warm file cache, everything in memory; clustering is left out on both sides.
Both sides hash the file and each sequence, parse DeepLoc's headers and sort by accession; their tables are
checked to be equal. Ours also applies the rules of docs/data.md, which the peer does not.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from transformers import BertTokenizer

from benchmarks.proteins import sampled, sequences, write_fasta
from benchmarks.rows import NotRun, Options, Row
from benchmarks.timing import in_turns, processor_time
from benchmarks.tokenization import write_vocabulary
from prottune.alphabet import RARE_RESIDUES
from prottune.fasta import read_fasta
from prottune.ingestion.checks import CYTOPLASM_NUCLEUS
from prottune.ingestion.findings import Findings
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.sources import take_source
from prottune.ingestion.stage import checked_entries
from prottune.records import Split
from prottune.tokenization import TokenizeConfig, token_table

_PEER_PROTEINS = {"full": 500, "quick": 200}
_REPETITIONS = {"full": 9, "quick": 3}
_GOAL_MEGABYTES = 150
_MAX_BYTES = 1 << 31
_COLUMNS = ("accession", "ids", "label", "membrane", "split", "num_residues", "sequence_sha256")
_RARE_TO_X = str.maketrans(dict.fromkeys(RARE_RESIDUES, "X"))

PLANNED = (
    Row(
        name="ingest",
        what="FASTA file to token table, no clustering",
        unit="MB/s",
        peer_name="Biopython's `SimpleFastaParser`, then `BertTokenizer` batched",
        limit_name="reading the file's bytes",
        goal=50,
    ),
    Row(
        name="ingest",
        what="FASTA file to token table, in MB/s",
        unit="MB/s",
        peer_name="",
        limit_name="reading the file's bytes",
        ratio_of=f"ours / {_GOAL_MEGABYTES} MB/s",
        goal=1,
    ),
)


def rows(options: Options) -> list[Row]:
    try:
        from Bio.SeqIO.FastaIO import SimpleFastaParser  # noqa: F401 - asked for here, before any work
    except ImportError:
        raise NotRun("not run: the peer needs the package biopython") from None
    mode = "quick" if options.quick else "full"
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole, part = folder / "whole.fasta", folder / "part.fasta"
        if options.source:
            whole.write_bytes(options.source.read_bytes())
            _write_part(options.source, part, _PEER_PROTEINS[mode])
        else:
            proteins = sequences(options)
            write_fasta(proteins, whole)
            write_fasta(sampled(proteins, _PEER_PROTEINS[mode]), part)
        tokenizer = BertTokenizer.from_pretrained(write_vocabulary(folder / "tokenizer"), do_lower_case=False)
        check_equal(ours_table(part, folder), peer_table(part, tokenizer))
        ways = {
            "ours": processor_time(lambda: ours_table(whole, folder)),
            "peer": processor_time(lambda: peer_table(part, tokenizer)),
            "read": processor_time(whole.read_bytes),
            "hash the file": processor_time(lambda: hashlib.sha256(whole.read_bytes())),
        }
        samples = in_turns(ways, _REPETITIONS[mode])
        megabytes = {name: whole.stat().st_size / 1e6 for name in ways}
        megabytes["peer"] = part.stat().st_size / 1e6
    speed = {name: megabytes[name] / found.median for name, found in samples.items()}
    more: dict[str, Any] = {
        "samples": samples,
        "limit": speed["read"],
        "facts": {"megabytes_per_second": speed},
    }
    ours, peer = speed["ours"], speed["peer"]
    found = [
        PLANNED[0].measured(ours=ours, peer=peer, ratio=ours / peer, compared=("ours", "peer"), **more),
        PLANNED[1].measured(ours=ours, peer=None, ratio=ours / _GOAL_MEGABYTES, compared=("ours",), **more),
    ]
    source = "real" if options.source else "random"
    scale = f"{megabytes['ours']:.1f} MB of {source} proteins, the peer reads {megabytes['peer']:.2f} MB"
    return [replace(row, scale=scale, clock="processor time, one thread") for row in found]


def ours_table(fasta: Path, folder: Path) -> pa.Table:
    """What ingest and tokenize do, one after the other, without clusters and without files in between."""
    findings = Findings()
    with TemporaryDirectory(dir=folder) as scratch:
        taken = take_source(str(fasta), Path(scratch), _MAX_BYTES, "", findings)
        entries, labels = checked_entries(taken, IngestConfig(on_conflict="drop"), findings)
    proteins = entries.as_proteins(entries["split"], clusters=entries["accession"])
    return token_table(proteins, list(labels.locations), TokenizeConfig())


def peer_table(fasta: Path, tokenizer: BertTokenizer) -> list[dict[str, Any]]:
    """What people write with Biopython and ProtBERT's tokenizer for DeepLoc's headers; by accession."""
    from Bio.SeqIO.FastaIO import SimpleFastaParser

    from prottune.records import DEEPLOC10

    hashlib.sha256(fasta.read_bytes()).hexdigest()
    table = []
    with fasta.open(encoding="utf-8") as stream:
        for title, sequence in SimpleFastaParser(stream):
            accession, place, *word = title.split()
            location, _, membrane = place.rpartition("-")
            residues = sequence.upper().translate(_RARE_TO_X)
            table.append(
                {
                    "accession": accession,
                    "residues": residues,
                    "label": DEEPLOC10.index("Cytoplasm" if location == CYTOPLASM_NUCLEUS else location),
                    "membrane": "U" if membrane == "X" else membrane,
                    "split": (Split.TEST if word == ["test"] else Split.TRAIN).value,
                    "num_residues": len(residues),
                    "sequence_sha256": hashlib.sha256(residues.encode()).hexdigest(),
                }
            )
    table.sort(key=lambda row: row["accession"])
    ids = tokenizer([" ".join(row.pop("residues")) for row in table])["input_ids"]
    return [{**row, "ids": protein} for row, protein in zip(table, ids, strict=True)]


def check_equal(ours: pa.Table, peer: list[dict[str, Any]]) -> None:
    """Make sure that both sides made the same of each protein; ours may leave out what its rules drop."""
    theirs = {row["accession"]: row for row in peer}
    for row in ours.select(_COLUMNS).to_pylist():
        assert row == theirs[row["accession"]], f"{row['accession']}: the peer reads another protein"
    assert len(ours) >= 0.9 * len(peer), f"ours has {len(ours)} of {len(peer)} proteins"


def _write_part(source: Path, part: Path, num_proteins: int) -> None:
    """Every n-th record of a FASTA file, wrapped as they are published."""
    with source.open("rb") as stream:
        records = list(read_fasta(stream, source.name))
    with part.open("w", encoding="utf-8") as out:
        for record in records[:: max(1, len(records) // num_proteins)][:num_proteins]:
            lines = (record.sequence[start : start + 60] for start in range(0, len(record.sequence), 60))
            out.write(f">{record.header}\n" + "".join(f"{line}\n" for line in lines))
