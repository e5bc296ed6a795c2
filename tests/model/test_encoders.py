import logging

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, MODEL_MAPPING

from prottune.alphabet import encode
from prottune.errors import ConfigError
from prottune.model import encoders
from prottune.model.encoders import (
    MAX_TOKENS_WITHOUT_TABLE,
    embeddings_of,
    encoder_config,
    encoder_settings,
    hidden_states,
    layers_of,
    make_encoder,
)
from prottune.model.packed import PackedBatch, packed_attention
from tests.model.small_encoders import PACKED, PADDED, small_encoder_config, stock_encoder
from tests.model.small_models import random_sequence

LENGTHS = [(1,), (200,), (1, 1), (3, 120, 1, 57, 250), (40, 40, 40)]


def proteins_of(lengths):
    """Ids that are residues in ESM's vocabulary and in ours alike."""
    return [encode([random_sequence(length)])[0].astype(np.int64) for length in lengths]


def make(layout):
    torch.manual_seed(0)
    return make_encoder(small_encoder_config(layout), None)


def padded_states(encoder, proteins):
    """What the family's own class computes: rows padded to the longest, a mask that hides the padding."""
    ids_BL = torch.full((len(proteins), max(map(len, proteins))), encoder.config.pad_token_id)
    is_token_BL = torch.zeros_like(ids_BL)
    for row, ids in enumerate(proteins):
        ids_BL[row, : len(ids)] = torch.from_numpy(ids)
        is_token_BL[row, : len(ids)] = 1
    hidden_BLD = encoder(input_ids=ids_BL, attention_mask=is_token_BL).last_hidden_state
    return hidden_BLD[is_token_BL.bool()]


def states_alone(encoder, proteins):
    return torch.cat(
        [encoder(input_ids=torch.from_numpy(ids)[None]).last_hidden_state[0] for ids in proteins]
    )


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("layout", PACKED)
def test_packed_outputs_and_gradients_equal_those_of_the_padded_stock_class(layout, lengths):
    stock = stock_encoder(layout)
    ours, how = make(layout)
    ours.load_state_dict(stock.state_dict(), strict=False)
    proteins = proteins_of(lengths)
    hidden_TD = hidden_states(ours.eval(), how, PackedBatch.from_ids(proteins))
    expected_TD = padded_states(stock, proteins)
    assert how.is_packed
    torch.testing.assert_close(hidden_TD, expected_TD, rtol=0, atol=1e-5)

    pull_TD = torch.randn(hidden_TD.shape) / hidden_TD.shape[0]
    (hidden_TD * pull_TD).sum().backward()
    (expected_TD * pull_TD).sum().backward()
    of_stock = dict(stock.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, of_stock[name].grad, rtol=0, atol=1e-5, msg=name)
        else:
            assert of_stock[name].grad is None


@pytest.mark.parametrize("lengths", [(1,), (3, 120, 1, 57), (40, 40)])
@pytest.mark.parametrize("layout", PADDED)
def test_padded_outputs_equal_those_of_each_protein_alone(layout, lengths):
    encoder, how = make(layout)
    proteins = proteins_of(lengths)
    with torch.inference_mode():
        hidden_TD = hidden_states(encoder.eval(), how, PackedBatch.from_ids(proteins))
        expected_TD = states_alone(encoder, proteins)
    assert not how.is_packed
    torch.testing.assert_close(hidden_TD, expected_TD, rtol=0, atol=2e-5)


@pytest.mark.parametrize("layout", [*PACKED, "roformer"])
def test_what_fills_a_row_up_changes_no_protein(layout):
    encoder, how = make(layout)
    proteins = proteins_of((3, 120, 1))
    plain, filled = (PackedBatch.from_ids(proteins, row_step=step) for step in (1, 64))
    with torch.inference_mode():
        expected_TD, hidden_TD = (hidden_states(encoder.eval(), how, batch) for batch in (plain, filled))
    assert filled.input_ids_1T.shape[1] > plain.num_tokens
    torch.testing.assert_close(hidden_TD[: plain.num_tokens], expected_TD, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ("roformer", "does not support attention functions"),
        ("modernbert", "asks for sliding_window, which packed rows do not do"),
        ("mobilebert", "does not keep proteins apart with packed attention"),
    ],
)
def test_an_encoder_that_cannot_run_packed_says_so_in_one_line(layout, reason, caplog):
    encoders._say_padded.cache_clear()
    with caplog.at_level(logging.WARNING, "prottune"):
        make(layout)
        make(layout)
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"encoder {layout!r}: ")
    assert line.endswith("; running padded")
    assert reason in line


def test_an_encoder_that_runs_packed_says_nothing(caplog):
    with caplog.at_level(logging.INFO, "prottune"):
        make("esm-2")
    assert caplog.records == []


def test_an_encoder_whose_neighbours_change_a_protein_even_padded_is_refused():
    with pytest.raises(ConfigError, match=r"encoder 'convbert': .* padded, a protein's vectors change with"):
        make("convbert")


def test_a_proof_that_could_not_fail_proves_nothing(caplog):
    """Attention that adds nothing shows no difference, whether or not it crosses from protein to protein."""
    encoders._say_padded.cache_clear()
    config = small_encoder_config("bert", initializer_range=1e-8)
    _, how = make_encoder(config, None)
    assert not how.is_packed
    assert "does not show whether packed attention keeps proteins apart" in caplog.text


@pytest.mark.parametrize(
    "family", ["t5", "gpt2", "bart", "fnet", "longformer", "big_bird", "convbert", "no_such_family"]
)
def test_a_family_that_is_no_encoder_or_was_not_tested_is_refused(family):
    with pytest.raises(ConfigError, match=rf"base: model_type '{family}'; prottune fine-tunes BERT .*ESM"):
        encoder_config({"model_type": family}, "base")


def test_settings_that_the_family_refuses_are_one_line():
    with pytest.raises(ConfigError, match=r"base: settings that 'esm' refuses: .*hidden_size") as refusal:
        encoder_config({"model_type": "esm", "hidden_size": "wide"}, "base")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("layout", [*PACKED, "roformer", "deberta-v2", "mpnet"])
def test_settings_of_an_encoder_make_the_same_encoder(layout):
    config = small_encoder_config(layout, classifier_dropout=0.3, id2label={0: "a", 1: "b", 2: "c"})
    settings = encoder_settings(config)
    again = encoder_config(settings, "base")
    assert encoder_settings(again) == settings
    assert {"id2label", "architectures", "classifier_dropout", "is_decoder"}.isdisjoint(settings)
    torch.manual_seed(0)
    first = MODEL_MAPPING[type(config)](config)
    torch.manual_seed(0)
    second = MODEL_MAPPING[type(again)](again)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_base_that_was_a_decoder_is_read_as_an_encoder():
    settings = {**encoder_settings(small_encoder_config("bert")), "is_decoder": True}
    assert not encoder_config(settings, "base").is_decoder


def test_making_an_encoder_draws_no_more_random_numbers_than_its_class():
    torch.manual_seed(0)
    config = small_encoder_config("bert")
    MODEL_MAPPING[type(config)](config, add_pooling_layer=False)
    after_stock = torch.rand(1)
    torch.manual_seed(0)
    make_encoder(config, None)
    assert torch.equal(torch.rand(1), after_stock)


def test_positions_with_a_table_end_with_it_and_rotary_ones_do_not():
    assert make("bert")[1].max_tokens == 256
    assert make("esm-1b")[1].max_tokens == 256 - 2, "ESM-1b counts from the row behind the padding's, 1"
    assert make("esm-2")[1].max_tokens == MAX_TOKENS_WITHOUT_TABLE


def test_what_no_answer_depends_on_is_frozen():
    encoder, how = make("esm-2")
    frozen = {name for name, parameter in encoder.named_parameters() if not parameter.requires_grad}
    assert frozen == {
        "contact_head.regression.weight",
        "contact_head.regression.bias",
        *(f"pooler.dense.{kind}" for kind in ("weight", "bias") if encoder.pooler is not None),
    }
    assert how.learned.isdisjoint(frozen)
    assert encoder.training


@pytest.mark.parametrize("layout", [*PACKED, "roformer", "deberta-v2", "mpnet"])
def test_embeddings_and_layers_are_found_in_every_tested_family(layout):
    encoder, _ = make(layout)
    words = encoder.get_input_embeddings()
    assert any(module is words for module in embeddings_of(encoder).modules())
    layers = layers_of(encoder)
    assert len(layers) == 2
    assert not any(module is words for module in layers.modules())
    assert sum(p.numel() for p in layers.parameters()) > 0.4 * sum(p.numel() for p in encoder.parameters())


def test_layers_that_share_their_weights_cannot_be_told_apart():
    with pytest.raises(ConfigError, match="encoder 'albert': 0 stacks of 2 layers, expected 1"):
        layers_of(make("albert")[0])


@pytest.mark.parametrize(
    "asked",
    [
        {"sliding_window": 128},
        {"softcap": 50.0},
        {"position_bias": torch.zeros(1)},
        {"s_aux": torch.zeros(1)},
        {"is_causal": True},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_packed_attention_refuses_what_it_does_not_do(asked):
    batch = PackedBatch.from_ids(proteins_of((2,)))
    row = torch.zeros(1, 2, batch.num_tokens, 8)
    with pytest.raises(
        ConfigError, match=rf"Module asks for {next(iter(asked))}, which packed rows do not do"
    ):
        packed_attention(torch.nn.Module(), row, row, row, None, batch=batch, **asked)
    with pytest.raises(ConfigError, match="Module asks for attention_mask"):
        packed_attention(torch.nn.Module(), row, row, row, torch.zeros(1), batch=batch)


def test_a_causal_encoder_does_not_run_packed():
    _, how = make_encoder(
        CONFIG_MAPPING["bert"](**{**small_encoder_config("bert").to_dict(), "is_decoder": True}), None
    )
    assert not how.is_packed
