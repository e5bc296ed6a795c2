"""Near and far from training, what a model was trained on, and folders that do not fit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from prottune.artifacts import new_folder, read_manifest
from prottune.errors import ArtifactError, DataError
from prottune.evaluation.stage import evaluate
from prottune.records import Membrane, Protein, Split
from tests.evaluation.test_stage import (
    CONFIG,
    LOCATIONS,
    Bench,
    Oracle,
    Said,
    write_model,
    write_records,
)


def of(proteins: Sequence[Protein], split: Split) -> list[Protein]:
    return [protein for protein in proteins if protein.split is split]


class Cutting(Oracle):
    """Reads only a part of proteins of more than 200 residues."""

    def _say(self, protein: Protein) -> Said:
        return replace(super()._say(protein), truncated=protein.num_residues > 200)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def related(tmp_path: Path) -> Bench:
    """Of 90 test proteins the first 30 are training proteins with a longer end; 9 of them are wrong."""
    bench = Bench(tmp_path / "related")
    train = of(bench.proteins, Split.TRAIN)
    copies = {f"TEST{n}": train[n].sequence + "MKWVTF" for n in range(30)}
    flags = (Membrane.BOUND, Membrane.SOLUBLE, Membrane.UNKNOWN)
    bench.proteins = [
        replace(
            protein,
            sequence=copies.get(protein.accession, protein.sequence),
            membrane=flags[number % 3],
        )
        for number, protein in enumerate(bench.proteins)
    ]
    bench.records = write_records(tmp_path / "related" / "others", bench.proteins)
    wrong = {f"TEST{n}" for n in range(9)}
    bench.models[bench.candidate] = Cutting(bench.proteins, wrong)
    return bench


def test_proteins_with_a_relative_in_training_are_scored_apart(related: Bench) -> None:
    related.run()
    found = related.json("metrics.json")["test"]["by_relatives"]
    assert {name: scores["num_proteins"] for name, scores in found.items()} == {
        "all": 90,
        "far": 60,
        "near": 30,
    }
    assert [found[name]["accuracy"] for name in ("all", "far", "near")] == pytest.approx([0.9, 1.0, 0.7])
    assert found["near"]["top2_accuracy"] == pytest.approx(found["near"]["accuracy"] + 0.1)
    assert found["far"]["mcc"] == found["far"]["macro_f1"] == 1.0
    for name, low, high in (("near", 0.5, 0.9), ("far", 1.0, 1.0)):
        assert set(found[name]["intervals"]) == {"accuracy", "macro_f1", "mcc", "top2_accuracy"}
        assert (
            low <= found[name]["intervals"]["accuracy"][0] <= found[name]["intervals"]["accuracy"][1] <= high
        )
    page = (related.report / "report.html").read_text()
    assert "<h2>Near and far from the training proteins</h2>" in page
    assert "The model was trained on other records than these" in page


def test_all_is_what_the_whole_split_scores_and_the_floor_is_divided_alike(related: Bench) -> None:
    metrics = related.run().metrics["test"]
    whole = metrics["by_relatives"]["all"]
    assert whole == {name: metrics[name] for name in whole}
    floor = metrics["baseline"]["by_relatives"]
    assert {name: scores["num_proteins"] for name, scores in floor.items()} == {
        "all": 90,
        "far": 60,
        "near": 30,
    }
    assert floor["near"]["accuracy"] > floor["far"]["accuracy"] + 0.2


def test_predictions_and_mistakes_name_the_nearest_training_protein(related: Bench) -> None:
    related.run()
    rows = {
        row["accession"]: row for row in pq.read_table(related.report / "predictions.parquet").to_pylist()
    }
    assert (rows["TEST4"]["relative"], rows["TEST4"]["identity"]) == ("TRAIN4", pytest.approx(1.0))
    assert (rows["TEST40"]["relative"], rows["TEST40"]["identity"]) == (None, None)
    mistakes = related.json("metrics.json")["test"]["mistakes"]
    assert [mistake["accession"] for mistake in mistakes] == [f"TEST{n}" for n in range(9)]
    by_accession = {protein.accession: protein for protein in related.proteins}
    assert mistakes[0] == {
        "accession": "TEST0",
        "location": "Nucleus",
        "predicted": "Cytoplasm",
        "probability": pytest.approx(0.9),
        "num_residues": by_accession["TEST0"].num_residues,
        "truncated": by_accession["TEST0"].num_residues > 200,
        "relative": "TRAIN0",
        "identity": pytest.approx(1.0),
        "misled_by": None,
    }


def test_scores_are_divided_by_cut_and_by_membrane(related: Bench) -> None:
    metrics = related.run().metrics["test"]
    tests = of(related.proteins, Split.TEST)
    num_cut = sum(protein.num_residues > 200 for protein in tests)
    assert {name: scores["num_proteins"] for name, scores in metrics["by_cut"].items()} == {
        "whole": 90 - num_cut,
        "cut": num_cut,
    }
    wrong_and_cut = sum(protein.num_residues > 200 for protein in tests[:9])
    assert metrics["by_cut"]["cut"]["accuracy"] == pytest.approx(1 - wrong_and_cut / num_cut)
    by_membrane = metrics["by_membrane"]
    assert {name: scores["num_proteins"] for name, scores in by_membrane.items()} == dict.fromkeys(
        ("bound", "soluble", "unknown"), 30
    )
    assert by_membrane["bound"]["accuracy"] == pytest.approx(0.9)


def test_a_second_evaluation_of_the_same_records_takes_floor_and_relatives_from_the_cache(
    related: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = related.run().metrics

    def never(*_: Any) -> None:
        raise AssertionError("computed twice")

    monkeypatch.setattr("prottune.evaluation.floor.fit_floor", never)
    monkeypatch.setattr("prottune.evaluation.relatives.nearest_relatives", never)
    related.report = related.folder / "again"
    assert related.run().metrics == first


def test_a_few_test_proteins_seen_in_training_are_counted_shown_and_near(bench: Bench) -> None:
    tests = of(bench.proteins, Split.TEST)
    bench.candidate = write_model(bench.folder / "leaky", tests[:4])
    bench.models[bench.candidate] = Oracle(bench.proteins, set())
    bench.run(max_known_share=4 / 90)
    strangers = bench.json("metrics.json")["test"]["unlike_training"]["strangers"]
    assert strangers["num_proteins"] == 86  # what it was trained on looks familiar
    metrics = bench.json("metrics.json")["test"]
    assert metrics["num_known"] == metrics["by_relatives"]["near"]["num_proteins"] == 4
    assert "4 of 90 test proteins were in the model" in (bench.report / "report.html").read_text()


def test_a_model_trained_on_more_of_the_test_is_refused_by_name_and_answers_nothing(bench: Bench) -> None:
    tests = of(bench.proteins, Split.TEST)
    bench.candidate = write_model(bench.folder / "cheater", tests[:7])
    bench.models[bench.candidate] = Oracle(bench.proteins, set())
    line = (
        r"cheater: trained on 7 proteins of the official test \(of 90; max_known_share=0.07\), e\.g\. TEST0, "
        r"TEST1, TEST2, TEST3, TEST4; evaluate on the records it was trained from"
    )
    with pytest.raises(DataError, match=line):
        bench.run(max_known_share=0.07)
    assert not bench.report.exists()
    assert bench.models[bench.candidate].asked == []


def test_with_a_gate_protein_that_the_champion_saw_its_cluster_is_left_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    # Gate proteins 0 to 9 are one cluster, of which the champion saw a single protein.
    bench.proteins = [
        replace(protein, cluster="GATE0") if protein in bench.gate[:10] else protein
        for protein in bench.proteins
    ]
    bench.records = write_records(tmp_path / "clustered", bench.proteins)
    champion = bench.add_champion(Oracle(bench.proteins, set()), [*bench.train, bench.gate[3]])
    bench.run(champion, "7")
    assert sorted(bench.models[champion].asked) == sorted(p.accession for p in bench.gate[10:])
    decision = bench.json("decision.json")
    assert decision["num_known_to_champion"] == 10
    assert decision["champion"]["num_proteins"] == decision["candidate_beside_champion"]["num_proteins"] == 50
    assert decision["known_to_champion"] == {
        "num_test": 0,
        "num_gate": 1,
        "num_gate_left_out": 10,
        "test": [],
        "gate": ["GATE3"],
    }


def test_a_champion_that_was_trained_on_the_test_is_compared_on_the_gate_and_named(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    tests = of(bench.proteins, Split.TEST)
    champion = bench.add_champion(Oracle(bench.proteins, set()), [*bench.train, *tests])
    bench.run(champion, "7")
    known = bench.json("decision.json")["known_to_champion"]
    assert (known["num_test"], known["num_gate_left_out"]) == (90, 0)
    assert known["test"] == [protein.accession for protein in tests]
    assert "the champion was trained on 90 proteins of the official test, e.g. TEST0, TEST1" in caplog.text
    page = (bench.report / "report.html").read_text()
    assert "This champion was trained on 90 proteins of the official test, e.g. TEST0," in page


def never_loaded(folder: Path) -> Any:
    raise AssertionError(f"{folder} was loaded")


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        (("Cytoplasm", "Nucleus"), "Cytoplasm, Nucleus"),
        (LOCATIONS[::-1], "Lysosome/Vacuole, Cytoplasm, Nucleus"),
    ],
)
def test_a_model_with_other_locations_or_another_order_is_refused_before_anything_is_computed(
    bench: Bench, labels: tuple[str, ...], named: str
) -> None:
    model = write_model(bench.folder / "other", bench.train, labels=labels)
    line = f"other: answers with locations {named}; the records have Nucleus, Cytoplasm, Lysosome/Vacuole;"
    with pytest.raises(DataError, match=line):
        evaluate(bench.records, model, bench.report, CONFIG, load_model=never_loaded)
    assert not bench.report.exists()


def test_a_model_with_another_alphabet_is_refused_before_anything_is_computed(bench: Bench) -> None:
    model = write_model(bench.folder / "other", bench.train, alphabet_sha256="f" * 64)
    with pytest.raises(ArtifactError, match=r"other: made with alphabet ffffffffffff, this prottune has "):
        evaluate(bench.records, model, bench.report, CONFIG, load_model=never_loaded)


def test_a_champion_with_another_alphabet_holds_the_candidate_and_is_never_loaded(bench: Bench) -> None:
    champion = bench.add_champion(Oracle(bench.proteins, set()), bench.train, alphabet_sha256="f" * 64)
    del bench.models[champion]
    (reason,) = bench.run(champion, "7").reasons
    assert reason.startswith(
        "cannot be compared with the champion version 7: it was made with alphabet ffffffffffff, this"
    )


@pytest.mark.parametrize("name", ["prottune.json", "training_proteins.parquet"])
def test_a_model_or_champion_with_a_changed_file_is_refused_before_anything_is_computed(
    bench: Bench, name: str
) -> None:
    damaged = write_model(bench.folder / "damaged", bench.train)
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"damaged/{name}: damaged, SHA-256 [0-9a-f]+, expected"):
        evaluate(bench.records, damaged, bench.report, CONFIG, load_model=never_loaded)
    with pytest.raises(ArtifactError, match=rf"damaged/{name}: damaged"):
        evaluate(bench.records, bench.candidate, bench.report, CONFIG, damaged, load_model=never_loaded)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"labels": ["Nucleus"]}, "prottune.json: alphabet_sha256 missing"),
        ({}, "prottune.json: labels and alphabet_sha256 missing"),
        (None, "prottune.json: missing; this is not a model that prottune trained"),
    ],
)
def test_a_model_that_does_not_describe_itself_is_refused(
    bench: Bench, content: dict[str, Any] | None, line: str
) -> None:
    with new_folder(bench.folder / "mute", "train", CONFIG) as draft:
        if content is not None:
            (draft.path / "prottune.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=line):
        evaluate(bench.records, bench.folder / "mute", bench.report, CONFIG, load_model=never_loaded)


def test_whether_the_model_was_trained_on_these_records_is_told(bench: Bench) -> None:
    bench.candidate = write_model(
        bench.folder / "own", bench.train, dataset_digest=read_manifest(bench.records).digest
    )
    bench.models[bench.candidate] = Oracle(bench.proteins, set())
    assert bench.run().metrics["trained_on_these_records"] is True
    assert "trained on other records" not in (bench.report / "report.html").read_text()
