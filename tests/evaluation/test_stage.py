"""Evaluation from folder to folder, with a model that answers as told, and once with a real one."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_model import write_tiny_model

from prottune.alphabet import ALPHABET_SHA256
from prottune.artifacts import new_folder, read_manifest
from prottune.errors import ArtifactError, ConfigError, DataError
from prottune.evaluation import mistakes
from prottune.evaluation.mistakes import Attribute, AttributorLoader
from prottune.evaluation.settings import EvaluateConfig, EvaluateReport
from prottune.evaluation.stage import evaluate
from prottune.model.attribution import Attribution
from prottune.records import Membrane, Protein, Split, sequence_digest, slug, write_proteins

LOCATIONS = ("Nucleus", "Cytoplasm", "Lysosome/Vacuole")
CONFIG = EvaluateConfig(num_bootstraps=100, min_gate_proteins=20, explained_mistakes=0)
SIZES = {Split.TRAIN: 60, Split.VALIDATION: 9, Split.GATE: 60, Split.TEST: 90}


@dataclass(frozen=True)
class Words:
    """Settings of a made-up stage."""

    words: str = "none"


@dataclass(frozen=True)
class Said:
    """One answer of a made-up model."""

    probabilities: np.ndarray
    location: str
    probability: float
    confident: bool = True
    unlike_training: bool = False
    truncated: bool = False
    unlikeness: float | None = None
    membrane: float | None = None


class Oracle:
    """Knows the true location of every protein and is wrong, with confidence, about those it is told to.

    What is no protein it flags, half of the time: when the length is even.
    """

    def __init__(
        self, proteins: Sequence[Protein], wrong: set[str], labels: tuple[str, ...] = LOCATIONS
    ) -> None:
        self.labels = labels
        self._proteins = {protein.sequence: protein for protein in proteins}
        self._wrong = wrong
        self.asked: list[str] = []

    def predict(self, sequences: Sequence[str], /) -> list[Said]:
        return [
            self._say(self._proteins[sequence]) if sequence in self._proteins else self._guess(sequence)
            for sequence in sequences
        ]

    def _guess(self, sequence: str) -> Said:
        is_flagged = len(sequence) % 2 == 0
        evenly = np.full(len(self.labels), 1 / len(self.labels), np.float32)
        return Said(evenly, self.labels[0], float(evenly[0]), False, is_flagged, unlikeness=float(is_flagged))

    def _say(self, protein: Protein) -> Said:
        self.asked.append(protein.accession)
        number = self.labels.index(protein.location)
        if protein.accession in self._wrong:
            number = (number + 1) % len(self.labels)
        probabilities = np.full(len(self.labels), 0.05, np.float32)
        probabilities[number] = 1 - 0.05 * (len(self.labels) - 1)
        return Said(probabilities, self.labels[number], float(probabilities[number]), unlikeness=0.0)


class Broken(Oracle):
    """Answers with NaN."""

    def _say(self, protein: Protein) -> Said:
        return replace(super()._say(protein), probabilities=np.full(3, np.nan, np.float32))


def blame_the_end(folder: Path) -> Attribute:
    """A made-up explanation: the last residue speaks for every answer, the first against it."""

    def attribute(sequence: str, location: str) -> Attribution:
        scores_R = np.zeros(len(sequence))
        scores_R[[0, -1]] = -0.5, 2.0
        return Attribution(location, sequence, scores_R, None, difference=1.5, steps=32)

    return attribute


def make_proteins(sizes: dict[Split, int] = SIZES) -> list[Protein]:
    """Proteins of random residues, so that the floor can only guess; locations take turns."""
    generator = np.random.default_rng(5)
    proteins = []
    for split, size in sizes.items():
        for number in range(size):
            letters = "".join(generator.choice(list("ACDEFGHIKLMNPQRSTVWY"), generator.integers(40, 300)))
            accession = f"{split.value.upper()}{number}"
            location = LOCATIONS[number % 3]
            proteins.append(Protein(accession, letters, location, Membrane.UNKNOWN, split, accession))
    return proteins


def write_records(folder: Path, proteins: Sequence[Protein], locations: tuple[str, ...] = LOCATIONS) -> Path:
    with new_folder(folder, "ingest", Words()) as draft:
        write_proteins(proteins, draft.path)
        draft.facts |= {"label_set": "custom", "labels": list(locations)}
    return folder


def write_model(folder: Path, trained_on: Sequence[Protein], **description: Any) -> Path:
    """A model folder with nothing to load: the fakes above answer in its place."""
    with new_folder(folder, "train", Words(folder.name), {"tokens": "0" * 64}) as draft:
        write_training_proteins(draft.path, trained_on)
        told = {"base_model": "tiny", "labels": LOCATIONS, "alphabet_sha256": ALPHABET_SHA256} | description
        (draft.path / "prottune.json").write_text(json.dumps(told))
    return folder


def write_training_proteins(folder: Path, proteins: Sequence[Protein]) -> None:
    columns = {
        "base_accession": [protein.accession for protein in proteins],
        "sequence_sha256": [sequence_digest(protein.sequence) for protein in proteins],
    }
    pq.write_table(pa.table(columns), folder / "training_proteins.parquet")


class Bench:
    """Records, a candidate that is right about all but some proteins, and a place for the report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proteins = make_proteins()
        self.train = [protein for protein in self.proteins if protein.split is Split.TRAIN]
        self.gate = [protein for protein in self.proteins if protein.split is Split.GATE]
        self.records = write_records(folder / "records", self.proteins)
        self.candidate = write_model(folder / "candidate", self.train)
        self.report = folder / "report"
        wrong = {f"TEST{number}" for number in range(9)} | {f"GATE{number}" for number in range(6)}
        self.load_attributor: AttributorLoader = blame_the_end
        self.models: dict[Path, Oracle] = {self.candidate: Oracle(self.proteins, wrong)}

    def add_champion(self, model: Oracle, trained_on: Sequence[Protein], **description: Any) -> Path:
        champion = write_model(self.folder / "champion", trained_on, **description)
        self.models[champion] = model
        return champion

    def run(self, champion: Path | None = None, version: str = "", **changes: Any) -> EvaluateReport:
        return evaluate(
            self.records,
            self.candidate,
            self.report,
            replace(CONFIG, **changes),
            champion,
            version,
            load_model=self.models.__getitem__,
            load_attributor=self.load_attributor,
        )

    def json(self, name: str) -> Any:
        return json.loads((self.report / name).read_text())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_scores_stand_in_metrics_json_beside_the_floor(bench: Bench) -> None:
    report = bench.run()
    metrics = bench.json("metrics.json")
    assert metrics == report.metrics
    assert metrics["accuracy"] == metrics["test"]["accuracy"] == pytest.approx(0.9)
    assert metrics["gate"]["accuracy"] == pytest.approx(0.9)
    assert metrics["macro_f1"] == metrics["test"]["macro_f1"] == pytest.approx(0.9)
    assert metrics["mcc"] == metrics["test"]["mcc"] == pytest.approx(0.85)
    assert metrics["test"]["ece"] == pytest.approx(0.0, abs=1e-6)  # 90 % sure, 90 % right
    assert (metrics["test"]["num_proteins"], metrics["gate"]["num_proteins"]) == (90, 60)
    assert 0.1 < metrics["baseline"]["accuracy"] < 0.6
    assert metrics["baseline"] == metrics["test"]["baseline"]
    assert set(metrics["gate"]["baseline"]) == {
        *("accuracy", "macro_f1", "mcc", "top2_accuracy", "ece", "intervals", "by_relatives")
    }
    low, high = metrics["test"]["intervals"]["accuracy"]
    assert 0.8 < low < 0.9 < high < 1.0
    assert report.locations == list(LOCATIONS)
    assert report.confusion == [[27, 3, 0], [0, 27, 3], [3, 0, 27]]


def test_a_good_candidate_without_a_champion_is_promoted_and_the_reasons_are_written(bench: Bench) -> None:
    report = bench.run()
    decision = bench.json("decision.json")
    assert (decision["decision"], report.decision) == ("promote", "promote")
    assert decision["reasons"] == report.reasons
    assert decision["reasons"][-1] == "there is no champion to compare with"
    assert (decision["champion"], decision["champion_version"]) == (None, "")
    assert decision["candidate"]["accuracy"] == pytest.approx(0.9)
    assert decision["floor"]["num_proteins"] == 60


def test_the_official_test_never_decides(bench: Bench) -> None:
    all_tests = {f"TEST{number}" for number in range(90)}
    bench.models[bench.candidate] = Oracle(bench.proteins, wrong=all_tests)
    assert bench.run().decision == "promote"
    assert bench.json("metrics.json")["accuracy"] == 0.0


def test_a_candidate_under_the_floor_is_held(bench: Bench) -> None:
    bench.models[bench.candidate] = Oracle(bench.proteins, wrong={f"GATE{number}" for number in range(60)})
    assert bench.run().decision == "hold"
    decision = bench.json("decision.json")
    assert decision["reasons"][0].startswith("accuracy 0.000 on 60 gate proteins is not above the floor's 0.")


def test_too_few_gate_proteins_hold(bench: Bench) -> None:
    assert bench.run(min_gate_proteins=61).reasons == [
        "the gate split has 60 proteins; at least 61 are needed to decide"
    ]


def test_a_better_champion_on_the_same_gate_proteins_holds_the_candidate(bench: Bench) -> None:
    champion = bench.add_champion(Oracle(bench.proteins, wrong={"GATE0"}), bench.train)
    report = bench.run(champion, "7")
    difference = bench.json("decision.json")["difference_to_champion"]
    low, high = difference["low"], difference["high"]
    assert difference["accuracy"] == pytest.approx(-5 / 60)
    assert -0.2 < low < -0.1 < high < 0
    assert report.reasons == [
        "accuracy 0.900 against the champion version 7's 0.983 on the same 60 gate proteins: the 95 % "
        f"interval of the difference, {low:+.3f} to {high:+.3f}, reaches a loss of 0.02"
    ]
    assert sorted(bench.models[champion].asked) == sorted(protein.accession for protein in bench.gate)
    decision = bench.json("decision.json")
    assert decision["champion_version"] == "7"
    assert decision["champion"]["accuracy"] == pytest.approx(59 / 60)
    assert bench.json("metrics.json")["gate"]["champion"] == decision["champion"]
    assert read_manifest(bench.report, "evaluate").inputs["champion"] == read_manifest(champion).digest


def test_an_equal_champion_does_not_hold_the_candidate(bench: Bench) -> None:
    champion = bench.add_champion(bench.models[bench.candidate], bench.train)
    assert bench.run(champion, "7").decision == "promote"


def test_gate_proteins_that_the_champion_was_trained_on_are_left_out_of_the_comparison(bench: Bench) -> None:
    # The champion is right about what it was trained on and wrong about all else.
    unknown = {protein.accession for protein in bench.gate[30:]}
    champion = bench.add_champion(Oracle(bench.proteins, wrong=unknown), [*bench.train, *bench.gate[:30]])
    report = bench.run(champion, "7")
    assert report.decision == "promote"
    assert report.reasons[-2] == (
        "accuracy 1.000 against the champion version 7's 0.000 on the same 30 gate proteins (30 that are not "
        "new to it left out): the 95 % interval of the difference, +1.000 to +1.000, stays above a loss of "
        "0.02"
    )
    assert set(bench.models[champion].asked) == unknown
    assert bench.json("decision.json")["num_known_to_champion"] == 30


def test_a_champion_that_knows_nearly_all_of_the_gate_holds_the_candidate(bench: Bench) -> None:
    champion = bench.add_champion(Oracle(bench.proteins, wrong=set()), bench.gate[:50])
    assert bench.run(champion, "7").reasons == [
        "cannot be compared with the champion version 7: 50 gate proteins are not new to it, which leaves "
        "10, of at least 20 needed"
    ]


def test_a_champion_with_other_locations_holds_the_candidate(bench: Bench) -> None:
    champion = bench.add_champion(Oracle(bench.proteins, set()), bench.train, labels=["A", "B"])
    assert bench.run(champion, "7").reasons == [
        "cannot be compared with the champion version 7: it answers with other locations (A, B)"
    ]
    assert bench.json("decision.json")["champion"] is None
    assert bench.models[champion].asked == []


def test_a_model_that_answers_nan_is_held_and_nothing_written_is_nan(bench: Bench) -> None:
    bench.models[bench.candidate] = Broken(bench.proteins, wrong=set())
    report = bench.run()
    assert report.reasons == ["not all figures of the candidate are finite numbers"]
    assert report.confusion == [[0, 0, 0]] * 3
    assert bench.json("metrics.json")["test"]["num_not_finite"] == 90
    assert "accuracy" not in bench.json("metrics.json")
    assert bench.json("decision.json")["candidate"] == {"num_proteins": 60}
    assert "not all finite numbers" in (bench.report / "report.html").read_text()
    assert "NaN" not in (bench.report / "metrics.json").read_text()


def test_a_champion_that_answers_nan_holds_the_candidate(bench: Bench) -> None:
    champion = bench.add_champion(Broken(bench.proteins, wrong=set()), bench.train)
    assert bench.run(champion, "7").reasons == [
        "cannot be compared with the champion version 7: its figures are not finite numbers"
    ]


def test_a_candidate_trained_on_gate_proteins_is_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    bench.candidate = write_model(tmp_path / "cheater", [*bench.train, *bench.gate[:7]])
    bench.models[bench.candidate] = Oracle(bench.proteins, set())
    with pytest.raises(
        DataError, match=r"cheater: trained on 7 proteins .* GATE0, GATE1, GATE2, GATE3, GATE4;"
    ):
        bench.run()
    assert not bench.report.exists()
    assert bench.models[bench.candidate].asked == []


def test_a_copy_of_a_gate_protein_under_another_name_is_found_by_its_sequence(
    bench: Bench, tmp_path: Path
) -> None:
    bench.candidate = write_model(tmp_path / "cheater", [replace(bench.gate[3], accession="OTHER")])
    with pytest.raises(DataError, match=r"trained on 1 proteins of the gate split, e\.g\. GATE3;"):
        bench.run()


def test_another_isoform_of_a_gate_protein_is_found_by_its_base_accession(tmp_path: Path) -> None:
    isoform = replace(make_proteins()[-1], accession="P22462-2", split=Split.GATE)
    records = write_records(tmp_path / "records", [*make_proteins(), isoform])
    model = write_model(tmp_path / "model", [replace(make_proteins()[0], accession="P22462")])
    with pytest.raises(DataError, match="P22462-2"):
        evaluate(records, model, tmp_path / "report", CONFIG)


@pytest.mark.parametrize("split", ["train", "test"])
def test_records_without_training_or_test_proteins_are_refused(tmp_path: Path, split: str) -> None:
    proteins = [protein for protein in make_proteins() if protein.split != split]
    records = write_records(tmp_path / "records", proteins)
    model = write_model(tmp_path / "model", [])
    with pytest.raises(DataError, match=f"no protein in split '{split}'"):
        evaluate(records, model, tmp_path / "report", CONFIG)


def test_records_without_a_gate_split_are_scored_and_held(tmp_path: Path) -> None:
    proteins = [protein for protein in make_proteins() if protein.split is not Split.GATE]
    records = write_records(tmp_path / "records", proteins)
    model = write_model(tmp_path / "model", [])
    oracle = Oracle(proteins, set())
    report = evaluate(records, model, tmp_path / "report", CONFIG, load_model=lambda _: oracle)
    assert report.reasons == ["the gate split has 0 proteins; at least 20 are needed to decide"]
    assert report.metrics["accuracy"] == 1.0
    assert report.metrics["gate"] == {"num_proteins": 0, "num_known": 0, "baseline": {}, "membrane": None}


def test_locations_that_would_share_a_column_are_refused(tmp_path: Path) -> None:
    records = write_records(tmp_path / "records", make_proteins(), (*LOCATIONS, "lysosome vacuole"))
    with pytest.raises(DataError, match="Lysosome/Vacuole, lysosome vacuole"):
        evaluate(records, write_model(tmp_path / "model", []), tmp_path / "report", CONFIG)


def test_a_model_that_does_not_tell_what_it_was_trained_on_is_refused(bench: Bench, tmp_path: Path) -> None:
    with new_folder(tmp_path / "silent", "train", Words()) as draft:
        told = {"labels": LOCATIONS, "alphabet_sha256": ALPHABET_SHA256}
        (draft.path / "prottune.json").write_text(json.dumps(told))
    bench.candidate = tmp_path / "silent"
    with pytest.raises(ArtifactError, match=r"training_proteins.parquet: missing"):
        bench.run()


def test_a_table_of_training_proteins_with_other_columns_is_refused(bench: Bench, tmp_path: Path) -> None:
    with new_folder(tmp_path / "odd", "train", Words()) as draft:
        shutil.copy(bench.candidate / "prottune.json", draft.path)
        pq.write_table(pa.table({"name": ["a"]}), draft.path / "training_proteins.parquet")
    bench.candidate = tmp_path / "odd"
    with pytest.raises(ArtifactError, match=r"columns \['name'\], expected"):
        bench.run()


def test_folders_of_other_stages_and_a_used_place_are_refused(bench: Bench) -> None:
    with pytest.raises(ArtifactError, match="made by stage 'train', expected one made by 'ingest'"):
        evaluate(bench.candidate, bench.candidate, bench.report, CONFIG)
    with pytest.raises(ArtifactError, match="made by stage 'ingest', expected one made by 'train'"):
        evaluate(bench.records, bench.records, bench.report, CONFIG)
    bench.run()
    with pytest.raises(ConfigError, match="exists already"):
        bench.run()


def test_predictions_are_one_row_a_scored_protein(bench: Bench) -> None:
    bench.run()
    table = pq.read_table(bench.report / "predictions.parquet")
    assert table.schema.names == [
        *("accession", "split", "location", "predicted", "probability"),
        *(f"p_{slug(location)}" for location in LOCATIONS),
        *("confident", "unlike_training", "truncated", "num_residues", "correct"),
        *("membrane_flag", "membrane", "relative", "identity"),
    ]
    rows = {row["accession"]: row for row in table.to_pylist()}
    assert len(rows) == 150
    assert rows["TEST0"] == {
        "accession": "TEST0",
        "split": "test",
        "location": "Nucleus",
        "predicted": "Cytoplasm",
        "probability": pytest.approx(0.9),
        "p_nucleus": pytest.approx(0.05),
        "p_cytoplasm": pytest.approx(0.9),
        "p_lysosome_vacuole": pytest.approx(0.05),
        "confident": True,
        "unlike_training": False,
        "truncated": False,
        "correct": False,
        "membrane_flag": "U",
        "membrane": None,
        "relative": None,
        "identity": None,
        "num_residues": next(p.num_residues for p in bench.proteins if p.accession == "TEST0"),
    }
    assert sum(row["correct"] for row in rows.values()) == 150 - 15


def test_the_floor_is_fitted_on_training_proteins_alone(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    # Give validation proteins a composition that would teach a floor fitted on them; nothing may change.
    letters = dict(zip(LOCATIONS, "ACD", strict=True))
    told = [
        replace(protein, sequence=letters[protein.location] * 50)
        if protein.split is Split.VALIDATION
        else protein
        for protein in bench.proteins
    ]
    records = write_records(tmp_path / "told", told)
    other = evaluate(
        records, bench.candidate, tmp_path / "other", CONFIG, load_model=bench.models.__getitem__
    )
    assert other.metrics["baseline"] == bench.json("metrics.json")["baseline"]


def test_equal_inputs_make_equal_folders(bench: Bench, tmp_path: Path) -> None:
    bench.run()
    first, bench.report = bench.report, tmp_path / "again"
    bench.run()
    assert read_manifest(first).digest == read_manifest(bench.report).digest
    assert (first / "report.html").read_bytes() == (bench.report / "report.html").read_bytes()


def test_the_page_shows_decision_scores_mistakes_and_provenance(bench: Bench) -> None:
    bench.run(bench.add_champion(Oracle(bench.proteins, {"GATE0"}), bench.train), "7")
    page = (bench.report / "report.html").read_text()
    assert "names the right location for 90.0\u00a0% of 90 official test proteins" in page
    assert "It is held" in page
    assert "against the champion version 7&#x27;s 0.983" in page
    assert page.count("<svg") == 6
    mistakes = page[page.index("<h2>The surest mistakes") : page.index("<h2>Where this comes from")]
    assert len(re.findall(r"<td>TEST\d</td>", mistakes)) == 9
    for folder in (bench.records, bench.candidate, bench.folder / "champion"):
        assert read_manifest(folder).digest in page


def test_the_first_mistakes_show_which_residues_misled_the_model(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = {protein.accession: protein.num_residues for protein in bench.proteins}
    monkeypatch.setattr(mistakes, "MAX_EXPLAINED_RESIDUES", lengths["TEST1"] - 1)
    bench.run(explained_mistakes=2)
    found = bench.json("metrics.json")["test"]["mistakes"]
    assert [mistake["accession"] for mistake in found[:3]] == ["TEST0", "TEST1", "TEST2"]
    assert lengths["TEST0"] < lengths["TEST1"]
    last = lengths["TEST0"]
    assert [mistake["misled_by"] for mistake in found] == [
        {"first": last - 19, "last": last, "share": 1.0, "complete": True, "steps": 32},
        *([None] * 8),
    ]
    page = (bench.report / "report.html").read_text()
    assert re.findall(r"<details><summary>(.*?)</summary>", page) == [
        "TEST0: Cytoplasm (0.900), in truth Nucleus"
    ]
    assert f"Residues {last - 19} to {last} hold 100.0\u00a0% of what speaks for Cytoplasm." in page
    assert f"TEST1 has {lengths['TEST1']} residues; only proteins of up to {lengths['TEST1'] - 1}" in page


def test_less_than_no_mistakes_cannot_be_explained() -> None:
    with pytest.raises(ConfigError, match="explained_mistakes=-1: expected at least 0"):
        EvaluateConfig(explained_mistakes=-1)


def test_no_model_is_loaded_to_explain_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    bench.load_attributor = lambda folder: loaded.append(folder) or blame_the_end(folder)
    bench.run(explained_mistakes=0)
    assert "<details>" not in (bench.report / "report.html").read_text()
    monkeypatch.setattr(mistakes, "MAX_EXPLAINED_RESIDUES", 10)
    bench.report = bench.folder / "again"
    bench.run(explained_mistakes=3)
    assert (bench.report / "report.html").read_text().count("only proteins of up to 10 are") == 3
    assert loaded == []


def test_metrics_say_what_the_probabilities_are_worth(bench: Bench) -> None:
    """10 % of the answers are wrong; all are given with 90 % after a temperature of 1."""
    report = bench.run()
    test = bench.json("metrics.json")["test"]
    assert test["calibration"]["temperature"] == 1.0
    assert test["calibration"]["before"]["ece"] == pytest.approx(test["ece"], abs=1e-6)
    (point,) = test["rejection"]
    assert (point["num_proteins"], point["accuracy"]) == (90, pytest.approx(0.9))
    assert test["confident"] == {"num_proteins": 90, "share": 1.0, "accuracy": pytest.approx(0.9)}
    even = np.mean([p.num_residues % 2 == 0 for p in bench.proteins if p.split is Split.TEST])
    found = {"auroc": pytest.approx(0.5 + even / 2), "share_flagged": pytest.approx(even)}
    assert test["unlike_training"] == {
        "num_proteins": 0,
        "share": 0.0,
        "accuracy_of_others": pytest.approx(0.9),
        "strangers": {"num_proteins": 90, "share_flagged": 0.0, "shuffled": found, "random": found},
    }
    # Of 270 questions "is it there?", 81 of 90 true ones and 9 of 180 others get 0.9, the rest 0.05.
    assert report.roc == ([0.0, 0.05, 1.0], [0.0, 0.9, 1.0], [1.0, pytest.approx(0.9), pytest.approx(0.05)])
    assert test["roc"]["area"] == pytest.approx(0.925)


def test_the_summary_in_markdown_has_decision_reasons_and_scores(bench: Bench) -> None:
    summary = bench.run(bench.add_champion(Oracle(bench.proteins, {"GATE0"}), bench.train), "7").summary
    assert summary.startswith("# Hold\n")
    assert "- accuracy 0.900 against the champion version 7's 0.983" in summary
    assert "## Official test: 90 proteins" in summary
    assert "| accuracy | 0.900 |" in summary
    assert "model less champion, with 95 % interval: -0.083 (" in summary


def test_a_real_model_is_evaluated_as_the_endpoint_would_load_it(tmp_path: Path) -> None:
    proteins = make_proteins({Split.TRAIN: 30, Split.VALIDATION: 3, Split.GATE: 24, Split.TEST: 24})
    records = write_records(tmp_path / "records", proteins)
    bare = write_tiny_model(tmp_path / "bare", LOCATIONS)
    with new_folder(tmp_path / "model", "train", Words()) as draft:
        for path in bare.iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, draft.path)
        write_training_proteins(draft.path, proteins[:30])
    config = replace(CONFIG, explained_mistakes=1)
    report = evaluate(records, tmp_path / "model", tmp_path / "report", config, tmp_path / "model", "1")
    table = pq.read_table(tmp_path / "report" / "predictions.parquet").to_pandas()
    from prottune.model.inference import Predictor

    answers = Predictor.load(tmp_path / "model").predict([protein.sequence for protein in proteins[33:]])
    assert table["predicted"].tolist() == [answer.location for answer in answers]
    decision = json.loads((tmp_path / "report" / "decision.json").read_text())
    assert decision["champion"] == decision["candidate"] == decision["candidate_beside_champion"]
    assert report.metrics["gate"]["champion"]["num_proteins"] == 24
    assert report.metrics["test"]["mistakes"][0]["misled_by"]["complete"]
    assert report.metrics["test"]["unlike_training"]["strangers"]["num_proteins"] == 24
    assert "1111111111111111" in (tmp_path / "report" / "report.html").read_text()  # the base model's digest
