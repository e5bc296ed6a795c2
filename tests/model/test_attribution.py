"""Scores of residues: they add up, agree with a plain sum of gradients, and keep the protein's numbering."""

import numpy as np
import pytest
import torch

from prottune.alphabet import VOCABULARY, encode
from prottune.errors import ConfigError, DataError
from prottune.model import attribution
from prottune.model.attribution import MAX_STEPS, attribute
from prottune.model.base import load_base
from prottune.model.classifier import LocationModel, new_config
from prottune.model.inference import Predictor
from prottune.model.packed import PackedBatch
from tests.model.small_encoders import small_encoder_config, write_esm_base
from tests.model.small_models import LABELS, description, random_sequence, small_model

SEQUENCE = random_sequence(30)


def predictor(head="attention", **changes):
    return Predictor(small_model(head), description(head, **changes))


def packed_logits(model, *sequences):
    with torch.inference_mode():
        return model(PackedBatch.from_ids([encode([sequence])[0] for sequence in sequences])).double()


def test_scores_add_up_to_the_difference_of_logits_that_the_packed_model_gives(head):
    ours = predictor(head)
    protein_C, unknown_C = packed_logits(ours.model, SEQUENCE, "X" * len(SEQUENCE))
    for index, location in enumerate(LABELS):
        found = attribute(ours, SEQUENCE, location)
        expected = float(protein_C[index] - unknown_C[index])
        assert found.difference == pytest.approx(expected, abs=1e-4)
        assert abs(found.scores_R.sum() - expected) <= 0.02 * max(abs(expected), 1) + 1e-4
        assert found.is_complete


def test_scores_equal_a_plain_sum_of_gradients_on_the_packed_path(head):
    ours = predictor(head)
    found = attribute(ours, SEQUENCE, LABELS[1])
    expected_R = _plain_sum(ours.model, SEQUENCE, output=1, num_points=300)
    np.testing.assert_allclose(found.scores_R, expected_R, rtol=0, atol=0.02 * np.abs(expected_R).max())


def _plain_sum(model, sequence, output, num_points):
    """Equation 1 of Sundararajan et al. by midpoints, all of them side by side in one packed row."""
    table = model.base_model.get_input_embeddings()
    ids_L, unknown_L = (torch.from_numpy(encode([text])[0].astype(np.int64)) for text in (sequence, "X" * 30))
    step_LD = (table(ids_L) - table(unknown_L)).detach()
    shares_P11 = ((torch.arange(num_points) + 0.5) / num_points)[:, None, None]
    here_PLD = (table(unknown_L).detach() + shares_P11 * step_LD).requires_grad_()
    hook = table.register_forward_hook(lambda *_: here_PLD.flatten(0, 1)[None])
    logits_PC = model(PackedBatch.from_ids([ids_L.numpy()] * num_points))
    hook.remove()
    (gradients_PLD,) = torch.autograd.grad(logits_PC[:, output].sum(), here_PLD)
    return (gradients_PLD.mean(dim=0) * step_LD).sum(dim=1)[1:-1].double().numpy()


def test_without_a_name_the_predicted_location_is_explained():
    ours = predictor()
    assert attribute(ours, SEQUENCE).location == ours.predict([SEQUENCE])[0].location


def test_a_second_task_is_no_location():
    ours = Predictor(small_model("mean", membrane=True), description("mean", membrane_temperature=1.0))
    with torch.no_grad():
        ours.model.membrane.bias.fill_(100)
    assert attribute(ours, SEQUENCE).location in LABELS


def test_an_unknown_residue_adds_nothing():
    scores_R = attribute(predictor(), "MKX" + SEQUENCE + "U").scores_R
    assert scores_R[2] == scores_R[-1] == 0
    assert np.count_nonzero(scores_R) == 2 + len(SEQUENCE)
    nothing = attribute(predictor(), "XXX")
    assert (nothing.difference, nothing.total, nothing.is_complete) == (0, 0, True)


@pytest.mark.parametrize(
    ("policy", "kept", "left_out"),
    [
        ("head_tail", [*range(6), *range(25, 30)], (7, 25)),
        ("head", range(11), (12, 30)),
        ("tail", range(19, 30), (1, 19)),
    ],
)
def test_a_cut_protein_is_scored_where_it_is_read(policy, kept, left_out):
    kept = list(kept)
    whole = attribute(predictor(max_residues=11, cut=policy), SEQUENCE)
    alone = attribute(predictor(), "".join(SEQUENCE[place] for place in kept))
    assert whole.left_out == left_out
    assert whole.sequence == SEQUENCE
    np.testing.assert_allclose(whole.scores_R[kept], alone.scores_R, rtol=0, atol=1e-6)
    assert np.isnan(np.delete(whole.scores_R, kept)).all()
    assert whole.is_complete
    scores = whole.as_json()["scores"]
    assert [place for place, score in enumerate(scores) if score is not None] == kept
    assert alone.left_out is None


@pytest.mark.parametrize(
    "layout", ["esm-2", "esm-1b", "electra", "roberta", "roformer", "deberta-v2", "mobilebert"]
)
def test_scores_add_up_whatever_the_encoder(layout):
    torch.manual_seed(0)
    model = LocationModel(new_config(small_encoder_config(layout), "attention", LABELS, 0.0)).eval()
    found = attribute(Predictor(model, description("attention")), SEQUENCE)
    protein_C, unknown_C = packed_logits(model, SEQUENCE, "X" * len(SEQUENCE))
    index = LABELS.index(found.location)
    assert found.difference == pytest.approx(float(protein_C[index] - unknown_C[index]), abs=1e-4)
    assert found.is_complete
    assert np.abs(found.scores_R).max() > 0


def test_an_encoder_with_its_own_ids_is_compared_with_its_own_x(tmp_path):
    torch.manual_seed(0)
    base = write_esm_base(tmp_path / "esm")
    ours = Predictor(load_base(str(base), "", "mean", LABELS, 0.0), description("mean"))
    found = attribute(ours, SEQUENCE, LABELS[0])
    protein_C, unknown_C = packed_logits(ours.model, SEQUENCE, "X" * len(SEQUENCE))
    assert found.difference == pytest.approx(float(protein_C[0] - unknown_C[0]), abs=1e-4)
    assert found.is_complete
    assert ours.model.config.token_ids != list(range(len(VOCABULARY)))


def test_the_model_is_left_as_it_was():
    ours = predictor()
    before = ours.predict([SEQUENCE])[0].probabilities
    attribute(ours, SEQUENCE)
    np.testing.assert_array_equal(ours.predict([SEQUENCE])[0].probabilities, before)
    assert ours.model.layout.is_packed
    assert not ours.model.base_model.get_input_embeddings()._forward_hooks
    assert all(parameter.grad is None for parameter in ours.model.parameters())


def test_small_batches_give_the_same_scores(monkeypatch):
    together = attribute(predictor(), SEQUENCE)
    monkeypatch.setattr(attribution, "TOKENS_PER_BATCH", {"cpu": 100})
    three_at_a_time = attribute(predictor(), SEQUENCE)
    np.testing.assert_allclose(three_at_a_time.scores_R, together.scores_R, rtol=0, atol=1e-5)


def test_steps_are_doubled_until_the_scores_add_up(monkeypatch):
    monkeypatch.setattr(attribution, "FIRST_STEPS", 1)
    found = attribute(predictor(), SEQUENCE)
    assert found.is_complete
    assert found.steps in {2**power for power in range(1, 10)}
    monkeypatch.setattr(attribution, "MAX_STEPS", found.steps // 2)
    assert not attribute(predictor(), SEQUENCE).is_complete


def test_scores_that_do_not_add_up_say_so(monkeypatch):
    monkeypatch.setattr(attribution, "MAX_ERROR", 0.0)
    said = attribute(predictor(), random_sequence(3)).as_json()
    assert (said["complete"], said["steps"]) == (False, MAX_STEPS)
    assert said["error"] == abs(said["sum"] - said["difference"]) > 0


def test_what_cannot_be_explained_is_refused():
    with pytest.raises(DataError, match="'1' at residue 2"):
        attribute(predictor(), "M1K")
    with pytest.raises(ConfigError, match="'Golgi': this model knows Nucleus, Lysosome/Vacuole, Peroxisome"):
        attribute(predictor(), SEQUENCE, "Golgi")
    half = Predictor(small_model("mean").bfloat16(), description("mean"))
    with pytest.raises(ConfigError, match=r"fp32, got torch.bfloat16; load it with precision fp32"):
        attribute(half, SEQUENCE)
