"""The synthetic proteins: the same bytes everywhere, DeepLoc's format, and only order tells locations."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from prottune.alphabet import STANDARD_RESIDUES, clean
from prottune.errors import ConfigError
from prottune.evaluation.floor import fit_floor
from prottune.fasta import read_fasta
from prottune.ingestion.clustering import find_clusters
from prottune.records import DEEPLOC10
from prottune.sample import NOTICE, SIGNALS_FILE, SampleConfig, SampleReport, write_sample
from prottune.signals import Draws, Signal, decoy, signal

FASTA_SHA256 = "0d9943af784eef0ce395d88c9dec5161c511c76b85998a843e95736fe9967077"
SIGNALS_SHA256 = "5f17513c8d9e0338665befd7a315b75f103ce5b116bebd8601ea483154a3fd04"
UNIPROT_ACCESSION = r"([OPQ]\d[A-Z\d]{3}\d|[A-NR-Z]\d([A-Z][A-Z\d]{2}\d){1,2})(-\d+)?"
WORKING = {
    "Nucleus": r"PKKKRKV|KRP.{10}KKKRK",
    "Extracellular": r"M[KR]{2}[STNQG][LVIFAMCG]{11}A.A",
    "Mitochondrion": r"ML(R[^R]{2}){6}",
    "Cell.membrane": r"[KR]{2}[LVIFAMCG]{18,20}[DE]{2}",
    "Endoplasmic.reticulum": r"M[KR]{2}[STNQG][LVIFAMCG]{11}A.A|[KH]DEL",
    "Plastid": r"MA[STAPNG]{2}FG[STAPNG]{2}LK[STAPNG]{4}VR[STAPNG]{2}CP",
    "Golgi.apparatus": r"M[KR]{3}[STNQG][LVIFAMCG]{18}P[STNQG]P[SAPNGT]P[STNQG]",
    "Lysosome/Vacuole": r"M[KR]{2}[STNQG][LVIFAMCG]{11}A.A|NP[IL]RLP",
    "Peroxisome": r"KP[SA]KL",
}
"""What a segment of signals.tsv may spell in each location."""


@dataclass(frozen=True)
class Read:
    """One protein as a reader of the file sees it."""

    accession: str
    sequence: str
    location: str
    flag: str
    is_test: bool


@dataclass(frozen=True)
class Sample:
    """The default sample, read back."""

    fasta: Path
    report: SampleReport
    proteins: list[Read]
    signals: dict[str, list[tuple[int, int]]]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    fasta = tmp_path_factory.mktemp("sample") / "sample.fasta"
    report = write_sample(fasta, SampleConfig())
    signals = defaultdict(list)
    for line in (fasta.parent / SIGNALS_FILE).read_text().splitlines()[2:]:
        accession, start, end = line.split("\t")
        signals[accession].append((int(start), int(end)))
    return Sample(fasta, report, read_back(fasta), dict(signals))


def read_back(fasta: Path) -> list[Read]:
    proteins = []
    with fasta.open("rb") as stream:
        for record in read_fasta(stream, fasta.name):
            header = re.fullmatch(r"(SYN\d{5}) ([A-Z][A-Za-z./]+)-([MSU])( test)?", record.header)
            assert header is not None, f"not DeepLoc's header: {record.header!r}"
            accession, location, flag, test = header.groups()
            proteins.append(Read(accession, record.sequence, location, flag, test is not None))
    return proteins


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_settings_give_the_same_bytes_on_every_machine(sample: Sample):
    assert sha256(sample.fasta) == FASTA_SHA256
    assert sha256(sample.fasta.parent / SIGNALS_FILE) == SIGNALS_SHA256


def test_another_seed_gives_other_proteins(sample: Sample, tmp_path: Path):
    write_sample(tmp_path / "other.fasta", SampleConfig(seed=44))
    shared = {protein.sequence for protein in sample.proteins} & {
        protein.sequence for protein in read_back(tmp_path / "other.fasta")
    }
    assert shared == set()


def test_the_report_counts_what_the_file_holds(sample: Sample):
    proteins, report = sample.proteins, sample.report
    sequences = [protein.sequence for protein in proteins]
    assert report.num_proteins == len(proteins) == 3000
    assert report.num_test == sum(protein.is_test for protein in proteins)
    assert report.num_duplicates == len(sequences) - len(set(sequences)) == 12
    assert report.num_odd == sum(not set(sequence) <= set(STANDARD_RESIDUES) for sequence in sequences)
    assert report.num_signals == sum(map(len, sample.signals.values()))
    assert report.locations == Counter(protein.location for protein in proteins)
    assert (report.fasta, report.signals) == (str(sample.fasta), str(sample.fasta.parent / SIGNALS_FILE))


def test_everybody_is_told_that_all_is_synthetic(sample: Sample):
    assert "SYNTHETIC" in NOTICE
    assert sample.report.notice == NOTICE
    assert (sample.fasta.parent / SIGNALS_FILE).read_text().splitlines()[:2] == [
        f"# {NOTICE}",
        "accession\tstart\tend",
    ]


def test_no_accession_can_be_taken_for_a_real_one(sample: Sample):
    accessions = [protein.accession for protein in sample.proteins]
    assert len(set(accessions)) == 3000
    assert not any(re.fullmatch(UNIPROT_ACCESSION, accession) for accession in accessions)


def test_every_location_is_there_often_enough_and_a_fifth_of_it_is_test(sample: Sample):
    assert set(sample.report.locations) == set(DEEPLOC10.locations)
    assert min(sample.report.locations.values()) >= 150
    assert 0.18 <= sample.report.num_test / 3000 <= 0.22
    for location, count in sample.report.locations.items():
        num_test = sum(protein.is_test for protein in sample.proteins if protein.location == location)
        assert 0.12 <= num_test / count <= 0.28, location


def test_lengths_and_letters_are_those_of_small_proteins(sample: Sample):
    for protein in sample.proteins:
        assert 60 <= len(protein.sequence) <= 300
        assert protein.sequence[0] == "M"
        assert set(protein.sequence) <= set(STANDARD_RESIDUES + "XUBZ")
    odd = Counter("".join(protein.sequence for protein in sample.proteins))
    assert all(0 < odd[letter] < 20 for letter in "XUBZ")


def test_lines_are_wrapped_at_sixty_residues(sample: Sample):
    lines = sample.fasta.read_text(encoding="ascii").splitlines()
    assert max(len(line) for line in lines if not line.startswith(">")) == 60


def test_copies_agree_on_location_split_and_membrane(sample: Sample):
    copies = defaultdict(set)
    for protein in sample.proteins:
        copies[protein.sequence].add((protein.location, protein.is_test, protein.flag))
    assert all(len(answers) == 1 for answers in copies.values())


def test_membrane_flags_fit_the_location(sample: Sample):
    flags = defaultdict(set)
    for protein in sample.proteins:
        flags[protein.location].add(protein.flag)
    assert flags["Cell.membrane"] == flags["Golgi.apparatus"] == {"M"}
    assert flags["Cytoplasm"] == flags["Extracellular"] == {"S"}
    assert flags["Mitochondrion"] == {"M", "S", "U"}


def test_signals_lie_where_the_table_says(sample: Sample):
    for protein in sample.proteins:
        for start, end in sample.signals.get(protein.accession, []):
            segment = protein.sequence[start - 1 : end]
            assert re.fullmatch(WORKING[protein.location], segment), f"{protein}: {start}-{end} {segment}"


def test_signals_stand_at_the_end_that_they_belong_to(sample: Sample):
    for protein in sample.proteins:
        segments = sample.signals.get(protein.accession, [])
        if segments and protein.location == "Peroxisome":
            assert segments == [(len(protein.sequence) - 4, len(protein.sequence))]
        if segments and protein.location == "Endoplasmic.reticulum":
            assert [segments[0][0], segments[-1][1]] == [1, len(protein.sequence)]
        if segments and protein.location in ("Extracellular", "Mitochondrion", "Plastid", "Golgi.apparatus"):
            assert [start for start, _ in segments] == [1]
        if segments and protein.location == "Cell.membrane":
            assert len(segments) in (2, 3)


def test_cytoplasm_and_a_few_others_have_no_signal(sample: Sample):
    unmarked = Counter(p.location for p in sample.proteins if p.accession not in sample.signals)
    assert unmarked.pop("Cytoplasm") == sample.report.locations["Cytoplasm"]
    others = 3000 - sample.report.locations["Cytoplasm"]
    assert 0.01 <= unmarked.total() / others <= 0.05


@pytest.mark.parametrize("kind", list(Signal))
def test_a_decoy_has_the_residues_of_its_signal_in_another_order(kind: Signal):
    def fixed(skeleton: str) -> str:
        return "".join(sorted(skeleton.replace(" ", "").replace("x", "")))

    signals = {fixed(skeleton) for skeleton in kind.value.signals}
    assert {fixed(skeleton) for skeleton in kind.value.decoys} <= signals
    assert set(kind.value.signals).isdisjoint(kind.value.decoys)


@pytest.mark.parametrize("kind", list(Signal))
def test_a_piece_says_whether_it_works(kind: Signal):
    assert signal(kind, Draws(1)).is_signal
    assert not decoy(kind, Draws(1)).is_signal


def test_tail_letters_stand_elsewhere_too(sample: Sample):
    inside = Counter(
        protein.location
        for protein in sample.proteins
        if re.search("[KH]DEL.{6,12}$", protein.sequence) and protein.location != "Endoplasmic.reticulum"
    )
    assert inside.total() >= 100
    assert len(inside) == 9


def test_draws_are_fair_and_keep_their_bounds():
    draws = Draws(5)
    numbers = Counter(draws.integer(2, 4) for _ in range(3000))
    assert set(numbers) == {2, 3, 4}
    assert min(numbers.values()) > 900
    assert sorted(draws.shuffled("abcdef")) == list("abcdef")
    orders = Counter("".join(draws.shuffled("abc")) for _ in range(6000))
    assert len(orders) == 6
    assert min(orders.values()) > 850


def test_counting_residues_does_not_tell_the_locations_apart(sample: Sample):
    train = [protein for protein in sample.proteins if not protein.is_test]
    test = [protein for protein in sample.proteins if protein.is_test]
    labels = np.array([DEEPLOC10.index(protein.location) for protein in train])
    floor = fit_floor([clean(protein.sequence) for protein in train], labels, len(DEEPLOC10))
    answers = floor.probabilities([clean(protein.sequence) for protein in test]).argmax(axis=1)
    right = answers == np.array([DEEPLOC10.index(protein.location) for protein in test])
    assert 0.45 <= right.mean() <= 0.65


@pytest.mark.parametrize("num_proteins", [99, 100_000])
def test_too_few_or_too_many_proteins_are_refused(num_proteins: int):
    with pytest.raises(ConfigError, match=f"num_proteins={num_proteins}: expected 100 to 99999"):
        SampleConfig(num_proteins=num_proteins)


def test_a_small_sample_has_every_location(tmp_path: Path):
    report = write_sample(tmp_path / "deep" / "small.fasta", SampleConfig(num_proteins=100))
    assert report.num_proteins == len(read_back(tmp_path / "deep" / "small.fasta")) == 100
    assert min(report.locations.values()) >= 6


def test_a_place_that_cannot_hold_the_file_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="is a folder"):
        write_sample(tmp_path, SampleConfig(num_proteins=100))
    with pytest.raises(ConfigError, match=r"signals\.tsv"):
        write_sample(tmp_path / SIGNALS_FILE, SampleConfig(num_proteins=100))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_test_proteins_have_hardly_a_relative_in_train(sample: Sample, tmp_path: Path):
    proteins = sample.proteins
    clusters = find_clusters(
        [protein.accession for protein in proteins],
        [clean(protein.sequence) for protein in proteins],
        min_identity=0.3,
        min_coverage=0.8,
        scratch=tmp_path,
    )
    train = {cluster for protein, cluster in zip(proteins, clusters, strict=True) if not protein.is_test}
    test = [cluster for protein, cluster in zip(proteins, clusters, strict=True) if protein.is_test]
    assert sum(cluster in train for cluster in test) / len(test) <= 0.05
