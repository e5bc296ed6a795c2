"""The step that turns proteins into token ids."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def tokenize(
    records: Input[Dataset],
    max_residues: int,
    cut: str,
    tokens: Output[Dataset],
    metrics: Output[Metrics],
) -> None:
    """Turn proteins into ProtBERT's token ids, ragged and unpadded."""
    from pathlib import Path

    from prottune.tokenization import TokenizeConfig, tokenize
    from prottune.tracking.step import step
    from prottune.tracking.tracker import numbers

    config = TokenizeConfig(max_residues=max_residues, cut=cut)
    with step("tokenize", config) as tracker:
        report = tokenize(Path(records.path), Path(tokens.path), config)
        tracker.numbers(numbers(report, "tokenize"))
    metrics.metadata.update(numbers(report))
