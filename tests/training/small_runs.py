"""A run of the loop on made-up proteins, in this process: its model, its examples, its end."""

from pathlib import Path

import torch

from prottune.model.base import build_model, find_base
from prottune.model.classifier import LocationModel
from prottune.records import Split
from prottune.training.adaptation import adapt
from prottune.training.examples import Examples, read_examples
from prottune.training.history import HistoryWriter
from prottune.training.loop import Loop, Outcome
from prottune.training.ranks import Ranks
from prottune.training.settings import TrainConfig

LABELS = ("Nucleus", "Cytoplasm", "Peroxisome")
ALONE = Ranks(0, 1, torch.device("cpu"))
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def new_model(config: TrainConfig) -> LocationModel:
    """A model as the stage builds it, the same for the same seed."""
    torch.manual_seed(config.seed)
    base = find_base(config.base_model, "", Path())
    model = build_model(base, config.head, LABELS, config.head_dropout, membrane=config.membrane_weight > 0)
    adapt(model, config)
    return model


def splits_of(tokens: Path) -> tuple[Examples, Examples]:
    """Those to learn from and those to validate with."""
    return (
        read_examples(tokens, Split.TRAIN, len(LABELS)),
        read_examples(tokens, Split.VALIDATION, len(LABELS)),
    )


def run(model: LocationModel, splits: tuple[Examples, Examples], config: TrainConfig, curve: Path) -> Outcome:
    """Train to the end, the curve written to a file."""
    torch.manual_seed(1)
    with HistoryWriter(curve) as history:
        loop = Loop(
            model=model,
            train=splits[0],
            validation=splits[1],
            config=config,
            ranks=ALONE,
            history=history,
            precision=DTYPES[config.precision],
        )
        return loop.run()
