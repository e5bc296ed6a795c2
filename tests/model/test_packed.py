import numpy as np
import pytest
import torch
from transformers import BertModel

from prottune.alphabet import encode
from prottune.model import packed
from prottune.model.packed import PACKED_ATTENTION, PackedBatch
from tests.model.small_models import random_sequence, small_config


def protein_ids(num_residues):
    return encode([random_sequence(num_residues)])[0]


def test_a_batch_lays_proteins_side_by_side_and_counts_positions_anew():
    batch = PackedBatch.from_ids([np.array([2, 21, 12, 3], np.uint8), np.array([2, 25, 3], np.uint8)])
    assert batch.input_ids_1T.tolist() == [[2, 21, 12, 3, 2, 25, 3]]
    assert batch.input_ids_1T.dtype == torch.int64
    assert batch.position_ids_1T.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch.residue_index_R.tolist() == [1, 2, 5]
    assert batch.boundaries.tolist() == [0, 4, 7]
    assert batch.boundaries.dtype == torch.int32
    assert batch.num_tokens_each == (4, 3)
    assert batch.num_residues_each == (2, 1)
    assert (batch.num_proteins, batch.num_tokens, batch.max_tokens) == (2, 7, 4)


def padded_hidden_and_gradient(encoder, proteins):
    """What stock BERT computes: rows padded to the longest, a mask that hides the padding."""
    longest = max(map(len, proteins))
    ids_BL = torch.zeros(len(proteins), longest, dtype=torch.int64)
    is_token_BL = torch.zeros(len(proteins), longest, dtype=torch.int64)
    for row, ids in enumerate(proteins):
        ids_BL[row, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
        is_token_BL[row, : len(ids)] = 1
    hidden_BLD = encoder(input_ids=ids_BL, attention_mask=is_token_BL).last_hidden_state
    return hidden_BLD[is_token_BL.bool()]


@pytest.mark.parametrize("lengths", [(1,), (200,), (1, 1), (3, 120, 1, 57, 254), (40, 40, 40)])
def test_packed_outputs_and_gradients_equal_those_of_the_padded_stock_model(lengths):
    torch.manual_seed(0)
    stock = BertModel(small_config(initializer_range=0.2), add_pooling_layer=False)
    ours = BertModel(
        small_config(initializer_range=0.2, attn_implementation=PACKED_ATTENTION), add_pooling_layer=False
    )
    ours.load_state_dict(stock.state_dict())
    proteins = [protein_ids(length) for length in lengths]
    batch = PackedBatch.from_ids(proteins)
    hidden_TD = ours(
        input_ids=batch.input_ids_1T, position_ids=batch.position_ids_1T, batch=batch
    ).last_hidden_state[0]
    expected_TD = padded_hidden_and_gradient(stock, proteins)
    torch.testing.assert_close(hidden_TD, expected_TD, rtol=0, atol=1e-5)

    pull_TD = torch.randn(hidden_TD.shape) / hidden_TD.shape[0]
    (hidden_TD * pull_TD).sum().backward()
    (expected_TD * pull_TD).sum().backward()
    for (name, ours_grad), stock_grad in zip(ours.named_parameters(), stock.parameters(), strict=True):
        torch.testing.assert_close(ours_grad.grad, stock_grad.grad, rtol=0, atol=1e-5, msg=name)


def test_what_fills_a_row_up_changes_neither_answers_nor_gradients():
    torch.manual_seed(0)
    encoder = BertModel(small_config(attn_implementation=PACKED_ATTENTION), add_pooling_layer=False)
    proteins = [protein_ids(length) for length in (3, 120, 1)]

    def answers_and_gradients(batch):
        encoder.zero_grad()
        hidden_TD = encoder(
            input_ids=batch.input_ids_1T, position_ids=batch.position_ids_1T, batch=batch
        ).last_hidden_state[0, : batch.num_tokens]
        (hidden_TD * torch.linspace(-1, 1, batch.num_tokens)[:, None]).sum().backward()
        return [hidden_TD, *(parameter.grad.clone() for parameter in encoder.parameters())]

    filled = PackedBatch.from_ids(proteins, row_step=256)
    assert filled.input_ids_1T.shape == (1, 256)
    assert filled.num_tokens == 130
    plain = answers_and_gradients(PackedBatch.from_ids(proteins))
    torch.testing.assert_close(answers_and_gradients(filled), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("longest", [2, 1024])
def test_the_bf16_training_path_on_a_cpu_equals_flash_attention(monkeypatch, longest):
    monkeypatch.setattr(packed, "MAX_PRODUCTS_TOKENS", longest)
    batch = PackedBatch.from_ids([protein_ids(30), protein_ids(1), protein_ids(75)])
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, batch.num_tokens, 16) for _ in range(3)]
    pull = torch.randn(1, batch.num_tokens, 2, 16)
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        tensors = [tensor.to(dtype, copy=True).requires_grad_() for tensor in inputs]
        attended, weights = packed.packed_attention(
            torch.nn.Module(), *tensors, None, batch=batch, scaling=0.25
        )
        (attended.float() * pull).sum().backward()
        assert weights is None
        results.append([attended, *(tensor.grad for tensor in tensors)])
    for fp32, bf16 in zip(*results, strict=True):
        torch.testing.assert_close(bf16.float(), fp32, rtol=0.05, atol=0.05)


def test_attention_never_crosses_from_one_protein_to_its_neighbour():
    torch.manual_seed(0)
    encoder = BertModel(
        small_config(initializer_range=0.2, attn_implementation=PACKED_ATTENTION), add_pooling_layer=False
    ).eval()

    def hidden_of_first(neighbour):
        batch = PackedBatch.from_ids([protein_ids(20), neighbour])
        hidden = encoder(input_ids=batch.input_ids_1T, position_ids=batch.position_ids_1T, batch=batch)
        return hidden.last_hidden_state[0, :22]

    torch.testing.assert_close(
        hidden_of_first(protein_ids(30)), hidden_of_first(protein_ids(31)), rtol=0, atol=1e-6
    )


def test_a_batch_moves_to_a_device_whole():
    batch = PackedBatch.from_ids([protein_ids(5)]).to("meta")
    tensors = (batch.input_ids_1T, batch.position_ids_1T, batch.residue_index_R, batch.boundaries)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.num_tokens_each == (7,)
