"""Synthetic proteins in DeepLoc's format: they show whether the pipeline learns, and nothing about biology.

A location is told by sorting signals alone. Every protein carries decoys for the signals that it lacks,
at the same places and of the same residues, so that counting residues does not tell the locations apart
and reading their order does.

    write_sample(Path("sample.fasta"), SampleConfig())     # also writes signals.tsv beside it
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from prottune.errors import ConfigError
from prottune.records import DEEPLOC10, Membrane
from prottune.signals import Draws, Piece, Signal, background, decoy, signal

SIGNALS_FILE = "signals.tsv"
NOTICE = "SYNTHETIC proteins made by `prottune sample`: invented sequences, no biology, not for research"
_MIN_RESIDUES, _MAX_RESIDUES = 60, 300
_LINE_WIDTH = 60
_MIN_GAP = 3
_MAX_FILL = 0.55
"""Share of a protein that signals and decoys may take: the rest is its own, so proteins are no relatives."""
_TEST_SHARE = 0.2
_DUPLICATE_SHARE = 0.004
_ODD_SHARE = 0.01
_MISPLACED_SHARE = 0.25
_UNMARKED_SHARE = 0.03
"""Proteins whose signals are decoys too: nobody can place them, so a probability of 1 is never right."""
_ODD_RESIDUES = "XUBZ"

_HEADS = (Signal.SIGNAL_PEPTIDE, Signal.PRESEQUENCE, Signal.TRANSIT_PEPTIDE, Signal.SIGNAL_ANCHOR)
_TAILS = (Signal.RETENTION_TAIL, Signal.PEROXISOMAL_TAIL)


@dataclass(frozen=True)
class _Recipe:
    """How the proteins of one location are marked."""

    share: float
    signals: tuple[Signal, ...]
    membranes: str
    """Membrane flags, each as likely as it is frequent here."""


_RECIPES = {
    "Nucleus": _Recipe(0.14, (Signal.NUCLEAR,), "SSSU"),
    "Cytoplasm": _Recipe(0.13, (), "S"),
    "Extracellular": _Recipe(0.11, (Signal.SIGNAL_PEPTIDE,), "S"),
    "Mitochondrion": _Recipe(0.11, (Signal.PRESEQUENCE,), "SSMU"),
    "Cell.membrane": _Recipe(0.10, (Signal.HELIX,), "M"),
    "Endoplasmic.reticulum": _Recipe(0.09, (Signal.SIGNAL_PEPTIDE, Signal.RETENTION_TAIL), "SSSU"),
    "Plastid": _Recipe(0.09, (Signal.TRANSIT_PEPTIDE,), "SSMU"),
    "Golgi.apparatus": _Recipe(0.08, (Signal.SIGNAL_ANCHOR,), "M"),
    "Lysosome/Vacuole": _Recipe(0.08, (Signal.SIGNAL_PEPTIDE, Signal.VACUOLAR_MOTIF), "SSU"),
    "Peroxisome": _Recipe(0.07, (Signal.PEROXISOMAL_TAIL,), "SSU"),
}


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How many synthetic proteins are made, and which."""

    num_proteins: int = 3000
    """Proteins to write, duplicates included; at least 100."""
    seed: int = 43
    """Another seed gives other proteins; the same one the same bytes on every machine."""

    def __post_init__(self) -> None:
        if not 100 <= self.num_proteins < 100_000:
            raise ConfigError(f"num_proteins={self.num_proteins}: expected 100 to 99999")


@dataclass(frozen=True, kw_only=True)
class SampleReport:
    """What was written, in plain numbers."""

    notice: str
    """Says that everything is synthetic; show it."""
    fasta: str
    signals: str
    num_proteins: int
    num_test: int
    num_duplicates: int
    num_odd: int
    """Proteins with a letter that is no standard residue."""
    num_signals: int
    locations: dict[str, int]


@dataclass(frozen=True)
class _Synthetic:
    accession: str
    sequence: str
    location: str
    membrane: Membrane
    is_test: bool
    signals: tuple[tuple[int, int], ...]
    """First and last residue of each signal, counted from 1."""

    def fasta(self) -> str:
        header = f">{self.accession} {self.location}-{self.membrane.value}{' test' if self.is_test else ''}"
        lines = [self.sequence[at : at + _LINE_WIDTH] for at in range(0, len(self.sequence), _LINE_WIDTH)]
        return "\n".join([header, *lines]) + "\n"


def write_sample(output: Path, config: SampleConfig) -> SampleReport:
    """Write synthetic proteins as FASTA, and `signals.tsv` beside it, which says where their signals lie.

    Raises: ConfigError if `output` is a folder or has the name of the table of signals, or if one of the two
        files is there already.
    """
    if output.is_dir():
        raise ConfigError(f"{output} is a folder; expected the name of a FASTA file")
    if output.name == SIGNALS_FILE:
        raise ConfigError(
            f"{output}: {SIGNALS_FILE} is written beside the FASTA file; name that one otherwise"
        )
    signals = output.with_name(SIGNALS_FILE)
    for path in (output, signals):
        if path.exists():
            raise ConfigError(f"{path} exists already; name a file in another folder, or remove it")
    proteins = _synthesize(config)
    rows = [
        f"{protein.accession}\t{start}\t{end}\n" for protein in proteins for start, end in protein.signals
    ]
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes("".join(protein.fasta() for protein in proteins).encode("ascii"))
    signals.write_bytes(f"# {NOTICE}\naccession\tstart\tend\n{''.join(rows)}".encode("ascii"))
    sequences = [protein.sequence for protein in proteins]
    found = [protein.location for protein in proteins]
    return SampleReport(
        notice=NOTICE,
        fasta=str(output),
        signals=str(signals),
        num_proteins=len(proteins),
        num_test=sum(protein.is_test for protein in proteins),
        num_duplicates=len(sequences) - len(set(sequences)),
        num_odd=sum(not set(sequence).isdisjoint(_ODD_RESIDUES) for sequence in sequences),
        num_signals=len(rows),
        locations={location: found.count(location) for location in DEEPLOC10.locations},
    )


def _synthesize(config: SampleConfig) -> list[_Synthetic]:
    draws = Draws(config.seed)
    num_duplicates = round(config.num_proteins * _DUPLICATE_SHARE)
    proteins: list[_Synthetic] = []
    for number, location in enumerate(_locations(config.num_proteins - num_duplicates, draws), start=1):
        proteins.append(_protein(_accession(number), location, draws))
    for number in range(len(proteins) + 1, config.num_proteins + 1):
        twin = draws.pick(proteins)
        proteins.append(replace(twin, accession=_accession(number)))
    return proteins


def _accession(number: int) -> str:
    """Name a protein so that nobody takes it for a real one: UniProt's accessions have a digit second."""
    return f"SYN{number:05d}"


def _locations(num_proteins: int, draws: Draws) -> list[str]:
    """Every location as often as its share says, in random order."""
    counts = {location: int(recipe.share * num_proteins) for location, recipe in _RECIPES.items()}
    counts["Nucleus"] += num_proteins - sum(counts.values())
    return draws.shuffled([location for location, count in counts.items() for _ in range(count)])


def _protein(accession: str, location: str, draws: Draws) -> _Synthetic:
    recipe = _RECIPES[location]
    if draws.chance(_UNMARKED_SHARE):
        recipe = replace(recipe, signals=())
    pieces = _laid_out(_front(recipe, draws), _inside(recipe, draws), _back(recipe, draws), draws)
    if draws.chance(_ODD_SHARE):
        pieces = _with_odd_residue(pieces, draws)
    signals, position = [], 0
    for piece in pieces:
        if piece.is_signal:
            signals.append((position + 1, position + len(piece.residues)))
        position += len(piece.residues)
    return _Synthetic(
        accession=accession,
        sequence="".join(piece.residues for piece in pieces),
        location=location,
        membrane=Membrane(draws.pick(recipe.membranes)),
        is_test=draws.chance(_TEST_SHARE),
        signals=tuple(signals),
    )


def _marked(kind: Signal, recipe: _Recipe, draws: Draws) -> Piece:
    return signal(kind, draws) if kind in recipe.signals else decoy(kind, draws)


def _front(recipe: _Recipe, draws: Draws) -> list[Piece]:
    """Something like a targeting signal at the start, and soon after it something like a vacuolar motif."""
    kind = next((kind for kind in _HEADS if kind in recipe.signals), None) or draws.pick(_HEADS)
    gap = Piece(background(draws.integer(2, 5), draws))
    return [_marked(kind, recipe, draws), gap, _marked(Signal.VACUOLAR_MOTIF, recipe, draws)]


def _inside(recipe: _Recipe, draws: Draws) -> list[Piece]:
    """Two or three helices or broken ones, and a nuclear signal or a scattered one, in random order."""
    helices = [_marked(Signal.HELIX, recipe, draws) for _ in range(draws.integer(2, 3))]
    return draws.shuffled([*helices, _marked(Signal.NUCLEAR, recipe, draws)])


def _back(recipe: _Recipe, draws: Draws) -> list[Piece]:
    """A tail that works, or its letters in another order, or the whole tail too far inside to work."""
    kind = next((kind for kind in _TAILS if kind in recipe.signals), None)
    if kind is not None:
        return [signal(kind, draws)]
    kind = draws.pick(_TAILS)
    if draws.chance(_MISPLACED_SHARE):
        return [Piece(signal(kind, draws).residues), Piece(background(draws.integer(6, 12), draws))]
    return [decoy(kind, draws)]


def _laid_out(front: list[Piece], inside: list[Piece], back: list[Piece], draws: Draws) -> list[Piece]:
    """Join the pieces by background; decoys are left out of a protein that they would fill too much."""
    signals = [piece for piece in inside if piece.is_signal]
    length = max(draws.integer(_MIN_RESIDUES, _MAX_RESIDUES), _room([*front, *signals, *back], len(signals)))
    while len(inside) > len(signals) and _room([*front, *inside, *back], len(inside)) > _MAX_FILL * length:
        inside.remove(next(piece for piece in inside if not piece.is_signal))
    spare = length - _room([*front, *inside, *back], len(inside))
    cuts = [0, *sorted(draws.integer(0, spare) for _ in inside), spare]
    gaps = [Piece(background(_MIN_GAP + end - start, draws)) for start, end in pairwise(cuts)]
    joined = [gaps[0]]
    for piece, gap in zip(inside, gaps[1:], strict=True):
        joined += [piece, gap]
    return [*front, *joined, *back]


def _room(pieces: list[Piece], num_inside: int) -> int:
    """Residues that the pieces need, with the shortest gaps around those inside."""
    return sum(len(piece.residues) for piece in pieces) + _MIN_GAP * (num_inside + 1)


def _with_odd_residue(pieces: list[Piece], draws: Draws) -> list[Piece]:
    """Put one letter that is no standard residue where no signal is."""
    at = draws.pick([index for index, piece in enumerate(pieces) if index > 0 and not piece.is_signal])
    residues = draws.pick(_ODD_RESIDUES) + pieces[at].residues[1:]
    return [*pieces[:at], Piece(residues), *pieces[at + 1 :]]
