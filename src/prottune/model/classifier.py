"""The model: an encoder, a head that pools, and linear layers whose outputs are logits.

Shapes: B proteins, T tokens, D width of the encoder, C locations, O outputs: the locations and, last, whether
the protein is bound to a membrane, if the model was trained for that too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.errors import DataError
from prottune.model.encoders import (
    embeddings_of,
    encoder_config,
    encoder_settings,
    hidden_states,
    layers_of,
    make_encoder,
    position_tables,
)
from prottune.model.heads import HEADS
from prottune.model.packed import PackedBatch

MAX_TRAINED_POSITIONS = 8192
"""Position tables with more rows are frozen: ProtBERT's 40,000 rows are a tenth of its parameters, a batch
touches few of them, and their dense gradient would be exchanged, stored and decayed at every step."""


@dataclass(frozen=True)
class BaseFacts:
    """What training started from."""

    name: str
    revision: str
    """Commit of a Hub name; empty for folders, prefixes and presets."""
    digest: str
    """SHA-256 over config and weights (of a preset: over its settings)."""


class LocationConfig(PreTrainedConfig):  # type: ignore[misc]
    """An encoder's settings, what prottune's tokens are to it, and the name of our head."""

    model_type = "prottune"

    encoder: dict[str, Any] | None = None
    """The settings of its family; `model_type` names the family."""
    token_ids: list[int] | None = None
    """The encoder's own id of each token of `alphabet.VOCABULARY`; None if they are the same (ProtBERT)."""
    head: str = "attention"
    head_dropout: float | int = 0.1
    membrane: bool = False
    """Whether a second output says if the protein is bound to a membrane."""

    def encoder_config(self) -> PreTrainedConfig:
        """The encoder's settings as its family's own class.

        Raises: ConfigError for a family that prottune does not fine-tune.
        """
        assert self.encoder is not None, "made by new_config or read from a model folder"
        return encoder_config(self.encoder, "config.json")

    @property
    def hidden_size(self) -> int:
        """Numbers a residue: the encoder's width."""
        return int(self.encoder_config().hidden_size)


class LocationModel(PreTrainedModel):  # type: ignore[misc]
    """Answers in which part of the cell a protein lives: one logit a location, linear to the end.

    If its settings say so, one more logit answers whether the protein is bound to a membrane.

    The encoder's attribute is named as transformers names it in its own classifiers: `bert`, `esm` ...;
    `base_model` is the encoder of any family.
    """

    config_class = LocationConfig
    supports_gradient_checkpointing = True

    base: BaseFacts | None = None
    """What training started from; None for a model that was loaded from a folder."""

    def __init__(self, config: LocationConfig, weights: Mapping[str, Tensor] | None = None) -> None:
        """Make a model with new weights, or with those of a whole model, by name; they are not copied.

        Raises: RuntimeError of torch for weights that do not fit.
        """
        super().__init__(config)
        encoder, self.layout = make_encoder(config.encoder_config(), config.token_ids, weights)
        self.base_model_prefix = encoder.base_model_prefix
        self.add_module(self.base_model_prefix, encoder)
        own_ids_V = None if config.token_ids is None else torch.tensor(config.token_ids)
        self.register_buffer("own_ids_V", own_ids_V, persistent=False)
        self.head = HEADS[config.head](config.hidden_size, config.head_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        # Made last, so that all else starts from the same random numbers with it and without it.
        self.membrane = nn.Linear(config.hidden_size, 1) if config.membrane else None
        self.post_init()
        for table in position_tables(encoder).values():
            if table.num_embeddings > MAX_TRAINED_POSITIONS:
                table.requires_grad_(False)
        if weights is not None:
            self.load_state_dict(weights, assign=True)

    def _init_weights(self, module: nn.Module) -> None:
        """Leave head and classifier as torch makes them; the encoder has started by its own rule already.

        The encoder's `initializer_range` fits its width, not a convolution over nine residues: with it the
        first loss of a preset was 8 where guessing costs 2.3.
        """

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return fp32 logits [B, O]; `split_logits` tells the tasks apart.

        One tensor for both tasks: what gathers, sums or keeps logits need not know how many tasks there are.

        Raises: DataError if a protein has more tokens than the model has positions.
        """
        hidden_TD = self.encode(batch) if batch.hidden_TD is None else batch.hidden_TD
        features_BD = self.head(hidden_TD, batch)
        with torch.autocast(features_BD.device.type, enabled=False):
            features_BD = features_BD.float()
            return torch.cat([layer(features_BD) for layer in self.output_layers()], dim=1)

    def encode(self, batch: PackedBatch) -> Tensor:
        """Return the encoder's vectors [T, D], which the head reads.

        Raises: DataError if a protein has more tokens than the model has positions.
        """
        if batch.max_tokens > self.layout.max_tokens:
            raise DataError(
                f"a protein of {batch.max_tokens - NUM_SPECIAL_TOKENS} residues: this model reads at most "
                f"{self.max_residues}; cut longer ones (--max-residues {self.max_residues})"
            )
        if self.own_ids_V is not None:
            batch = replace(batch, input_ids_1T=self.own_ids_V[batch.input_ids_1T])
        return hidden_states(self.base_model, self.layout, batch)

    @property
    def labels(self) -> tuple[str, ...]:
        """The locations, in the order of the logits."""
        return tuple(self.config.id2label[index] for index in range(self.config.num_labels))

    @property
    def num_outputs(self) -> int:
        """Logits a protein: one a location, and the membrane's if there is one."""
        return sum(layer.out_features for layer in self.output_layers())

    def output_layers(self) -> list[nn.Linear]:
        """The last layers, in the order of their logits; they are fp32 whatever the rest is."""
        return [self.classifier] if self.membrane is None else [self.classifier, self.membrane]

    @property
    def max_residues(self) -> int:
        """Residues of the longest protein that the encoder has positions for."""
        return self.layout.max_tokens - NUM_SPECIAL_TOKENS

    def embeddings(self) -> nn.Module:
        """What turns tokens into vectors, below the first layer."""
        return embeddings_of(self.base_model)

    def layers(self) -> nn.ModuleList:
        """The encoder's layers, the lowest first.

        Raises: ConfigError for a family in which they cannot be told.
        """
        return layers_of(self.base_model)

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """The pretrained part, embeddings included."""
        return self.base_model.parameters()  # type: ignore[no-any-return]

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """What always starts from scratch: the pooling head and the last layers."""
        yield from self.head.parameters()
        for layer in self.output_layers():
            yield from layer.parameters()


def split_logits(logits_BO: Tensor, num_locations: int) -> tuple[Tensor, Tensor | None]:
    """Tell a model's two tasks apart: logits of the locations [B, C], and of being membrane-bound [B].

    The second is None if the model has no such output.
    """
    if logits_BO.shape[1] == num_locations:
        return logits_BO, None
    return logits_BO[:, :num_locations], logits_BO[:, num_locations]


def new_config(
    encoder: PreTrainedConfig,
    head: str,
    labels: Sequence[str],
    head_dropout: float,
    token_ids: Sequence[int] | None = None,
    *,
    membrane: bool = False,
) -> LocationConfig:
    """Settings of a model that puts a head for these locations onto an encoder."""
    return LocationConfig(
        encoder=encoder_settings(encoder),
        token_ids=None if token_ids is None else list(token_ids),
        head=head,
        head_dropout=head_dropout,
        membrane=membrane,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type="single_label_classification",
    )
