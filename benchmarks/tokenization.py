"""How fast residues become ids in an Arrow file, beside the fastest single call and the usual tokenizers.

One thread, processor time. Ids are checked to be equal. The limit is `bytes.translate` over one flat buffer
that already holds all proteins with their marks, nothing written; ours starts from a column of sequences,
marks, translates and writes the Arrow file. Hashing the sequences is timed apart.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from transformers import BertTokenizer

from benchmarks.proteins import labels, sequences
from benchmarks.rows import Options, Row
from benchmarks.seed_recipe import MAX_TOKENS, ProteinSequenceDataset, spaced
from benchmarks.timing import Samples, Way, in_turns, processor_time
from prottune.alphabet import CLS_MARK, SEP_MARK, TABLE, VOCABULARY
from prottune.records import TOKENS_SCHEMA, sequence_digest, write_tokens
from prottune.tokenization import encode_column

_PEER_PROTEINS = {"full": 500, "quick": 200}
_REPETITIONS = {"full": 25, "quick": 5}

PLANNED = (
    Row(
        name="tokenize",
        what="sequences to ids in a written Arrow file, of the limit's speed with nothing written",
        unit="million residues/s",
        peer_name="`BertTokenizer`, spaced, batched, nothing padded",
        limit_name="`bytes.translate` of one flat buffer",
        ratio_of="ours / limit",
        goal=0.7,
    ),
    Row(
        name="tokenize",
        what="the same, beside the seed's way",
        unit="million residues/s",
        peer_name="the seed's call an item, padded to 512, for the residues that it keeps",
        limit_name="`bytes.translate` of one flat buffer",
        goal=200,
    ),
)


def write_vocabulary(folder: Path) -> Path:
    """What `BertTokenizer` needs to be ProtBERT's; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="ascii")
    (folder / "config.json").write_text(f'{{"model_type": "bert", "vocab_size": {len(VOCABULARY)}}}')
    return folder


def rows(options: Options) -> list[Row]:
    proteins = sequences(options)
    mode = "quick" if options.quick else "full"
    peers = proteins[:: max(1, len(proteins) // _PEER_PROTEINS[mode])][: _PEER_PROTEINS[mode]]
    with TemporaryDirectory() as folder:
        ways = _our_ways(proteins, Path(folder)) | _peer_ways(peers, Path(folder))
        samples = in_turns(ways, _REPETITIONS[mode])
    residues = dict.fromkeys(ways, sum(map(len, proteins)))
    residues |= dict.fromkeys(("HF batched", "HF batched, spaced before"), sum(map(len, peers)))
    residues["seed's call"] = sum(min(len(protein), MAX_TOKENS - 2) for protein in peers)
    speed = {name: residues[name] / found.median / 1e6 for name, found in samples.items()}
    scale = f"{len(proteins)} {'real' if options.source else 'random'} proteins, peers read {len(peers)}"
    return _judged(speed, samples, scale)


def _judged(speed: dict[str, float], samples: dict[str, Samples], scale: str) -> list[Row]:
    ours, limit = speed["ours"], speed["limit"]
    facts = {"million_residues_per_second": speed}
    found = []
    peers = ("HF batched", "limit"), ("seed's call", "seed's call")
    for planned, (peer, against) in zip(PLANNED, peers, strict=True):
        row = planned.measured(
            ours=ours,
            peer=speed[peer],
            ratio=ours / speed[against],
            samples=samples,
            compared=("ours", against),
            limit=limit,
        )
        found.append(replace(row, scale=scale, facts=facts, clock="processor time, one thread"))
    return found


def _our_ways(proteins: list[str], folder: Path) -> dict[str, Way]:
    column = pa.array(proteins, pa.large_string())
    flat = (CLS_MARK + (SEP_MARK + CLS_MARK).join(proteins) + SEP_MARK).encode()
    table = _token_table(encode_column(column), [sequence_digest(protein) for protein in proteins])
    assert table["ids"].chunk(0).values.to_numpy().tobytes() == flat.translate(TABLE), "other ids"

    def encode_and_write() -> None:
        ids = encode_column(column)
        write_tokens(table.set_column(1, TOKENS_SCHEMA.field("ids"), ids), folder)

    def translate_and_write() -> None:
        flat.translate(TABLE)
        write_tokens(table, folder)

    return {
        "ours": processor_time(encode_and_write),
        "limit": processor_time(lambda: flat.translate(TABLE)),
        "limit, then the table written": processor_time(translate_and_write),
        "ours, nothing written": processor_time(lambda: encode_column(column)),
        "hash": processor_time(lambda: [sequence_digest(protein) for protein in proteins]),
    }


def _peer_ways(proteins: list[str], folder: Path) -> dict[str, Way]:
    tokenizer = BertTokenizer.from_pretrained(write_vocabulary(folder / "tokenizer"), do_lower_case=False)
    spaced_before = [spaced(protein) for protein in proteins]
    own_ids = encode_column(pa.array(proteins, pa.large_string())).to_pylist()
    dataset = ProteinSequenceDataset(proteins, labels(proteins), tokenizer, MAX_TOKENS)
    assert tokenizer(spaced_before)["input_ids"] == own_ids, "the batched tokenizer gives other ids"
    for index, own in enumerate(own_ids):
        item = dataset[index]
        kept = item["input_ids"][item["attention_mask"].bool()].tolist()
        assert kept[:-1] == own[: len(kept) - 1], "the seed's call gives other ids"
    return {
        "HF batched": processor_time(lambda: tokenizer([spaced(protein) for protein in proteins])),
        "HF batched, spaced before": processor_time(lambda: tokenizer(spaced_before)),
        "seed's call": processor_time(lambda: [dataset[index] for index in range(len(dataset))]),
    }


def _token_table(ids: pa.LargeListArray, digests: list[str]) -> pa.Table:
    """The table that tokenize writes; all but the ids are the same in every way that is timed."""
    num_proteins = len(ids)
    columns = {
        "accession": [f"P{number}" for number in range(num_proteins)],
        "ids": ids,
        "label": np.zeros(num_proteins, np.int16),
        "membrane": ["U"] * num_proteins,
        "split": ["train"] * num_proteins,
        "num_residues": np.zeros(num_proteins, np.int32),
        "truncated": [False] * num_proteins,
        "sequence_sha256": digests,
    }
    return pa.table(columns, schema=TOKENS_SCHEMA)
