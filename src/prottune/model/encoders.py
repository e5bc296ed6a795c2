"""Encoders of any family: made from their settings, proven to keep proteins apart, run on a packed batch.

Shapes: B proteins, L tokens of the longest of them, T tokens of all, D width of the encoder.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.distributed
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from prottune.alphabet import encode
from prottune.errors import ConfigError
from prottune.model.packed import PACKED_ATTENTION, PackedBatch

PADDED_FAMILIES = ("deberta-v2", "mpnet", "roformer")
"""Families without attention functions that the tests cover. Others may look at far residues only (BigBird,
Longformer) or mix rows (FNet, ConvBERT), which a short proof need not show: they are refused."""

MAX_TOKENS_WITHOUT_TABLE = 40_000
"""Longest protein, in tokens, of an encoder that has no position table (rotary positions): as many as the
table of ProtBERT has rows, so that memory is what ends first."""

_OF_DECODERS = ("is_decoder", "add_cross_attention", "use_cache")
_PROOF = ("GLV", "MKTAYIAK")
_TOLERANCE = 1e-5
"""Largest difference, as a share of the largest number, between a protein alone and among others in fp32."""
_TRAINED_TOLERANCE = 1e-4
"""The same for weights that were trained: they magnify rounding more than new ones."""
_POWER = 10.0
"""A row without boundaries must differ by so many tolerances, else the proof could not fail."""

_NO_FUNCTIONS = "does not support attention functions"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """How an encoder takes several proteins at once."""

    is_packed: bool
    """Laid end to end without padding; else padded to the longest of the batch."""
    first_position: int
    """Position of a protein's [CLS]: 0, or behind the padding's row of the table as in RoBERTa."""
    max_tokens: int
    """Tokens of the longest protein that it reads, [CLS] and [SEP] included."""
    learned: frozenset[str]
    """Names of the parameters that are learned and on which some residue's vector depends."""


def encoder_config(settings: Mapping[str, Any], where: str) -> PreTrainedConfig:
    """Settings of an encoder as its family's own class; `model_type` names the family.

    Raises: ConfigError for a family that is no encoder or was not tested, or for settings that it refuses.
    """
    family = settings["model_type"]
    if family not in MODEL_FOR_MASKED_LM_MAPPING_NAMES or family not in CONFIG_MAPPING:
        raise _refused_family(where, family)
    own = {name: value for name, value in settings.items() if name not in ("model_type", *_OF_DECODERS)}
    try:
        config = CONFIG_MAPPING[family](**own)
    except (StrictDataclassError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: settings that {family!r} refuses: {' '.join(str(error).split())}"
        ) from error
    has_functions = _encoder_class(config)._supports_attention_backend
    if config.is_encoder_decoder or not (has_functions or family in PADDED_FAMILIES):
        raise _refused_family(where, family)
    return config


def _refused_family(where: str, family: str) -> ConfigError:
    return ConfigError(
        f"{where}: model_type {family!r}; prottune fine-tunes BERT encoders such as ProtBERT, ESM, other "
        f"encoders of transformers that take attention functions, and {', '.join(PADDED_FAMILIES)}"
    )


def encoder_settings(config: PreTrainedConfig) -> dict[str, Any]:
    """What of a base's settings describes its encoder; labels, heads and tasks are left behind."""
    shared = {field.name for field in fields(PreTrainedConfig)}
    own = {field.name for field in fields(config)} - shared - set(_OF_DECODERS) - {"classifier_dropout"}
    settings = {name: value for name, value in config.to_dict().items() if name in own}
    return {"model_type": config.model_type, **settings}


def make_encoder(
    config: PreTrainedConfig, token_ids: Sequence[int] | None, weights: Mapping[str, Tensor] | None = None
) -> tuple[PreTrainedModel, Layout]:
    """Make an encoder, and find out by a proof how it takes several proteins at once.

    The proof runs two short proteins side by side and alone. What no residue's vector depends on is frozen:
    several processes would wait for gradients that never come. `token_ids`: see `LocationConfig`. `weights`:
    those of a whole model, by name; without them the encoder gets new ones.

    Raises: ConfigError if a protein's vectors change with its neighbours, packed or padded; RuntimeError of
        torch for weights that do not fit.
    """
    kind = _encoder_class(config)
    config.use_cache = False  # of decoders; true, it is warned of when activations are computed again
    has_pooler = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    encoder = kind(config, **({"add_pooling_layer": False} if has_pooler else {}))
    was_training = encoder.training
    if weights is not None:
        prefix = f"{encoder.base_model_prefix}."
        own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
        encoder.load_state_dict(own, assign=True)
    tolerance = _TOLERANCE if weights is None else _TRAINED_TOLERANCE
    layout = _prove(encoder.eval(), _proof_batches(token_ids), tolerance)
    for name, parameter in encoder.named_parameters():
        parameter.requires_grad_(name in layout.learned)
    return encoder.train(was_training), layout


def hidden_states(encoder: PreTrainedModel, layout: Layout, batch: PackedBatch) -> Tensor:
    """Vectors [T, D] of all tokens, each protein's as if it were alone; ids are the encoder's own.

    Packed, what fills the row up has rows behind them that mean nothing.
    """
    if layout.is_packed:
        return _packed_states(encoder, layout.first_position, batch)
    return _padded_states(encoder, batch)


def position_tables(encoder: nn.Module) -> dict[str, nn.Embedding]:
    """Tables with one row a position, by the name of their weights; none if positions are computed."""
    return {
        f"{name}.weight": module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2]
    }


def embeddings_of(encoder: PreTrainedModel) -> nn.Module:
    """The layer in front of the first: tokens to vectors, with positions where they have a table."""
    embeddings: nn.Module = getattr(encoder, "embeddings", None) or encoder.get_input_embeddings()
    return embeddings


def layers_of(encoder: PreTrainedModel) -> nn.ModuleList:
    """The encoder's layers, the lowest first.

    Raises: ConfigError if they cannot be told (a family that shares one layer's weights, say).
    """
    depth = encoder.config.num_hidden_layers
    found = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    stacks = [module for module in found if len(module) == depth]
    if len(stacks) != 1:
        raise ConfigError(
            f"encoder {encoder.config.model_type!r}: {len(stacks)} stacks of {depth} layers, expected 1; "
            "settings that name layers cannot be used with it"
        )
    return stacks[0]


def say_if_never_packed(config: PreTrainedConfig) -> None:
    """Log that an encoder will run padded, where its class alone says so: before any process is started."""
    if not _encoder_class(config)._supports_attention_backend:
        _say_padded(config.model_type, _NO_FUNCTIONS)


def _encoder_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    kind: type[PreTrainedModel] = MODEL_MAPPING[type(config)]
    return kind


def _packed_states(encoder: PreTrainedModel, first_position: int, batch: PackedBatch) -> Tensor:
    position_ids_1T = batch.position_ids_1T + first_position if first_position else batch.position_ids_1T
    output = encoder(input_ids=batch.input_ids_1T, position_ids=position_ids_1T, batch=batch)
    hidden_TD: Tensor = output.last_hidden_state[0]
    return hidden_TD


def _padded_states(encoder: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Lay proteins under each other with padding behind the shorter, and take the padding out again."""
    num_proteins, longest = batch.num_proteins, batch.max_tokens
    protein_T = torch.repeat_interleave(
        torch.arange(num_proteins, device=batch.boundaries.device),
        batch.boundaries.diff(),
        output_size=batch.num_tokens,
    )
    slots_T = protein_T * longest + batch.position_ids_1T[0, : batch.num_tokens]
    ids = slots_T.new_full((num_proteins * longest,), encoder.config.pad_token_id or 0)
    ids[slots_T] = batch.input_ids_1T[0, : batch.num_tokens]
    is_token = torch.zeros_like(ids)
    is_token[slots_T] = 1
    shape = (num_proteins, longest)
    hidden_BLD = encoder(input_ids=ids.view(shape), attention_mask=is_token.view(shape)).last_hidden_state
    hidden_TD: Tensor = hidden_BLD.flatten(0, 1)[slots_T]
    return hidden_TD


def _proof_batches(token_ids: Sequence[int] | None) -> tuple[PackedBatch, list[PackedBatch]]:
    """Two proteins side by side, and each alone."""
    proteins = [encode([sequence])[0] for sequence in _PROOF]
    if token_ids is not None:
        proteins = [np.asarray(token_ids)[protein] for protein in proteins]
    return PackedBatch.from_ids(proteins), [PackedBatch.from_ids([protein]) for protein in proteins]


def _prove(
    encoder: PreTrainedModel, proteins: tuple[PackedBatch, list[PackedBatch]], tolerance: float
) -> Layout:
    together, each = proteins
    tables = position_tables(encoder).values()
    first_position = max(
        (table.padding_idx + 1 for table in tables if table.padding_idx is not None), default=0
    )
    rows = min((table.num_embeddings for table in tables), default=None)
    with torch.enable_grad():
        alone_TD = torch.cat([_padded_states(encoder, protein) for protein in each])
    learned = _learned(encoder, alone_TD)
    with torch.no_grad():
        reason = _why_not_packed(encoder, first_position, together, alone_TD, tolerance)
        if reason is not None:
            if not _difference(_padded_states(encoder, together), alone_TD) <= tolerance:  # nan is no proof
                raise ConfigError(
                    f"encoder {encoder.config.model_type!r}: {reason}, and padded, a protein's vectors "
                    "change with its neighbours; prottune cannot fine-tune it"
                )
            _say_padded(encoder.config.model_type, reason)
    return Layout(
        is_packed=reason is None,
        first_position=first_position,
        max_tokens=MAX_TOKENS_WITHOUT_TABLE if rows is None else rows - first_position,
        learned=learned,
    )


def _why_not_packed(
    encoder: PreTrainedModel, first_position: int, batch: PackedBatch, alone_TD: Tensor, tolerance: float
) -> str | None:
    """Switch an encoder to packed attention if that keeps proteins apart; else the reason why it does not."""
    if not encoder._supports_attention_backend:
        return _NO_FUNCTIONS
    stock = encoder.config._attn_implementation
    try:  # whatever a family's code raises, it cannot run packed
        crossed = _difference(_packed_states(encoder, first_position, batch), alone_TD)
        encoder.set_attn_implementation(PACKED_ATTENTION)
        apart = _difference(_packed_states(encoder, first_position, batch), alone_TD)
    except Exception as error:
        encoder.set_attn_implementation(stock)
        return f"does not run with packed attention ({' '.join(str(error).split())})"
    if apart <= tolerance and crossed >= _POWER * tolerance:
        return None
    encoder.set_attn_implementation(stock)
    if apart > tolerance:
        return "does not keep proteins apart with packed attention"
    return "does not show whether packed attention keeps proteins apart"


def _difference(hidden_TD: Tensor, expected_TD: Tensor) -> float:
    return float((hidden_TD - expected_TD).abs().max() / expected_TD.abs().max())


def _learned(encoder: nn.Module, hidden_TD: Tensor) -> frozenset[str]:
    """Names of the parameters that a gradient of these vectors would reach."""
    reached, open_nodes, seen = set(), [hidden_TD.grad_fn], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (parameter := getattr(node, "variable", None)) is not None:
            reached.add(parameter)
        open_nodes.extend(successor for successor, _ in node.next_functions)
    return frozenset(name for name, parameter in encoder.named_parameters() if parameter in reached)


@cache
def _say_padded(family: str, reason: str) -> None:
    """Log one line a process, in one of several that train together."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_rank() > 0):
        _log.warning("encoder %r: %s; running padded", family, reason)
