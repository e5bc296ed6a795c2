"""From an encoder's residue vectors to one feature vector a protein: three ways to pool.

A head that reads no more than one vector a protein offers it as `pool`: then no residue need be kept.

Shapes: B proteins, T tokens, R residues (no [CLS], no [SEP]), D width of the encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prottune.alphabet import NUM_SPECIAL_TOKENS
from prottune.model.packed import PackedBatch, round_up

KERNEL_SIZE = 9
"""Residues that one step of light attention sees. Source: Staerk et al. 2021, section 2.3."""


class ClsHead(nn.Module):
    """BERT's own way: the [CLS] vector through a dense layer with tanh (the `pooler` of stock BERT)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_TD: Tensor, batch: PackedBatch) -> Tensor:
        features_BD: Tensor = self.dropout(torch.tanh(self.dense(self.pool(hidden_TD, batch))))
        return features_BD

    @staticmethod
    def pool(hidden_TD: Tensor, batch: PackedBatch) -> Tensor:
        """The one vector a protein [B, D] that this head reads: that of [CLS]."""
        return hidden_TD[batch.boundaries[:-1].long()]


class MeanHead(nn.Module):
    """The mean of a protein's residue vectors; [CLS] and [SEP] are left out."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_TD: Tensor, batch: PackedBatch) -> Tensor:
        features_BD: Tensor = self.dropout(self.pool(hidden_TD, batch))
        return features_BD

    @staticmethod
    def pool(hidden_TD: Tensor, batch: PackedBatch) -> Tensor:
        """The one vector a protein [B, D] that this head reads: the mean of its residues'."""
        residues_RD = hidden_TD[batch.residue_index_R].float()
        return torch.stack(
            [part.mean(dim=0) for part in torch.split(residues_RD, list(batch.num_residues_each))]
        )


class AttentionHead(nn.Module):
    """Light attention: each channel chooses the residues that it listens to.

    A convolution gives every residue a value and a weight in each channel; a protein is the weighted sum
    of its values beside their maximum, through one hidden layer.

    Source: Staerk et al. 2021, "Light attention predicts protein location from the language of life",
    Bioinformatics Advances, vbab035, figure 1. Ours has no batch normalisation: an answer never depends on
    the other proteins of the batch.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, 2 * width, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
        self.hidden = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden_TD: Tensor, batch: PackedBatch) -> Tensor:
        values_RD, weights_RD = self._convolve(hidden_TD, batch).float().chunk(2, dim=1)
        lengths = list(batch.num_residues_each)
        pooled_BE = torch.stack(
            [
                torch.cat(((weights.softmax(dim=0) * values).sum(dim=0), values.amax(dim=0)))
                for values, weights in zip(
                    torch.split(values_RD, lengths), torch.split(weights_RD, lengths), strict=True
                )
            ]
        )
        features_BD: Tensor = self.dropout(torch.relu(self.hidden(pooled_BE.to(self.hidden.weight.dtype))))
        return features_BD

    def _convolve(self, hidden_TD: Tensor, batch: PackedBatch) -> Tensor:
        """Run the convolution over all proteins at once, with zeros between neighbours as at the ends."""
        gap = KERNEL_SIZE // 2
        num_residues = len(batch.residue_index_R)
        lengths_B = batch.boundaries.diff() - NUM_SPECIAL_TOKENS
        protein_R = torch.repeat_interleave(
            torch.arange(batch.num_proteins, device=hidden_TD.device), lengths_B, output_size=num_residues
        )
        slots_R = torch.arange(num_residues, device=hidden_TD.device) + gap * protein_R
        num_slots = round_up(num_residues + gap * (batch.num_proteins - 1), batch.row_step)
        row_ND = hidden_TD.new_zeros(num_slots, hidden_TD.shape[1])
        row_ND = row_ND.index_copy(0, slots_R, hidden_TD[batch.residue_index_R])
        convolved_EN: Tensor = self.convolution(row_ND.T[None])[0]
        return convolved_EN.T[slots_R]


HEADS: dict[str, type[nn.Module]] = {"cls": ClsHead, "mean": MeanHead, "attention": AttentionHead}
