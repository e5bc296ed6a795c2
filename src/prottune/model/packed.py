"""Proteins side by side in one row without padding, and the attention that keeps them apart.

Shapes: B proteins, T tokens of all of them, R residues of all of them, H attention heads, K width of a head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from prottune.alphabet import NUM_SPECIAL_TOKENS, PAD_ID
from prottune.errors import ConfigError

PACKED_ATTENTION = "prottune_packed"
"""Name under which transformers' models find the attention of this module."""

MAX_PRODUCTS_TOKENS = 1024
"""Longest protein whose attention weights are kept in memory while training on a CPU in bf16."""

ROW_STEP, PROTEIN_STEP = 256, 32
"""On a CPU in bf16 every new shape has kernels compiled for it (oneDNN; about 13 ms and several MB for one
protein's attention there and back). Rows and proteins are filled up to multiples of these, so that few
shapes are ever met."""

FLASH_WIDTHS, MAX_FLASH_WIDTH = 8, 256
"""Flash attention has kernels for heads whose width is a multiple of 8, up to 256.

Source: torch, aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, check_head_dim_size_flash."""

_NOT_DONE = ("is_causal", "position_bias", "s_aux", "sliding_window", "softcap")
"""What some families ask of attention and packed rows do not do. Left out in silence, answers were wrong."""


@dataclass(frozen=True)
class PackedBatch:
    """Several proteins in one row; every position, boundary and length is known on the host as well."""

    input_ids_1T: Tensor
    """int64, each protein with its [CLS] and [SEP]."""
    position_ids_1T: Tensor
    """int64, counted from 0 anew in each protein."""
    residue_index_R: Tensor
    """int64, where in the row the residues are: all tokens but [CLS] and [SEP]."""
    boundaries: Tensor
    """int32 [B + 1]: protein i is `input_ids_1T[0, boundaries[i]:boundaries[i + 1]]`."""
    num_tokens_each: tuple[int, ...]
    """Host copy of the B lengths in tokens, so that no kernel waits for the device to tell them."""
    row_step: int = 1
    """The row is filled up with [PAD] to a multiple of this; no protein looks at what is behind the last."""
    hidden_TD: Tensor | None = None
    """What the encoder says of the proteins' tokens, where that is known already; it is not asked again."""

    @classmethod
    def from_ids(cls, ids: Sequence[npt.NDArray[Any]], row_step: int = 1) -> PackedBatch:
        """Lay proteins side by side; each array holds one protein's ids, [CLS] and [SEP] included."""
        lengths = np.fromiter((len(protein) for protein in ids), np.int64, len(ids))
        assert len(ids) > 0, "a batch holds at least one protein"
        assert lengths.min() > NUM_SPECIAL_TOKENS, "a protein has at least one residue"
        boundaries = np.concatenate(([0], np.cumsum(lengths)))
        is_residue_T = np.ones(boundaries[-1], bool)
        is_residue_T[boundaries[:-1]] = is_residue_T[boundaries[1:] - 1] = False
        num_tokens = int(boundaries[-1])
        input_ids_T = np.full(round_up(num_tokens, row_step), PAD_ID, np.int64)
        positions_T = np.zeros_like(input_ids_T)
        input_ids_T[:num_tokens] = np.concatenate(ids)
        positions_T[:num_tokens] = np.arange(num_tokens) - np.repeat(boundaries[:-1], lengths)
        return cls(
            input_ids_1T=torch.from_numpy(input_ids_T)[None],
            position_ids_1T=torch.from_numpy(positions_T)[None],
            residue_index_R=torch.from_numpy(np.flatnonzero(is_residue_T)),
            boundaries=torch.from_numpy(boundaries.astype(np.int32)),
            num_tokens_each=tuple(lengths.tolist()),
            row_step=row_step,
        )

    def to(self, device: torch.device | str) -> PackedBatch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in ((field.name, getattr(self, field.name)) for field in fields(self))
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    @property
    def num_proteins(self) -> int:
        return len(self.num_tokens_each)

    @property
    def num_tokens(self) -> int:
        """Tokens of all proteins, without what fills the row up."""
        return sum(self.num_tokens_each)

    @property
    def num_residues_each(self) -> tuple[int, ...]:
        return tuple(length - NUM_SPECIAL_TOKENS for length in self.num_tokens_each)

    @property
    def max_tokens(self) -> int:
        """Length of the longest protein, [CLS] and [SEP] included."""
        return max(self.num_tokens_each)


def round_up(count: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-count // step) * step


def row_step_for(device: torch.device, dtype: torch.dtype, *, answering: bool = False) -> int:
    """The step that rows are worth filling up to where a model of this precision runs.

    Answering, a row may hold one short protein, which a long step would make several times as long.
    """
    if device.type != "cpu" or dtype != torch.bfloat16:
        return 1
    return PROTEIN_STEP if answering else ROW_STEP


def packed_attention(
    module: torch.nn.Module,
    query_1HTK: Tensor,
    key_1HTK: Tensor,
    value_1HTK: Tensor,
    attention_mask: Tensor | None,
    *,
    batch: PackedBatch,
    scaling: float | None = None,
    dropout: float = 0.0,
    **others: object,
) -> tuple[Tensor, None]:
    """Let each residue look at its own protein only; returns [1, T, H, K] and no weights.

    On a GPU in 16 bits: flash attention over the boundaries, which has no dropout. Elsewhere: one call of
    scaled dot-product attention a protein. `scaling` None means 1/sqrt(K), BERT's; ESM scales its queries
    itself and asks for 1.

    Raises: ConfigError if the encoder asks for what packed rows do not do.
    """
    _refuse_what_is_not_done(module, attention_mask, others)
    if _has_flash_kernel(query_1HTK) and dropout == 0.0:
        return _varlen_attention(query_1HTK, key_1HTK, value_1HTK, batch, scaling), None
    # `split`, not slices: the gradient of a split is one concatenation, that of n slices n full-size rows.
    num_behind = query_1HTK.shape[2] - batch.num_tokens
    lengths = [*batch.num_tokens_each, num_behind]
    parts = (torch.split(t, lengths, dim=2)[:-1] for t in (query_1HTK, key_1HTK, value_1HTK))
    attend = (
        _products_attention
        if _flash_backward_is_slow(query_1HTK, dropout)
        else F.scaled_dot_product_attention
    )
    attended = [
        attend(query, key, value, dropout_p=dropout, scale=scaling).transpose(1, 2)
        for query, key, value in zip(*parts, strict=True)
    ]
    behind = query_1HTK.new_zeros(1, num_behind, *attended[0].shape[2:])
    return torch.cat([*attended, behind], dim=1), None


def _refuse_what_is_not_done(
    module: torch.nn.Module, attention_mask: Tensor | None, asked: Mapping[str, object]
) -> None:
    found = [name for name in _NOT_DONE if asked.get(name) is not None and asked[name] is not False]
    if getattr(module, "is_causal", False) and "is_causal" not in found:
        found.append("is_causal")
    if attention_mask is not None:
        found.append("attention_mask")
    if found:
        raise ConfigError(f"{type(module).__name__} asks for {', '.join(found)}, which packed rows do not do")


def _has_flash_kernel(query: Tensor) -> bool:
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and query.shape[-1] % FLASH_WIDTHS == 0
        and query.shape[-1] <= MAX_FLASH_WIDTH
    )


def _flash_backward_is_slow(query: Tensor, dropout: float) -> bool:
    """Torch's CPU flash attention goes backward in bf16 at a third of the speed of plain matrix products."""
    return (
        query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and query.requires_grad
        and dropout == 0.0
    )


def _products_attention(
    query: Tensor, key: Tensor, value: Tensor, dropout_p: float, scale: float | None
) -> Tensor:
    """Attention as two matrix products; long proteins take the flash way, which keeps no n x n weights."""
    length = query.shape[2]
    if length > MAX_PRODUCTS_TOKENS:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout_p, scale=scale)
    factor = scale if scale is not None else query.shape[-1] ** -0.5
    fill = (0, 0, 0, round_up(length, PROTEIN_STEP) - length)
    query, key, value = F.pad(query * factor, fill), F.pad(key, fill), F.pad(value, fill)
    scores = query @ key.transpose(2, 3)
    weights = F.pad(scores[..., :length].softmax(dim=-1), (0, fill[-1]))
    return (weights @ value)[:, :, :length]


def _varlen_attention(
    query_1HTK: Tensor, key_1HTK: Tensor, value_1HTK: Tensor, batch: PackedBatch, scaling: float | None
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (t[0].transpose(0, 1).contiguous() for t in (query_1HTK, key_1HTK, value_1HTK))
    longest = batch.max_tokens
    attended_THK = varlen_attn(
        query, key, value, batch.boundaries, batch.boundaries, longest, longest, scale=scaling
    )
    assert isinstance(attended_THK, Tensor)  # a pair only when the weights' sums are asked for
    return attended_THK[None]


def _no_mask(*_: object, **__: object) -> None:
    """Padding-free rows need no mask: the boundaries say it all."""


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, _no_mask)
