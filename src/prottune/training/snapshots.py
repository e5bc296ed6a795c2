"""All of a training run at one moment, on the host: tensors and numbers that fit into a folder and back.

A moment is a border between two steps, where nothing is half done. Random numbers are not part of it: at
every border each rank starts them anew from (seed, step, rank).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from prottune.training.history import HISTORY_FILE

_MODEL_FILE = "model.safetensors"
_OPTIMIZER_FILE = "optimizer.safetensors"
_BEST_FILE = "best.safetensors"
_STATE_FILE = "state.json"
_BEST_LOGITS = "logits_NO"
_BEST_WEIGHTS = "weights."


@dataclass
class Best:
    """The epoch with the lowest calibrated validation loss of the location so far.

    The model that is kept will be calibrated, so overconfidence, which grows while accuracy still does, must
    not decide which epoch that is. The membrane flag, as a second task, has no say either.
    """

    epoch: int = 0
    loss: float = float("inf")
    accuracy: float = 0.0
    logits_NO: Tensor = field(default_factory=lambda: torch.empty(0))
    """Of the N validation proteins, all outputs of the model."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """Of what is trained, on the host, and on rank 0 only."""


@dataclass
class Outcome:
    """What a run of the loop leaves behind."""

    best: Best = field(default_factory=Best)
    num_steps: int = 0
    epochs_run: int = 0
    num_tokens: int = 0
    """Read in training, by all ranks."""
    training_seconds: float = 0.0


@dataclass
class Place:
    """How far a run has come."""

    step: int = 0
    """Optimizer steps that are done."""
    epoch: int = 1
    """The epoch that is being trained."""
    position: int = 0
    """Steps of that epoch that are done; all of them while it is validated."""
    ended: bool = False


@dataclass
class Pace:
    """What has gone by since the last point of the curve."""

    loss: float = 0.0
    steps: int = 0
    proteins: int = 0
    tokens: int = 0
    seconds_before: float = 0.0
    """Time that went by before the run was resumed."""
    started: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """Time that has gone by in this run and in those that it goes on from."""
        return self.seconds_before + time.perf_counter() - self.started


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment: copies, which nothing that goes on changes."""

    place: Place
    outcome: Outcome
    pace: Pace
    model: Mapping[str, Tensor]
    """Of what is trained; the rest is the base's."""
    optimizer: Mapping[str, Tensor]
    history: bytes
    """Points of the curve up to this moment."""

    def write(self, folder: Path) -> None:
        """Write the moment as safetensors and JSON.

        Raises: OSError or SafetensorError if the disk is full.
        """
        safetensors.torch.save_file(dict(self.model), folder / _MODEL_FILE)
        safetensors.torch.save_file(dict(self.optimizer), folder / _OPTIMIZER_FILE)
        best = self.outcome.best
        weights = {_BEST_WEIGHTS + name: tensor for name, tensor in best.weights.items()}
        safetensors.torch.save_file({_BEST_LOGITS: best.logits_NO, **weights}, folder / _BEST_FILE)
        (folder / HISTORY_FILE).write_bytes(self.history)
        state = {
            "place": asdict(self.place),
            "outcome": {n: value for n, value in vars(self.outcome).items() if n != "best"},
            "best": {n: getattr(best, n) for n in ("epoch", "loss", "accuracy")} if best.epoch else {},
            "pace": {n: value for n, value in vars(self.pace).items() if n != "started"},
        }
        text = json.dumps(state, indent=1, allow_nan=False) + "\n"
        (folder / _STATE_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path, *, leads: bool) -> Self:
        """Read a moment from a folder whose manifest was checked; only rank 0 needs the best weights."""
        state = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
        tensors = _read(folder / _BEST_FILE) if leads else _read(folder / _BEST_FILE, _BEST_LOGITS)
        best = Best(**state["best"], logits_NO=tensors.pop(_BEST_LOGITS))
        best.weights = {name.removeprefix(_BEST_WEIGHTS): tensor for name, tensor in tensors.items()}
        return cls(
            place=Place(**state["place"]),
            outcome=Outcome(best, **state["outcome"]),
            pace=Pace(**state["pace"]),
            model=_read(folder / _MODEL_FILE),
            optimizer=_read(folder / _OPTIMIZER_FILE),
            history=(folder / HISTORY_FILE).read_bytes(),
        )


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the host's memory, which training does not write to."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What an optimizer remembers of each parameter, by the parameter's name: `NAME/exp_avg` and so on."""
    name_of: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{name_of[parameter]}/{entry}": tensor
        for parameter, entries in optimizer.state.items()
        for entry, tensor in entries.items()
    }


def put_optimizer_tensors(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Give an optimizer that memory back; its rates and decays come from the settings."""
    entries: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        entries.setdefault(name, {})[entry] = tensor
    name_of: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    names = [name_of[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state = {number: entries[name] for number, name in enumerate(names) if name in entries}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _read(path: Path, *only: str) -> dict[str, Tensor]:
    """Tensors in memory of their own: the file may be removed, and torch aligns what it allocates."""
    with safetensors.safe_open(path, "pt") as stored:
        return {name: stored.get_tensor(name).clone() for name in only or stored.keys()}
