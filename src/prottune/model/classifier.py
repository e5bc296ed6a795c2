"""The model: an encoder, a head that pools, and one linear layer whose outputs are the locations' logits.

Shapes: B proteins, T tokens, D width of the encoder, C locations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, PreTrainedModel

from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.errors import DataError
from prottune.model.heads import HEADS
from prottune.model.packed import PACKED_ATTENTION, PackedBatch

MAX_TRAINED_POSITIONS = 8192
"""Position tables with more rows are frozen: ProtBERT's 40,000 rows are a tenth of its parameters, a batch
touches few of them, and their dense gradient would be exchanged, stored and decayed at every step."""

_ENCODER_SETTINGS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings"),
    *("type_vocab_size", "initializer_range", "layer_norm_eps", "pad_token_id"),
)
"""What of a base's settings describes its encoder; labels, heads and tasks of its past are left behind."""


@dataclass(frozen=True)
class BaseFacts:
    """What training started from."""

    name: str
    revision: str
    """Commit of a Hub name; empty for folders, prefixes and presets."""
    digest: str
    """SHA-256 over config and weights (of a preset: over its settings)."""


class LocationConfig(BertConfig):  # type: ignore[misc]
    """BERT's settings and the name of our head."""

    model_type = "prottune"

    head: str = "attention"
    head_dropout: float | int = 0.1


class LocationModel(PreTrainedModel):  # type: ignore[misc]
    """Answers in which part of the cell a protein lives: one logit a location, linear to the end."""

    config_class = LocationConfig
    base_model_prefix = "bert"
    _supports_attention_backend = True
    supports_gradient_checkpointing = True

    base: BaseFacts | None = None
    """What training started from; None for a model that was loaded from a folder."""

    def __init__(self, config: LocationConfig) -> None:
        config._attn_implementation = PACKED_ATTENTION
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = HEADS[config.head](config.hidden_size, config.head_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()
        if config.max_position_embeddings > MAX_TRAINED_POSITIONS:
            self.bert.embeddings.position_embeddings.requires_grad_(False)

    def _init_weights(self, module: nn.Module) -> None:
        """Leave head and classifier as torch makes them; the encoder has started by its own rule already.

        The encoder's `initializer_range` fits its width, not a convolution over nine residues: with it the
        first loss of a preset was 8 where guessing costs 2.3.
        """

    def forward(self, batch: PackedBatch) -> Tensor:
        """Return fp32 logits [B, C].

        Raises: DataError if a protein has more tokens than the model has positions.
        """
        hidden_TD = self.encode(batch) if batch.hidden_TD is None else batch.hidden_TD
        features_BD = self.head(hidden_TD, batch)
        with torch.autocast(features_BD.device.type, enabled=False):
            logits_BC: Tensor = self.classifier(features_BD.float())
        return logits_BC

    def encode(self, batch: PackedBatch) -> Tensor:
        """Return the encoder's vectors [T, D], which the head reads.

        Raises: DataError if a protein has more tokens than the model has positions.
        """
        if batch.max_tokens > self.config.max_position_embeddings:
            raise DataError(
                f"a protein of {batch.max_tokens - NUM_SPECIAL_TOKENS} residues: this model reads at most "
                f"{self.max_residues}; cut longer ones (--max-residues {self.max_residues})"
            )
        hidden_TD: Tensor = self.bert(
            input_ids=batch.input_ids_1T, position_ids=batch.position_ids_1T, batch=batch
        ).last_hidden_state[0]
        return hidden_TD

    @property
    def labels(self) -> tuple[str, ...]:
        """The locations, in the order of the logits."""
        return tuple(self.config.id2label[index] for index in range(self.config.num_labels))

    @property
    def max_residues(self) -> int:
        """Residues of the longest protein that the position table has room for."""
        return int(self.config.max_position_embeddings) - NUM_SPECIAL_TOKENS

    def embeddings(self) -> nn.Module:
        """What turns token ids into the vectors that the first layer reads."""
        embeddings: nn.Module = self.bert.embeddings
        return embeddings

    def layers(self) -> nn.ModuleList:
        """The encoder's layers, from the one above the embeddings to the one below the head."""
        layers: nn.ModuleList = self.bert.encoder.layer
        return layers

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """The pretrained part, embeddings included."""
        return self.bert.parameters()  # type: ignore[no-any-return]

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """What always starts from scratch: the pooling head and the last layer."""
        yield from self.head.parameters()
        yield from self.classifier.parameters()


def new_config(encoder: BertConfig, head: str, labels: Sequence[str], head_dropout: float) -> LocationConfig:
    """Settings of a model that puts a head for these locations onto an encoder."""
    settings = {name: getattr(encoder, name) for name in _ENCODER_SETTINGS}
    return LocationConfig(
        **settings,
        head=head,
        head_dropout=head_dropout,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type="single_label_classification",
    )
