"""Scores of residues: they add up, agree with a plain sum of gradients, and keep the protein's numbering."""

import numpy as np
import pytest
import torch

from prottune.alphabet import STANDARD_RESIDUES, VOCABULARY, encode
from prottune.errors import ConfigError, DataError
from prottune.model import attribution
from prottune.model.attribution import FIRST_STEPS, MAX_STEPS, NUM_BASELINES, attribute, random_baselines
from prottune.model.base import load_base
from prottune.model.classifier import LocationModel, new_config
from prottune.model.inference import Predictor
from prottune.model.packed import PackedBatch
from tests.model.small_encoders import small_encoder_config, write_esm_base
from tests.model.small_models import LABELS, description, random_sequence, small_model

SEQUENCE = random_sequence(30)


def predictor(head="attention", **changes):
    return Predictor(small_model(head), description(head, **changes))


def expected_difference(ours, sequence, location):
    """From the answers' probabilities alone: a logit less the mean is its log probability less the mean."""
    answers = ours.predict([sequence, *random_baselines(sequence)])
    log_NC = np.log(np.array([answer.probabilities for answer in answers], dtype=np.float64))
    centred_N = (log_NC - log_NC.mean(axis=1, keepdims=True))[:, LABELS.index(location)]
    return centred_N[0] - centred_N[1:].mean()


def test_scores_add_up_to_the_difference_that_the_packed_models_answers_show(head):
    ours = predictor(head)
    for location in LABELS:
        found = attribute(ours, SEQUENCE, location)
        expected = expected_difference(ours, SEQUENCE, location)
        assert found.difference == pytest.approx(expected, abs=1e-4)
        assert abs(found.scores_R.sum() - expected) <= 0.02 * max(abs(expected), 1) + 1e-4
        assert found.is_complete


def test_scores_equal_a_plain_sum_of_gradients_on_the_packed_path(head, monkeypatch):
    monkeypatch.setattr(attribution, "FIRST_STEPS", 128)
    ours = predictor(head)
    found = attribute(ours, SEQUENCE, LABELS[1])
    expected_R = np.mean(
        [
            _plain_sum(ours.model, SEQUENCE, base, output=1, num_points=100)
            for base in random_baselines(SEQUENCE)
        ],
        axis=0,
    )
    np.testing.assert_allclose(found.scores_R, expected_R, rtol=0, atol=0.02 * np.abs(expected_R).max())


def _plain_sum(model, sequence, baseline, output, num_points):
    """Equation 1 of Sundararajan et al. by midpoints, all of them side by side in one packed row."""
    table = model.base_model.get_input_embeddings()
    ids_L, base_L = (torch.from_numpy(encode([text])[0].astype(np.int64)) for text in (sequence, baseline))
    step_LD = (table(ids_L) - table(base_L)).detach()
    shares_P11 = ((torch.arange(num_points) + 0.5) / num_points)[:, None, None]
    here_PLD = (table(base_L).detach() + shares_P11 * step_LD).requires_grad_()
    hook = table.register_forward_hook(lambda *_: here_PLD.flatten(0, 1)[None])
    logits_PC = model(PackedBatch.from_ids([ids_L.numpy()] * num_points))
    hook.remove()
    centred_P = logits_PC[:, output] - logits_PC.mean(dim=1)
    (gradients_PLD,) = torch.autograd.grad(centred_P.sum(), here_PLD)
    return (gradients_PLD.mean(dim=0) * step_LD).sum(dim=1)[1:-1].double().numpy()


def test_without_a_name_the_predicted_location_is_explained():
    ours = predictor()
    assert attribute(ours, SEQUENCE).location == ours.predict([SEQUENCE])[0].location


def test_a_second_task_is_no_location():
    ours = Predictor(small_model("mean", membrane=True), description("mean", membrane_temperature=1.0))
    with torch.no_grad():
        ours.model.membrane.bias.fill_(100)
    assert attribute(ours, SEQUENCE).location in LABELS


def test_what_is_added_to_all_logits_changes_nothing():
    ours, moved = predictor(), predictor()
    with torch.no_grad():
        moved.model.classifier.weight += torch.linspace(-1, 1, moved.model.classifier.in_features)
    found, again = (attribute(each, SEQUENCE, LABELS[0]) for each in (ours, moved))
    np.testing.assert_allclose(again.scores_R, found.scores_R, rtol=0, atol=1e-4)
    assert again.difference == pytest.approx(found.difference, abs=1e-4)


def test_the_scores_of_a_residue_for_all_locations_cancel_out():
    found = [attribute(predictor("mean"), SEQUENCE, location) for location in LABELS]
    assert {each.steps for each in found} == {FIRST_STEPS}
    scores_CR = np.array([each.scores_R for each in found])
    assert np.abs(scores_CR.sum(axis=0)).max() < 1e-4 * np.abs(scores_CR).max()


def test_a_protein_is_compared_with_the_same_random_ones_each_time():
    bases = random_baselines("MKX" + SEQUENCE)
    assert bases == random_baselines("MKX" + SEQUENCE)
    assert len(set(bases)) == NUM_BASELINES
    assert {len(base) for base in bases} == {33}
    assert {base.index("X") for base in bases} == {base.rindex("X") for base in bases} == {2}
    assert set("".join(bases)) == {*STANDARD_RESIDUES, "X"}


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
    read = "".join(SEQUENCE[place] for place in kept)
    whole = attribute(predictor(max_residues=11, cut=policy), SEQUENCE)
    alone = attribute(predictor(), read)
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
    expected = expected_difference(Predictor(model, description("attention")), SEQUENCE, found.location)
    assert found.difference == pytest.approx(expected, abs=1e-4)
    assert found.is_complete
    assert np.abs(found.scores_R).max() > 0


def test_an_encoder_with_its_own_ids_is_explained_in_its_own_ids(tmp_path):
    torch.manual_seed(0)
    base = write_esm_base(tmp_path / "esm")
    ours = Predictor(load_base(str(base), "", "mean", LABELS, 0.0), description("mean"))
    found = attribute(ours, SEQUENCE, LABELS[0])
    expected = expected_difference(ours, SEQUENCE, LABELS[0])
    assert found.difference == pytest.approx(expected, abs=1e-4)
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
    monkeypatch.setattr(attribution, "FIRST_STEPS", NUM_BASELINES)
    monkeypatch.setattr(attribution, "MAX_ERROR", 0.001)
    found = attribute(predictor(), SEQUENCE)
    assert found.is_complete
    assert found.steps in {2**power for power in range(3, 10)}
    monkeypatch.setattr(attribution, "MAX_STEPS", found.steps // 2)
    assert not attribute(predictor(), SEQUENCE).is_complete


def test_what_is_raised_before_a_pass_through_the_model_ends_the_work():
    passes = []

    def end():
        passes.append(len(passes))
        if len(passes) == NUM_BASELINES + 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attribute(predictor(), SEQUENCE, LABELS[0], end)
    assert len(passes) == NUM_BASELINES + 3


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
