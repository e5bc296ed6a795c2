"""The rows of the benchmarks: their form and table, and that both sides of each one compute the same."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import running, train_cpu
from benchmarks.machine import training_operations
from benchmarks.proteins import deeploc_like_sequences, sampled, write_fasta, write_tokens
from benchmarks.rows import Options, Row, as_row, figure, merged, read_rows, table, write_rows, write_table
from benchmarks.seed_recipe import ProteinSequenceDataset
from benchmarks.timing import WARM_UP, Samples, in_turns
from benchmarks.tokenization import write_vocabulary

PLANNED = Row(name="ingest", what="as planned", unit="MB/s", peer_name="Biopython", goal=50)
SAMPLES = {"ours": Samples((1.0, 2.0, 1.5)), "peer": Samples((3.0,))}
DESIGNED = ["name", "what", "unit", "ours", "peer", "peer_name", "limit", "ratio", "goal", "met", "machine"]


def measured(ratio=60.0, planned=PLANNED, **more):
    return planned.measured(
        ours=120.0, peer=2.0, ratio=ratio, samples=SAMPLES, compared=("ours", "peer"), **more
    )


@pytest.fixture
def tokenizer(tmp_path):
    from transformers import BertTokenizer

    return BertTokenizer.from_pretrained(write_vocabulary(tmp_path / "vocabulary"), do_lower_case=False)


def test_a_row_is_met_from_its_goal_on_and_null_before_it_ran(tmp_path):
    lower = Row(name="padding", what="x", unit="x", peer_name="", goal=1.15, at_most=True)
    rows = [measured(50.0), measured(49.9), measured(1.15, lower), measured(1.2, lower), PLANNED]
    write_rows(rows, tmp_path / "results.json")
    content = json.loads((tmp_path / "results.json").read_text())
    assert [row["met"] for row in content] == [True, False, True, False, None]
    assert list(content[0])[:12] == [*DESIGNED, "date"]
    assert content[0]["ways"]["ours"] == {
        "median_seconds": 1.5,
        "least_seconds": 1.0,
        "spread": 1 / 1.5,
        "repetitions": 3,
    }
    assert read_rows(tmp_path / "results.json") == rows


def test_a_plain_dict_is_a_row_too_and_what_is_no_column_becomes_a_fact():
    row = as_row({"name": "padding", "what": "w", "unit": "x", "peer_name": "p", "goal": 1.01, "ranks": 8})
    assert (row.name, row.goal, row.met, row.facts) == ("padding", 1.01, None, {"ranks": 8})


def test_a_row_that_could_not_run_here_does_not_hide_one_measured_elsewhere():
    old, other = measured(), Row(name="freeze", what="w", unit="x", peer_name="p", goal=1)
    assert merged([old, other], [PLANNED.not_run("no GPU here")]) == [old, other]
    assert merged([old], [PLANNED.not_run("failed: a bug")])[0].met is None
    assert merged([old], [measured(70.0)])[0].ratio == 70.0


def test_the_table_shows_figures_reasons_and_where_they_were_measured(tmp_path):
    row = measured(61.0, limit=5800.0, machine="2 cores", versions={"torch": "2"}, mode="full")
    lines = table([row, PLANNED.not_run("not run: no GPU here")]).splitlines()
    assert lines[2].split(" | ")[1:6] == [
        "120 MB/s",
        "Biopython 2",
        " 5,800",
        "**61**",
        "at least 50 (ours / peer)",
    ]
    assert lines[2].endswith("| yes | ours 67% of 3 runs, peer 0% of 1 runs | 1 |")
    assert "| not run: no GPU here |" in lines[3]
    assert lines[-1] == "1. 2 cores; torch 2; full mode, no clock,"
    page = tmp_path / "page.md"
    page.write_text(
        "# Words\n<!-- made by make bench: begin -->\nold\n<!-- made by make bench: end -->\nmore\n"
    )
    write_table([PLANNED], page)
    text = page.read_text()
    assert text.startswith("# Words\n<!--")
    assert text.endswith("-->\nmore\n")
    assert "old" not in text


def test_figures_have_three_digits_that_count():
    assert [figure(number) for number in (None, 0.98765, 1.0, 61.25, 123.4, 5799.6)] == [
        *("", "0.988", "1", "61.2", "123", "5,800")
    ]


def test_ways_take_turns_after_a_warm_up_that_does_not_count():
    calls = []

    def way(name):
        return lambda turn: calls.append((name, turn)) or float(turn)

    samples = in_turns({"a": way("a"), "b": way("b")}, repetitions=2)
    assert calls == [("a", WARM_UP), ("b", WARM_UP), ("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert samples["b"].seconds == (0.0, 1.0)


def test_every_benchmark_of_the_runner_plans_rows_with_its_own_name():
    for name in running.MODULES:
        rows = running.planned(name)
        assert rows
        assert {(row.name, row.met, row.ours) for row in rows} == {(name, None, None)}
        assert len({row.key for row in rows}) == len(rows)


def test_the_page_has_a_place_for_every_planned_row():
    page = (Path(running.__file__).parent.parent / "docs/benchmarks.md").read_text()
    for name in running.MODULES:
        for row in running.planned(name):
            assert f"| **{row.name}** {row.what}" in page


def test_a_protbert_token_costs_what_the_notes_count():
    # 0.755 GFLOP forward without attention, 3 times that to learn; 512 tokens add 512 / 6144 of it.
    assert training_operations(np.array([1]), 30, 1024, 4096) == pytest.approx(3 * 0.755e9, rel=1e-3)
    per_token = training_operations(np.array([512]), 30, 1024, 4096) / 512
    assert per_token == pytest.approx(3 * 0.755e9 * (1 + 512 / 6144), rel=1e-3)


def test_a_sample_has_the_lengths_of_all_and_other_proteins_each_turn():
    proteins = deeploc_like_sequences(2000)
    samples = [sampled(proteins, 100, turn) for turn in range(3)]
    mean = np.mean([len(protein) for protein in proteins])
    for sample in samples:
        assert len(set(sample)) == 100
        assert np.mean([len(protein) for protein in sample]) == pytest.approx(mean, rel=0.05)
    assert not set(samples[0]) & set(samples[1])


def test_the_seeds_dataset_pads_to_its_length_and_cuts_to_it(tokenizer):
    dataset = ProteinSequenceDataset(["MKU", "ACDEFGHIKL"], [3, 7], tokenizer, 8)
    short, long = dataset[0], dataset[1]
    assert short["input_ids"].tolist() == [2, 21, 12, 25, 3, 0, 0, 0]  # [CLS] M K X [SEP] and three pads
    assert short["attention_mask"].tolist() == [1, 1, 1, 1, 1, 0, 0, 0]
    assert long["input_ids"].tolist() == [2, 6, 23, 14, 9, 19, 7, 3]  # the first six residues
    assert (int(short["targets"]), int(long["targets"]), len(dataset)) == (3, 7, 2)


def test_ingestions_peer_makes_the_same_table(tmp_path, tokenizer):
    pytest.importorskip("Bio", reason="not run here: the peer needs biopython")
    from benchmarks.ingestion import check_equal, ours_table, peer_table

    write_fasta([protein[:90] + "UZ" for protein in deeploc_like_sequences(12)], tmp_path / "few.fasta")
    ours, peer = ours_table(tmp_path / "few.fasta", tmp_path), peer_table(tmp_path / "few.fasta", tokenizer)
    check_equal(ours, peer)
    assert len(ours) == len(peer) == 12
    peer[5]["ids"][3] += 1
    with pytest.raises(AssertionError, match="the peer reads another protein"):
        check_equal(ours, peer)


def test_both_sides_of_training_read_the_same_residues(tmp_path, tokenizer):
    from benchmarks.proteins import labels
    from benchmarks.stock_trainer import examples
    from prottune.records import Split
    from prottune.training.examples import read_examples

    proteins = [
        protein[:length] for protein, length in zip(deeploc_like_sequences(4), (40, 9, 3, 12), strict=True)
    ]
    ours = read_examples(write_tokens(tmp_path, proteins, proteins[:2], max_residues=8), Split.TRAIN, 10)
    trainers = examples(proteins, labels(proteins), max_tokens=10)
    seeds = ProteinSequenceDataset(proteins, labels(proteins), tokenizer, 10)
    for number, ids in enumerate(ours.ids(range(4))):
        assert ids.tolist() == trainers[number]["input_ids"]
        seen = seeds[number]
        assert ids.tolist() == seen["input_ids"][seen["attention_mask"].bool()].tolist()
        assert ours.labels_N[number] == trainers[number]["labels"] == int(seen["targets"])


def test_training_benches_use_the_trainers_own_batches_and_all_lengths_in_each_turn(tmp_path):
    scale = train_cpu.Scale(num_layers=1, batch_size=4, num_batches=10, repetitions=2, fp32_share=2)
    bench = train_cpu.Bench(tmp_path, 512, deeploc_like_sequences(1000), scale, torch.float32)
    turns = [bench.slice(0), bench.slice(1)]
    assert [len(turn) for turn in turns] == [40, 40]
    assert not set(turns[0]) & set(turns[1])
    assert max(bench.num_tokens(0)) == 512
    for start in range(
        4, 40, 4
    ):  # but for the longest, put first, the proteins of a batch are of like length
        lengths = [len(protein) for protein in turns[0][start : start + 4]]
        assert max(lengths) - min(lengths) <= 30
    means = [bench.num_tokens(turn).mean() for turn in range(2)]
    assert means[0] == pytest.approx(means[1], rel=0.1)


def test_our_gradients_equal_the_padded_models(tmp_path):
    from benchmarks.own_training import MAX_DIFFERENCE, check_equal_to_padded, write_base

    base = write_base(tmp_path, num_layers=2, num_positions=128, width=32, num_heads=2, feed_forward=48)
    assert 0 < check_equal_to_padded(base, deeploc_like_sequences(3)) < MAX_DIFFERENCE
    with pytest.raises(AssertionError, match="gradients differ"):
        check_equal_to_padded(base, deeploc_like_sequences(3), at_most=0.0)


def test_a_benchmark_that_fails_leaves_its_rows_with_the_reason(tmp_path, capfd):
    rows, reason = running.run_apart("tokenize", Options(quick=True, source=tmp_path / "absent.fasta"))
    assert [(row.name, row.met, row.ours) for row in rows] == [("tokenize", None, None)] * 2
    assert rows[0].note == reason
    assert reason.startswith("failed: FileNotFoundError")
    assert "Traceback" in capfd.readouterr().err
