import numpy as np
import pytest
import torch
from torch.nn import functional

from prottune.alphabet import encode
from prottune.errors import DataError
from prottune.model.classifier import MAX_TRAINED_POSITIONS, LocationModel, new_config
from prottune.model.heads import AttentionHead, MeanHead
from prottune.model.packed import PackedBatch
from tests.model.small_models import LABELS, random_sequence, small_config, small_model


def batch_of(*lengths):
    return PackedBatch.from_ids([encode([random_sequence(length)])[0] for length in lengths])


def test_logits_are_fp32_one_row_a_protein_also_when_the_rest_computes_in_bf16(head):
    model = small_model(head)
    with torch.autocast("cpu", torch.bfloat16):
        logits_BC = model(batch_of(5, 1, 40))
    assert logits_BC.shape == (3, len(LABELS))
    assert logits_BC.dtype == torch.float32
    torch.testing.assert_close(logits_BC, model(batch_of(5, 1, 40)), rtol=0, atol=0.2)
    assert model.labels == LABELS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_linear_so_any_confidence_can_be_reached(head, dtype):
    model = small_model(head).to(dtype)
    model.classifier.float()
    before_BC = model(batch_of(30, 7))
    with torch.no_grad():
        model.classifier.weight.mul_(100)
        model.classifier.bias.mul_(100)
    after_BC = model(batch_of(30, 7))
    torch.testing.assert_close(after_BC, 100 * before_BC, rtol=1e-4, atol=1e-4)
    assert after_BC.softmax(dim=1).max() > 0.9


def test_every_parameter_that_is_trained_gets_a_gradient(head):
    model = small_model(head).train()
    model(batch_of(5, 1, 40)).logsumexp(dim=1).sum().backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    zero = [name for name, p in model.named_parameters() if p.requires_grad and not p.grad.any()]
    # A softmax over positions does not move when all its inputs do, which is all that a bias on keys can do.
    assert all(name.endswith(".self.key.bias") for name in zero)


def test_encoder_and_head_parameters_are_all_parameters_and_share_none(head):
    model = small_model(head)
    encoder = {id(parameter) for parameter in model.encoder_parameters()}
    top = {id(parameter) for parameter in model.head_parameters()}
    assert not encoder & top
    assert encoder | top == {id(parameter) for parameter in model.parameters()}


def test_a_protein_gets_the_same_logits_alone_and_among_others(head):
    model = small_model(head)
    lengths = (1, 3, 9, 40, 200)
    with torch.inference_mode():
        together_BC = model(batch_of(*lengths))
        alone_BC = torch.cat([model(batch_of(length)) for length in lengths])
    torch.testing.assert_close(together_BC, alone_BC, rtol=0, atol=1e-5)


def test_the_mean_head_leaves_out_cls_and_sep():
    batch = PackedBatch.from_ids([np.array([2, 21, 12, 3], np.uint8), np.array([2, 25, 3], np.uint8)])
    hidden_TD = torch.tensor([[100.0], [1.0], [3.0], [200.0], [900.0], [7.0], [-900.0]])
    assert MeanHead(1, 0.0)(hidden_TD, batch).tolist() == [[2.0], [7.0]]


def test_the_attention_head_equals_light_attention_written_for_one_protein():
    torch.manual_seed(0)
    head, batch = AttentionHead(8, 0.0), batch_of(1, 12, 4)
    hidden_TD = torch.randn(batch.num_tokens, 8)
    expected = []
    for first, last in zip(batch.boundaries[:-1].tolist(), batch.boundaries[1:].tolist(), strict=True):
        residues_1DL = hidden_TD[first + 1 : last - 1].T[None]
        values_DL, weights_DL = functional.conv1d(
            residues_1DL, head.convolution.weight, head.convolution.bias, padding=4
        )[0].chunk(2)
        pooled_E = torch.cat(
            [(values_DL * weights_DL.softmax(dim=1)).sum(dim=1), values_DL.max(dim=1).values]
        )
        expected.append(functional.relu(head.hidden(pooled_E)))
    torch.testing.assert_close(head(hidden_TD, batch), torch.stack(expected), rtol=0, atol=1e-5)


def test_a_protein_longer_than_the_position_table_is_refused(head):
    model = small_model(head)
    assert model.max_residues == 254
    assert model(batch_of(254)).shape == (1, len(LABELS))
    with pytest.raises(
        DataError, match="a protein of 255 residues: this model reads at most 254; cut longer"
    ):
        model(batch_of(3, 255))


def test_a_large_position_table_is_frozen_and_a_small_one_trained():
    def is_trained(rows):
        config = new_config(small_config(max_position_embeddings=rows), "mean", LABELS, 0.0)
        return LocationModel(config).bert.embeddings.position_embeddings.weight.requires_grad

    assert is_trained(MAX_TRAINED_POSITIONS)
    assert not is_trained(MAX_TRAINED_POSITIONS + 1)


def test_dropout_acts_only_while_training(head):
    model = small_model(head, head_dropout=0.5)
    assert torch.equal(model(batch_of(30)), model(batch_of(30)))
    model.train()
    assert not torch.equal(model(batch_of(30)), model(batch_of(30)))
