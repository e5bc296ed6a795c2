"""Each rule of docs/data.md on bad input: accepted with exact counts, or refused in exact words."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from small_store import Store

from prottune.errors import DataError, ProttuneError
from prottune.ingestion.findings import Findings
from prottune.ingestion.settings import IngestConfig
from prottune.ingestion.sources import take_source
from prottune.ingestion.stage import checked_entries
from prottune.ingestion.tables import read_table
from prottune.records import Split

GOOD = b">P1 Nucleus-S\nMKTAYIAK\n>P2 Cytoplasm-U test\nMLLAVLYC\n"
"""Two records after those of a case, so that only the case decides."""
COLUMNS = b"accession,sequence,location,split,membrane\n"
GOOD_ROWS = b"P1,MKTAYIAK,Nucleus,,S\nP2,MLLAVLYC,Cytoplasm,test,\n"


@dataclass(frozen=True)
class Case:
    """A file; either the exact message of its refusal, or the exact counts and records of its acceptance."""

    name: str
    content: bytes
    refusal: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    records: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Accession -> (sequence, location) as ingested; those of `GOOD` need not be named."""
    file: str = "in.fasta"
    settings: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)


def fasta(name: str, content: bytes, refusal: str = "", **more: Any) -> Case:
    """A FASTA case, followed by two good records."""
    return Case(name, content + GOOD, refusal, **more)


def table(name: str, rows: bytes, refusal: str = "", **more: Any) -> Case:
    """A CSV case of all five columns, followed by two good rows."""
    return Case(name, COLUMNS + rows + GOOD_ROWS, refusal, file="in.csv", **more)


def parquet(**columns: Any) -> bytes:
    """The bytes of a Parquet file with these columns."""
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


LETTERS = "expected amino acid letters only"
HEADER = "training needs '>ACCESSION Location-M|S|U [test]'"
SPLITS = "expected test, new_test_set, or nothing for training"
ACCESSION = "expected one word without '|', or sp|ACCESSION|NAME"

HEADERS = [
    fasta("train header", b">Q5I0E9 Cell.membrane-M\nMKV\n", records={"Q5I0E9": ("MKV", "Cell.membrane")}),
    fasta(
        "test header",
        b">Q9SMX3 Mitochondrion-M test\nMKV\n",
        records={"Q9SMX3": ("MKV", "Mitochondrion")},
        splits={"Q9SMX3": Split.TEST},
    ),
    fasta("the word train", b">Q1 Plastid-U train\nMKV\n", splits={"Q1": Split.TRAIN}),
    fasta(
        "slash in the location",
        b">P53747 Lysosome/Vacuole-M test\nMKV\n",
        records={"P53747": ("MKV", "Lysosome/Vacuole")},
    ),
    fasta("dash in the id", b">P22462-2 Nucleus-U\nMKV\n", records={"P22462-2": ("MKV", "Nucleus")}),
    fasta(
        "X as membrane flag",
        b">Q1 Nucleus-X\nMKV\n>Q2 Golgi.apparatus-X test\nMKL\n",
        counts={"no_membrane_flag": 2},
    ),
    fasta("trailing blanks", b">Q1 Nucleus-U test \nMKV \n", splits={"Q1": Split.TEST}),
    fasta("tab between words", b">Q1\tNucleus-U\ttest\nMKV\n", splits={"Q1": Split.TEST}),
    fasta(
        "Cytoplasm-Nucleus is Cytoplasm",
        b">Q1 Cytoplasm-Nucleus-U\nMKV\n",
        counts={"cytoplasm_nucleus": 1},
        records={"Q1": ("MKV", "Cytoplasm")},
    ),
    fasta(
        "Cytoplasm-Nucleus dropped by setting",
        b">Q1 Cytoplasm-Nucleus-U\nMKV\n",
        counts={"cytoplasm_nucleus_dropped": 1},
        settings={"on_cytoplasm_nucleus": "drop"},
    ),
    fasta(
        "Cytoplasm-Nucleus in other cases",
        b">Q1 cytoplasm-nucleus-U\nMKV\n>Q2 CYTOPLASM-Nucleus-U\nMKL\n>Q3 Cytoplasm-Nucleus-U\nMKI\n",
        counts={"cytoplasm_nucleus": 3},
        records={"Q1": ("MKV", "Cytoplasm"), "Q2": ("MKL", "Cytoplasm"), "Q3": ("MKI", "Cytoplasm")},
    ),
    fasta(
        "Cytoplasm-Nucleus in another case dropped by setting",
        b">Q1 cytoplasm-nucleus-U\nMKV\n",
        counts={"cytoplasm_nucleus_dropped": 1},
        settings={"on_cytoplasm_nucleus": "drop"},
    ),
    fasta(
        "new_test_set never trains",
        b">Q12981 Endoplasmic.reticulum-U new_test_set \nMKV\n",
        counts={"external_test_dropped": 1},
    ),
    fasta(
        "unknown third word",
        b">Q1 Nucleus-U holdout\nMKV\n",
        f"in.fasta:1: split 'holdout'; {SPLITS}",
    ),
    fasta("Test is not test", b">Q1 Nucleus-U Test\nMKV\n", f"in.fasta:1: split 'Test'; {SPLITS}"),
    fasta(
        "words after the split",
        b">Q1 Nucleus-U test really\nMKV\n",
        f"in.fasta:1: split 'test really'; {SPLITS}",
    ),
    fasta(
        "unknown membrane flag",
        b">Q1 Nucleus-Q\nMKV\n",
        "in.fasta:1: membrane flag 'Q'; expected M (bound), S (soluble), U or X (unknown)",
    ),
    fasta(
        "lower-case membrane flag",
        b">Q1 Nucleus-m\nMKV\n",
        f"in.fasta:1: a header without a location, 'Q1 Nucleus-m'; {HEADER}",
    ),
    fasta(
        "location without flag",
        b">Q1 Nucleus\nMKV\n",
        f"in.fasta:1: a header without a location, 'Q1 Nucleus'; {HEADER}",
    ),
    fasta(
        "bare header",
        b">my_protein_7\nMKV\n",
        f"in.fasta:1: a header without a location, 'my_protein_7'; {HEADER}",
    ),
    fasta(
        "UniProt header",
        b">sp|Q4JIM5|ABL2_MOUSE Tyrosine-protein kinase ABL2 OS=Mus musculus GN=Abl2 PE=1 SV=1\nMKV\n",
        "in.fasta:1: a UniProt header without a location, "
        f"'sp|Q4JIM5|ABL2_MOUSE Tyrosine-protein kinase ABL2 OS=Mus mus'; {HEADER}",
    ),
    fasta(
        "UniProt id with DeepLoc's location",
        b">tr|Q4JIM5|ABL2_MOUSE Nucleus-S test\nMKV\n",
        records={"Q4JIM5": ("MKV", "Nucleus")},
        splits={"Q4JIM5": Split.TEST},
    ),
    fasta(
        "DeepLocPro header",
        b">A0A1|Periplasmic|negative\nMKV\n>A0A2|Cellwall|positive\nMKL\n",
        "in.fasta:1: headers of the form accession|label|group belong to another label space (seen: "
        "Cellwall, "
        "Periplasmic); expected '>ACCESSION Location-M|S|U [test]'",
    ),
    fasta(
        "a UniProt id of a blank",
        b">sp|\xc2\xa0|ABL2_MOUSE Nucleus-S\nMKV\n",
        f"in.fasta:1: accession 'sp|'; {ACCESSION}",
    ),
    fasta(
        "an endless UniProt id",
        b">tr|" + b"Q" * 5000 + b"|ABL2_MOUSE Nucleus-S\nMKV\n",
        f"in.fasta:1: accession '{'Q' * 40}' of 5,000 characters; expected 1 to 100 characters",
    ),
    fasta("bar in the id", b">gi|123 Nucleus-U\nMKV\n", f"in.fasta:1: accession 'gi|123'; {ACCESSION}"),
    fasta(
        "endless id",
        b">" + b"Q" * 101 + b" Nucleus-U\nMKV\n",
        f"in.fasta:1: accession '{'Q' * 40}' of 101 characters; expected 1 to 100 characters",
    ),
    fasta(
        "biotrainer header",
        b">Seq1 TARGET=Golgi.apparatus SET=test VALIDATION=False\nMKV\n",
        records={"Seq1": ("MKV", "Golgi.apparatus")},
        splits={"Seq1": Split.TEST},
    ),
    fasta(
        "biotrainer validation is cut again",
        b">Seq1 TARGET=Nucleus SET=train VALIDATION=True\nMKV\n>Seq2 TARGET=Nucleus SET=val\nMKL\n",
        counts={"validation_recut": 2},
        splits={"Seq1": Split.TRAIN, "Seq2": Split.TRAIN},
    ),
    fasta(
        "biotrainer without target",
        b">Seq1 SET=train\nMKV\n",
        "in.fasta:1: no TARGET=; training needs the location of every protein",
    ),
    fasta(
        "biotrainer unknown key",
        b">Seq1 TARGET=Nucleus MASK=01\nMKV\n",
        "in.fasta:1: 'MASK=01'; expected TARGET=, SET= and VALIDATION=, each at most once",
    ),
    fasta(
        "biotrainer odd validation",
        b">Seq1 TARGET=Nucleus VALIDATION=maybe\nMKV\n",
        "in.fasta:1: VALIDATION=maybe; expected True or False",
    ),
    fasta(
        "biotrainer prediction set",
        b">Seq1 TARGET=Nucleus SET=pred\nMKV\n",
        f"in.fasta:1: split 'pred'; {SPLITS}",
    ),
    fasta(
        "empty header",
        b">\nMKV\n",
        "in.fasta:1: header without an id; expected the id right after '>'",
    ),
    fasta(
        "blank after >",
        b"> Q1 Nucleus-U\nMKV\n",
        "in.fasta:1: header without an id; expected the id right after '>'",
    ),
]

LOCATIONS = [
    fasta(
        "other spellings",
        b">Q1 Cell membrane-M\nMKV\n>Q2 ER-U\nMKL\n>Q3 Chloroplast-U\nMKI\n>Q4 Golgi apparatus-M\nMKA\n"
        b">Q5 Endoplasmic reticulum-M test\nMKC\n>Q6 nucleus-U\nMKG\n",
        counts={"location_spelling": 6},
        records={
            "Q1": ("MKV", "Cell.membrane"),
            "Q2": ("MKL", "Endoplasmic.reticulum"),
            "Q3": ("MKI", "Plastid"),
            "Q4": ("MKA", "Golgi.apparatus"),
            "Q5": ("MKC", "Endoplasmic.reticulum"),
            "Q6": ("MKG", "Nucleus"),
        },
    ),
    fasta(
        "location DeepLoc does not know",
        b">Q1 Chromosome-U\nMKV\n",
        counts={"outside_deeploc10": 1},
        records={"Q1": ("MKV", "Chromosome")},
    ),
    fasta(
        "the same, with the label set named",
        b">Q1 Chromosome-U\nMKV\n",
        "in.fasta:1: location 'Chromosome' is not in label set 'deeploc10'; expected one of Nucleus, "
        "Cytoplasm, "
        "Extracellular, Mitochondrion, Cell.membrane, Endoplasmic.reticulum, Plastid, Golgi.apparatus, "
        "Lysosome/Vacuole, Peroxisome",
        settings={"labels": "deeploc10"},
    ),
    fasta(
        "a number as location",
        b">Q1 3-U\nMKV\n",
        "in.fasta:1: location '3'; expected a name that begins with a letter",
    ),
    Case(
        "one location only",
        b">Q1 Nucleus-U\nMKV\n>Q2 Nucleus-U test\nMKL\n",
        "in.fasta: all proteins are of one location; expected two or more",
    ),
]

RESIDUES = [
    fasta("wrapped", b">Q1 Nucleus-U\nMKV\nLLA\n\nC\n", records={"Q1": ("MKVLLAC", "Nucleus")}),
    fasta(
        "lower case",
        b">Q1 Nucleus-U\nmkVLL\n",
        counts={"lower_case": 1},
        records={"Q1": ("MKVLL", "Nucleus")},
    ),
    fasta(
        "spaced residues",
        b">Q1 Nucleus-U\nM K T A\n",
        counts={"inner_blanks": 1},
        records={"Q1": ("MKTA", "Nucleus")},
    ),
    fasta(
        "the 70-residue bug: no blank where a line had wrapped",
        b">Q1 Nucleus-U\n" + b"A " * 68 + b"A CSL S L\n",
        counts={"inner_blanks": 1},
        records={"Q1": ("A" * 69 + "CSLSL", "Nucleus")},
    ),
    fasta(
        "tabs inside",
        b">Q1 Nucleus-U\nMK\tTA\n",
        counts={"inner_blanks": 1},
        records={"Q1": ("MKTA", "Nucleus")},
    ),
    fasta(
        "stop at the end",
        b">Q1 Nucleus-U\nMKTA*\n",
        counts={"stop_removed": 1},
        records={"Q1": ("MKTA", "Nucleus")},
    ),
    fasta(
        "J U Z O B become X",
        b">Q1 Nucleus-U\nMJAAAAAAAAAAAAAAAAAAA\n>Q2 Nucleus-U\n" + b"A" * 60 + b"UZOB\n>Q3 Nucleus-U\nMKX\n",
        counts={"rare_residues": 2, "many_unknown": 1},
        records={
            "Q1": ("MXAAAAAAAAAAAAAAAAAAA", "Nucleus"),
            "Q2": ("A" * 60 + "XXXX", "Nucleus"),
            "Q3": ("MKX", "Nucleus"),
        },
    ),
    fasta(
        "inner stop", b">Q1 Nucleus-U\nMK*TA\n", f"in.fasta:1: Q1 has '*' at residue 3 (1 in all); {LETTERS}"
    ),
    fasta(
        "two stops", b">Q1 Nucleus-U\nMKTA**\n", f"in.fasta:1: Q1 has '*' at residue 5 (1 in all); {LETTERS}"
    ),
    fasta("only a stop", b">Q1 Nucleus-U\n*\n", f"in.fasta:1: Q1 has nothing but a stop; {LETTERS}"),
    fasta("gap", b">Q1 Nucleus-U\nMK-TA\n", f"in.fasta:1: Q1 has '-' at residue 3 (1 in all); {LETTERS}"),
    fasta("dot", b">Q1 Nucleus-U\nMK.TA\n", f"in.fasta:1: Q1 has '.' at residue 3 (1 in all); {LETTERS}"),
    fasta(
        "digits",
        b">Q1 Nucleus-U\nMK1234567TA\n",
        "in.fasta:1: Q1 has '1' at residue 3, '2' at residue 4, '3' at residue 5, '4' at residue 6, "
        "'5' at residue 7 "
        f"(7 in all); {LETTERS}",
    ),
    fasta(
        "punctuation",
        b">Q1 Nucleus-U\nMK1$%\n",
        f"in.fasta:1: Q1 has '1' at residue 3, '$' at residue 4, '%' at residue 5 (3 in all); {LETTERS}",
    ),
    fasta(
        "> inside a sequence",
        b">Q1 Nucleus-U\nMKT>Q9 Nucleus\n",
        f"in.fasta:1: Q1 has '>' at residue 4, '9' at residue 6 (2 in all); {LETTERS}",
    ),
    fasta(
        "the AWS article's printed example: > ends its third line, a quote its last",
        b'>Q9SMX3 Mitochondrion-M test\nMVKGPGLYTE\nIGKKARDLLY\nRDYQGDQKFS>\nVTTYSSTGVA\nITTTGTNKGSL"\n',
        f"in.fasta:1: Q9SMX3 has '>' at residue 31, '\"' at residue 53 (2 in all); {LETTERS}",
    ),
    fasta(
        "letters beyond ASCII",
        ">Q1 Nucleus-U\nMK\u00c9TA\n".encode(),
        f"in.fasta:1: Q1 has '\u00c9' at residue 3 (1 in all); {LETTERS}",
    ),
    fasta(
        "no-break space",
        ">Q1 Nucleus-U\nMK\u00a0TA\n".encode(),
        f"in.fasta:1: Q1 has '\\xa0' at residue 3 (1 in all); {LETTERS}",
    ),
    fasta(
        "nucleotides",
        b">Q1 Nucleus-U\n" + b"ACGT" * 15 + b"\n",
        "in.fasta:1: Q1 has only nucleotides (ACGTACGTACGT...); expected a protein",
    ),
    fasta(
        "a protein above the limit",
        b">Q1 Nucleus-U\n" + (b"M" * 1000 + b"\n") * 101,
        "in.fasta:1: Q1 has 101,000 letters or more; expected at most 100,000 residues",
    ),
    fasta(
        "an endless sequence",
        b">Q1 Nucleus-U\n" + (b"M" * 1000 + b"\n") * 300,
        "in.fasta:1: Q1 has 201,000 letters or more; expected at most 100,000 residues",
    ),
]

FILES = [
    fasta("CRLF", b">Q1 Nucleus-U\r\nMKV\r\n", counts={"crlf": 1}, records={"Q1": ("MKV", "Nucleus")}),
    fasta(
        "byte order mark",
        b"\xef\xbb\xbf>Q1 Nucleus-U\nMKV\n",
        counts={"byte_order_mark": 1},
        records={"Q1": ("MKV", "Nucleus")},
    ),
    Case("no end of the last line", GOOD.rstrip(b"\n"), counts={"no_final_newline": 1}),
    fasta("blank lines first", b"\n \n>Q1 Nucleus-U\nMKV\n", records={"Q1": ("MKV", "Nucleus")}),
    Case(
        "lone CR line ends",
        GOOD.replace(b"\n", b"\r"),
        "in.fasta:1: a carriage return that ends no line; expected LF or CRLF line ends",
    ),
    fasta("NUL", b">Q1 Nucleus-U\nMK\x00V\n", "in.fasta:2: control character '\\x00' at column 3"),
    fasta(
        "escape in a header", b">Q1\x1b Nucleus-U\nMKV\n", "in.fasta:1: control character '\\x1b' at column 4"
    ),
    fasta(
        "latin-1",
        b">Q1 Nucleus-U M\xfcller\nMKV\n",
        "in.fasta:1: byte 0xfc is not UTF-8; convert the file (iconv)",
    ),
    Case(
        "UTF-16",
        GOOD.decode().encode("utf-16"),
        "in.fasta: UTF-16 text; expected FASTA, CSV, TSV or Parquet, plain or gzip, in UTF-8",
    ),
    fasta(
        "HTML",
        b"<!DOCTYPE html>\n<html>\n",
        "in.fasta:1: text before the first '>'; this looks like HTML, a web page instead of the "
        "file; download it again",
    ),
    fasta(
        "text before the first record",
        b"\n; DeepLoc data\n",
        "in.fasta:2: text before the first '>': '; DeepLoc data'; expected FASTA, whose records "
        "begin with '>'",
    ),
    Case("empty file", b"", "in.fasta: no record found; expected at least one line that begins with '>'"),
    Case("blank file", b"\n\n", "in.fasta: no record found; expected at least one line that begins with '>'"),
    fasta(
        "header without sequence",
        b">Q1 Nucleus-U\n>Q2 Nucleus-U\nMKV\n",
        "in.fasta:1: Q1 has no sequence; expected at least one line of residues after its header",
    ),
    Case(
        "last header without sequence",
        GOOD + b">Q1 Nucleus-U\n",
        "in.fasta:5: Q1 has no sequence; expected at least one line of residues after its header",
    ),
    fasta(
        "blank line for a sequence",
        b">Q1 Nucleus-U\n\n",
        "in.fasta:1: Q1 has no sequence; expected at least one line of residues after its header",
    ),
    fasta(
        "a line without end",
        b">Q1 Nucleus-U\n" + b"M" * (1 << 20) + b"\n",
        "in.fasta:2: a line of more than 1,048,576 bytes; wrap the sequence",
    ),
    Case("gzip", gzip.compress(GOOD), file="in.fasta.gz"),
    Case("gzip without its suffix", gzip.compress(GOOD)),
    Case("gzip of two members", gzip.compress(GOOD[:30]) + gzip.compress(GOOD[30:])),
    Case(
        "gzip cut off",
        gzip.compress(GOOD)[:-12],
        "in.fasta.gz: the gzip file ends early, after 0 unpacked bytes",
        file="in.fasta.gz",
    ),
    Case(
        "gzip damaged",
        gzip.compress(GOOD)[:-8] + b"\0" * 8,
        "in.fasta.gz: damaged gzip file (CRC check failed 0x0 != 0xeee75658)",
        file="in.fasta.gz",
    ),
    Case(
        "gzip bomb",
        gzip.compress(bytes(2_000_001)),
        "in.fasta.gz: the source unpacks to more than 2,000,000 bytes; raise max_unpacked_megabytes "
        "if that is meant",
        file="in.fasta.gz",
        settings={"max_unpacked_megabytes": 2},
    ),
    Case(
        "gzip inside gzip",
        gzip.compress(gzip.compress(GOOD)),
        "in.fasta.gz: gzip inside gzip; expected at most one layer",
        file="in.fasta.gz",
    ),
    Case(
        "zip",
        b"PK\x03\x04rest",
        "in.fasta: a zip archive or Excel file; expected FASTA, CSV, TSV or Parquet, plain or gzip, in UTF-8",
    ),
    Case(
        "another file than expected",
        GOOD,
        "{source}: SHA-256 9024067179383799bb10ff79d090a2d6d4438c283e55abfbef6b8a4a186e623e, git blob "
        "77076317c9aa9535afeed1d03aca6c3de49bf499; expected " + "a" * 64 + "; likely causes: a cut download, "
        "changed line ends, another version",
        settings={"expected_digest": "a" * 64},
    ),
]

RELATIONS = [
    fasta(
        "one accession twice",
        b">P1 Nucleus-U\nMKV\n",
        "1 accession (P1 (in.fasta:1 and in.fasta:3)) more than once; expected each once",
    ),
    fasta(
        "one sequence twice, one location",
        b">Q1 Nucleus-S\nMKTAYIAK\n",
        counts={"duplicate_sequences": 1},
        records={"Q1": ("MKTAYIAK", "Nucleus")},
    ),
    fasta(
        "isoforms on one side", b">P22462 Nucleus-U\nMKV\n>P22462-2 Nucleus-U\nMKL\n", counts={"isoforms": 1}
    ),
    fasta(
        "one sequence, two locations",
        b">Q1 Cytoplasm-S\nMKTAYIAK\n",
        "in.fasta:3: 1 sequence (Q1 Cytoplasm and P1 Nucleus) with two locations; correct the "
        "source, or leave "
        "them out with on_conflict=drop",
    ),
    fasta(
        "one sequence, two locations, dropped",
        b">Q1 Cytoplasm-S\nMKTAYIAK\n>Q2 Nucleus-S\nMKV\n",
        counts={"conflicts_dropped": 2},
        settings={"on_conflict": "drop"},
    ),
    fasta(
        "one sequence in train and test",
        b">Q1 Cytoplasm-S\nMLLAVLYC\n",
        counts={"crossing_dropped": 1},
    ),
    fasta(
        "one sequence in train and test, refused",
        b">Q1 Cytoplasm-S\nMLLAVLYC\n",
        "in.fasta:1: 1 training protein (Q1) also in test (same sequence or isoform of one protein); "
        "correct the "
        "source, or leave them out of training with on_crossing=drop_train",
        settings={"on_crossing": "refuse"},
    ),
    fasta(
        "isoforms in train and test",
        b">Q14318 Nucleus-U\nMKV\n>Q14318-3 Nucleus-U test\nMKL\n",
        counts={"crossing_dropped": 1},
        records={"Q14318-3": ("MKL", "Nucleus")},
    ),
    fasta(
        "train contradicts test, drop: the test protein stays",
        b">Q1 Plastid-S\nMLLAVLYC\n",
        counts={"crossing_dropped": 1},
        records={"P2": ("MLLAVLYC", "Cytoplasm")},
        settings={"on_conflict": "drop"},
    ),
]

TABLES = [
    table(
        "CSV",
        b"Q1,MKV,Plastid,test,M\nQ2,mkl*,ER,,X\n",
        counts={"lower_case": 1, "stop_removed": 1, "location_spelling": 1, "no_membrane_flag": 1},
        records={"Q1": ("MKV", "Plastid"), "Q2": ("MKL", "Endoplasmic.reticulum")},
        splits={"Q1": Split.TEST, "Q2": Split.TRAIN},
    ),
    Case("TSV", (COLUMNS + GOOD_ROWS).replace(b",", b"\t"), file="in.tsv"),
    Case("CSV under another name", COLUMNS + GOOD_ROWS, file="download"),
    Case(
        "only the needed columns, in another order and case",
        b"Location,ACCESSION, Sequence\nNucleus,Q1,MKV\nCytoplasm,Q2,MKL\n",
        file="in.csv",
        records={"Q1": ("MKV", "Nucleus"), "Q2": ("MKL", "Cytoplasm")},
        splits={"Q1": Split.TRAIN, "Q2": Split.TRAIN},
    ),
    Case(
        "columns that are not read, integer labels among them",
        b"accession,sequence,location,label,notes\nQ1,MKV,Nucleus,7,x\nQ2,MKL,Cytoplasm,1,y\n",
        file="in.csv",
        counts={"ignored_columns": 2},
    ),
    table("CRLF in a table", b"Q1,MKV,Plastid,,\r\n", counts={"crlf": 1}),
    table(
        "quoted cell over two lines, and blanks",
        b'Q1,"MKV\nLLA",Plastid,,\nQ2,M K L,Plastid,,\n',
        counts={"inner_blanks": 2},
        records={"Q1": ("MKVLLA", "Plastid"), "Q2": ("MKL", "Plastid")},
    ),
    Case(
        "control character in a Parquet accession",
        parquet(accession=["Q\n1"], sequence=["MKV"], location=["Plastid"]),
        f"in.parquet:row 1: accession 'Q\\n1'; {ACCESSION}",
        file="in.parquet",
    ),
    Case(
        "control character in a Parquet UniProt id",
        parquet(accession=["sp|Q\n1|ABL2_MOUSE"], sequence=["MKV"], location=["Plastid"]),
        f"in.parquet:row 1: accession 'Q\\n1'; {ACCESSION}",
        file="in.parquet",
    ),
    table(
        "a UniProt id of a blank in a table",
        b"sp| |A,MKV,Plastid,,\n",
        f"in.csv:2: accession ' '; {ACCESSION}",
    ),
    table("a UniProt id in a table", b"sp|Q1|A,MKV,Plastid,,\n", records={"Q1": ("MKV", "Plastid")}),
    table("blank line in a table", b"\nQ1,MKV,Plastid,,\n", records={"Q1": ("MKV", "Plastid")}),
    table(
        "a split to be cut again",
        b"Q1,MKV,Plastid,validation,\nQ2,MKL,Plastid,gate,\n",
        counts={"validation_recut": 2},
    ),
    table("external test in a table", b"Q1,MKV,Plastid,new_test_set,\n", counts={"external_test_dropped": 1}),
    table("unknown split", b"Q1,MKV,Plastid,fold3,\n", f"in.csv:2: split 'fold3'; {SPLITS}"),
    table(
        "unknown membrane flag in a table",
        b"Q1,MKV,Plastid,,Membrane\n",
        "in.csv:2: membrane flag 'Membrane'; expected M (bound), S (soluble), U or X (unknown)",
    ),
    table("empty location", b"Q1,MKV,,,\n", "in.csv:2: location is empty (''); every protein needs one"),
    table(
        "NaN as location", b"Q1,MKV,nan,,\n", "in.csv:2: location is empty ('nan'); every protein needs one"
    ),
    table(
        "empty sequence", b"Q1, ,Plastid,,\n", "in.csv:2: sequence is empty (' '); every protein needs one"
    ),
    table(
        "empty accession", b",MKV,Plastid,,\n", "in.csv:2: accession is empty (''); every protein needs one"
    ),
    table(
        "None as sequence",
        b"Q1,None,Plastid,,\n",
        "in.csv:2: sequence is empty ('None'); every protein needs one",
    ),
    table("the sequence NA is two residues", b"Q1,NA,Plastid,,\n", records={"Q1": ("NA", "Plastid")}),
    table(
        "two locations that differ in case only",
        b"Q1,MKV,Vesicle,,\nQ2,MKL,vesicle,,\n",
        "in.csv:3: locations 'Vesicle' and 'vesicle' differ in case or signs only; spell them alike, or "
        "rename one",
    ),
    table(
        "integer as location",
        b"Q1,MKV,3,,\n",
        "in.csv:2: location '3' is a number; expected a name: no file's numbers are read",
    ),
    table("too few cells", b"Q1,MKV,Plastid\n", "in.csv:2: 3 cells; expected 5, as the first line has"),
    table("too many cells", b"Q1,MKV,Plastid,,,\n", "in.csv:2: 6 cells; expected 5, as the first line has"),
    table(
        "quote left open",
        b'Q1,"MKV,Plastid,,\n',
        "in.csv:2: not readable as a table (unexpected end of data); was a quote left open in this row?",
    ),
    table(
        "quote left open in a long table",
        b'Q1,"MKV,Plastid,,\n' + b"".join(b"R%d,%s,Plastid,,\n" % (n, b"MKTV" * 1000) for n in range(300)),
        "in.csv:2: not readable as a table (field larger than field limit (1048576)); was a quote left open "
        "in this row?",
    ),
    table(
        "a quote closed rows later by the next one",
        b'Q1,MKV,Plastid,,\n\nQ2,"MKL,Plastid,,\nQ3,MKI,Plastid,,\nQ4,"MKG,Plastid,,\n',
        "in.csv:4: not readable as a table (',' expected after '\"'); was a quote left open in this row?",
    ),
    table(
        "a bad row over several lines is named by its first",
        b'Q1,"MKV\nLLA",Plastid,,\nQ2,"MKL\nMKL\nMKL",3,,\n',
        "in.csv:4: location '3' is a number; expected a name: no file's numbers are read",
    ),
    table(
        "70,000 residues with blanks between them",
        b"Q1," + b" ".join([b"M"] * 70_000) + b",Plastid,,\n",
        counts={"inner_blanks": 1},
        records={"Q1": ("M" * 70_000, "Plastid")},
    ),
    Case(
        "missing columns",
        b"id,seq,label\nQ1,MKV,3\n",
        "in.csv:1: no column accession, sequence, location; got id, seq, label; expected accession, "
        "sequence, "
        "location and, if given, split, membrane",
        file="in.csv",
    ),
    Case(
        "semicolons",
        COLUMNS.replace(b",", b";"),
        "in.csv:1: no column accession, sequence, location; got accession;sequence;location;split;membrane; "
        "expected accession, sequence, location and, if given, split, membrane",
        file="in.csv",
    ),
    Case(
        "column twice",
        b"accession,sequence,location,Location\n",
        "in.csv:1: column location occurs twice; expected it once",
        file="in.csv",
    ),
    Case(
        "empty table",
        b"",
        "in.csv:1: no column accession, sequence, location; got nothing; expected accession, "
        "sequence, location "
        "and, if given, split, membrane",
        file="in.csv",
    ),
    Case("header only", COLUMNS, "in.csv: no labelled protein; expected at least one", file="in.csv"),
    Case(
        "Parquet",
        parquet(
            accession=["Q1", "Q2"], sequence=["MKV", "MKL"], location=["Plastid", "ER"], split=["test", None]
        ),
        file="in.parquet",
        counts={"location_spelling": 1},
        records={"Q1": ("MKV", "Plastid"), "Q2": ("MKL", "Endoplasmic.reticulum")},
        splits={"Q1": Split.TEST, "Q2": Split.TRAIN},
    ),
    Case(
        "Parquet under another name",
        parquet(accession=["Q1", "Q2"], sequence=["MKV", "MKL"], location=["Plastid", "Nucleus"]),
        file="part-0000",
    ),
    Case(
        "Parquet with integer labels",
        parquet(accession=["Q1"], sequence=["MKV"], location=[3]),
        "in.parquet:row 1: location 3 is no text; numbers of other files are not read",
        file="in.parquet",
    ),
    Case(
        "Parquet with a null",
        parquet(accession=["Q1", "Q2"], sequence=["MKV", None], location=["Plastid", "Plastid"]),
        "in.parquet:row 2: sequence is empty (None); every protein needs one",
        file="in.parquet",
    ),
    Case(
        "Parquet with NaN",
        parquet(accession=["Q1"], sequence=["MKV"], location=[float("nan")]),
        "in.parquet:row 1: location is empty (nan); every protein needs one",
        file="in.parquet",
    ),
    Case(
        "Parquet without columns",
        parquet(name=["Q1"]),
        "in.parquet: no column accession, sequence, location; got name; expected accession, "
        "sequence, location "
        "and, if given, split, membrane",
        file="in.parquet",
    ),
    Case(
        "Parquet cut off",
        parquet(accession=["Q1"], sequence=["MKV"], location=["ER"])[:-20],
        "in.parquet: not readable as Parquet (Parquet magic bytes not found in footer. Either the file is "
        "corrupted or this is not a parquet file.)",
        file="in.parquet",
    ),
    Case(
        "Parquet that unpacks to more",
        parquet(
            accession=[f"Q{number}" for number in range(30)],
            sequence=["M" * 90_000] * 30,
            location=["Nucleus"] * 30,
        ),
        "in.parquet:row 23: unpacks to more than 2,000,000 bytes",
        file="in.parquet",
        settings={"max_unpacked_megabytes": 2},
    ),
    Case(
        "Parquet whose text is not UTF-8",
        parquet(
            accession=["Q1", "Q2"],
            sequence=["MKV", "MKL"],
            location=pa.array([b"Plastid", b"Nuc\xffleus"]).view(pa.string()),
        ),
        "in.parquet:row 2: location has byte 0xff, which is not UTF-8",
        file="in.parquet",
    ),
    Case(
        "Parquet with a column name that is not UTF-8",
        parquet(accession=["Q1"], sequence=["MKV"], location=["ER"], labelx=["x"]).replace(
            b"labelx", b"label\xff"
        ),
        "in.parquet: not readable as Parquet ('utf-8' codec can't decode byte 0xff in position 5: invalid "
        "start byte)",
        file="in.parquet",
    ),
    Case(
        "Parquet with lists",
        parquet(accession=["Q1"], sequence=[["MKV"]], location=["ER"]),
        "in.parquet: column sequence holds list<element: string>; expected text",
        file="in.parquet",
    ),
    Case(
        "Parquet with bytes",
        parquet(accession=["Q1"], sequence=["MKV"], location=[b"ER"]),
        "in.parquet: column location holds binary; expected text",
        file="in.parquet",
    ),
    Case(
        "Parquet of every kind of text, and of nothing",
        parquet(
            accession=pa.array(["Q1", "Q2", "Q3"], pa.large_string()),
            sequence=pa.array(["MKV", "MKL", "MKI"], pa.string_view()),
            location=pa.array(["Plastid", "Nucleus", "Plastid"]).dictionary_encode(),
            split=pa.array([None, "test", None]).dictionary_encode(),
            membrane=pa.nulls(3),
        ),
        file="in.parquet",
        records={"Q1": ("MKV", "Plastid"), "Q2": ("MKL", "Nucleus"), "Q3": ("MKI", "Plastid")},
        splits={"Q2": Split.TEST, "Q3": Split.TRAIN},
    ),
    Case(
        "endless cell",
        COLUMNS + b"Q1," + b"M" * 100_001 + b",Nucleus,,\n",
        "in.csv:2: Q1 has 100,001 residues; expected at most 100,000",
        file="in.csv",
    ),
]

CASES = [*HEADERS, *LOCATIONS, *RESIDUES, *FILES, *RELATIONS, *TABLES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case: Case, tmp_path: Path) -> None:
    source = tmp_path / case.file
    source.write_bytes(case.content)
    config = IngestConfig(**case.settings)
    findings = Findings()

    def read() -> dict[str, Any]:
        max_bytes = config.max_unpacked_megabytes * 1_000_000
        taken = take_source(str(source), tmp_path / "scratch", max_bytes, config.expected_digest, findings)
        entries, _ = checked_entries(taken, config, findings)
        return {entry.accession: entry for entry in entries}

    if case.refusal:
        with pytest.raises(ProttuneError) as refused:
            read()
        assert str(refused.value) == case.refusal.format(source=source)
        assert refused.value.exit_code == 2
        return
    entries = read()
    assert findings.in_order() == case.counts
    for accession, expected in case.records.items():
        assert (entries[accession].sequence, entries[accession].location) == expected
    for accession, split in case.splits.items():
        assert entries[accession].split is split


def repeated(kind: pa.DataType, count: int) -> dict[str, pa.Array]:
    """Columns of `count` proteins with one sequence of 150,000 residues, stored once."""
    rows = pa.array([0] * count, pa.int32())
    sequence, location = (
        pa.DictionaryArray.from_arrays(rows, pa.array([text], kind)) for text in ("M" * 150_000, "Nucleus")
    )
    return {
        "accession": pa.array([f"P{n}" for n in range(count)]),
        "sequence": sequence,
        "location": location,
    }


PLAIN = {"use_dictionary": False, "compression": "zstd"}


@pytest.mark.parametrize(
    ("count", "kind", "is_cast", "options"),
    [
        (4096, pa.string(), False, {"store_schema": False}),
        (4096, pa.string(), False, {}),
        (4096, pa.large_string(), False, {}),
        (400, pa.string(), True, PLAIN),
        (400, pa.string(), True, PLAIN | {"column_encoding": {"sequence": "DELTA_BYTE_ARRAY"}}),
        (400, pa.string(), True, PLAIN | {"column_encoding": {"sequence": "DELTA_LENGTH_BYTE_ARRAY"}}),
    ],
    ids=["dictionary", "dictionary kept", "large dictionary", "plain", "delta", "delta of lengths"],
)
def test_a_small_parquet_file_never_unpacks_to_more_than_the_limit(
    tmp_path: Path, count: int, kind: pa.DataType, is_cast: bool, options: dict[str, Any]
) -> None:
    columns = repeated(kind, count)
    if is_cast:
        columns["sequence"] = columns["sequence"].cast(kind)
    path = tmp_path / "in.parquet"
    pa.parquet.write_table(pa.table(columns), path, **options)
    assert path.stat().st_size < 400_000
    del columns
    before = pa.default_memory_pool()
    counting = pa.proxy_memory_pool(before)
    pa.set_memory_pool(counting)
    try:
        with pytest.raises(DataError, match=r"unpacks to more than 1,000,000 bytes|has 150,000 residues"):
            read_table(path, "in.parquet", "parquet", Findings(), 1_000_000)
    finally:
        pa.set_memory_pool(before)
    assert counting.max_memory() < 10_000_000


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
def test_a_parquet_file_is_read_alike_in_whatever_encoding_and_groups_of_rows(
    tmp_path: Path, encoding: str
) -> None:
    rows = [(f"P{n}", "MKTAYIAK"[: 2 + n % 7] * 500, "Nucleus") for n in range(300)]
    columns = dict(zip(("accession", "sequence", "location"), zip(*rows, strict=True), strict=True))
    pa.parquet.write_table(
        pa.table(columns),
        tmp_path / "in.parquet",
        row_group_size=70,
        use_dictionary=["accession"],
        column_encoding={"sequence": encoding},
    )
    entries = read_table(tmp_path / "in.parquet", "in.parquet", "parquet", Findings(), 1_000_000)
    assert [(entry.accession, entry.sequence, entry.location) for entry in entries] == rows
    assert [entry.where for entry in entries] == [f"in.parquet:row {n}" for n in range(1, 301)]


def test_reading_a_table_leaves_the_limit_of_cells_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(COLUMNS + GOOD_ROWS)
    before = csv.field_size_limit(4321)
    try:
        assert len(read_table(tmp_path / "in.csv", "in.csv", "csv", Findings(), 1_000_000)) == 2
        assert csv.field_size_limit() == 4321
    finally:
        csv.field_size_limit(before)


def test_the_files_of_a_prefix_share_the_limit_while_they_are_fetched(store: Store, tmp_path: Path) -> None:
    for name in ("a.fasta", "b.fasta", "c.fasta"):
        store.objects[f"data/in/{name}"] = GOOD.ljust(400, b"\n")
    with pytest.raises(DataError) as refused:
        take_source("s3://data/in", tmp_path, 1000, "", Findings())
    assert str(refused.value) == (
        "c.fasta: the source unpacks to more than 1,000 bytes; raise max_unpacked_megabytes if that is meant"
    )
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 800
    assert len(take_source("s3://data/in", tmp_path / "again", 1200, "", Findings()).files) == 3


def test_the_table_is_as_long_as_promised() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
