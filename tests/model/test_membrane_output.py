"""A model with a second output, whether the protein is bound to a membrane, beside one without it."""

import json

import pytest
import safetensors.torch
import torch
from transformers import BertForSequenceClassification

from prottune.alphabet import encode
from prottune.artifacts import new_folder
from prottune.errors import ArtifactError
from prottune.model.calibration import fit_membrane_temperature
from prottune.model.classifier import split_logits
from prottune.model.description import DESCRIPTION_FILE
from prottune.model.folder import HEADS_FILE, load_model, save_model
from prottune.model.golden import read_golden, write_golden
from prottune.model.inference import Predictor
from prottune.model.packed import PackedBatch
from tests.model.small_models import LABELS, description, random_sequence, small_model, write_model

SEQUENCES = [random_sequence(length) for length in (1, 7, 100, 254)]


def logits(model):
    with torch.inference_mode():
        return model(PackedBatch.from_ids([encode([sequence])[0] for sequence in SEQUENCES]))


def with_membrane(head):
    return small_model(head, membrane=True)


def test_the_locations_start_and_answer_the_same_with_a_second_output_and_without(head):
    both_BO, locations_BC = logits(with_membrane(head)), logits(small_model(head))
    found_BC, membrane_B = split_logits(both_BO, len(LABELS))
    assert torch.equal(found_BC, locations_BC)
    assert membrane_B.shape == (4,)
    assert split_logits(locations_BC, len(LABELS))[1] is None


def test_the_second_output_reads_the_same_features_as_the_first(head):
    model = with_membrane(head)
    with torch.no_grad():
        model.membrane.weight.copy_(model.classifier.weight[1:2])
        model.membrane.bias.copy_(model.classifier.bias[1:2])
    both_BO = logits(model)
    torch.testing.assert_close(both_BO[:, -1], both_BO[:, 1], rtol=0, atol=1e-6)


def test_a_saved_model_loads_back_equal(tmp_path, head):
    model = with_membrane(head)
    loaded, found = load_model(write_model(tmp_path / "model", model, membrane_temperature=1.5))
    assert torch.equal(logits(loaded), logits(model))
    assert found.membrane
    assert found.membrane_temperature == 1.5


def test_a_cls_folder_stays_a_stock_classifier_of_locations(tmp_path):
    model = with_membrane("cls")
    folder = write_model(tmp_path / "model", model, membrane_temperature=1.0)
    stock, notes = BertForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    assert torch.equal(stock.classifier.weight, model.classifier.weight)
    assert stock.classifier.out_features == len(LABELS)
    assert set(safetensors.torch.load_file(folder / HEADS_FILE)) == {"membrane.weight", "membrane.bias"}
    without = write_model(tmp_path / "without", small_model("cls"))
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (without / name).read_bytes()


def test_both_last_layers_keep_every_bit_in_a_model_of_bf16(tmp_path, head):
    model = with_membrane(head)
    loaded, _ = load_model(write_model(tmp_path / "model", model, membrane_temperature=1.0), torch.bfloat16)
    assert loaded.bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    for layer, original in zip(loaded.output_layers(), model.output_layers(), strict=True):
        assert torch.equal(layer.weight, original.weight)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0.2)


def rewritten(tmp_path, model, said, **changes):
    """A finished folder whose prottune.json has other fields than those it was written with."""
    with new_folder(tmp_path / "model", "train", None) as draft:
        save_model(model, draft.path, description(model.config.head, **said))
        path = draft.path / DESCRIPTION_FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return tmp_path / "model"


def test_without_a_second_task_a_folder_says_what_it_said_before_there_was_one(tmp_path, head):
    model = small_model(head)
    folder = write_model(tmp_path / "model", model)
    for name in (DESCRIPTION_FILE, "config.json"):
        assert "membrane" not in (folder / name).read_text()
    loaded, found = load_model(folder)
    assert torch.equal(logits(loaded), logits(model))
    assert not found.membrane


def test_weights_that_the_description_does_not_speak_of_are_refused(tmp_path):
    folder = rewritten(
        tmp_path, with_membrane("mean"), {"membrane_temperature": 1.0}, membrane_temperature=None
    )
    with pytest.raises(ArtifactError, match=r"weights do not fit config\.json: .*membrane\.weight"):
        load_model(folder)


@pytest.mark.parametrize(
    ("own", "words"),
    [("cls", r"heads\.safetensors: missing, but prottune\.json"), ("mean", r"Missing key.*membrane\.weight")],
)
def test_a_description_that_speaks_of_weights_which_are_not_there_is_refused(tmp_path, own, words):
    with pytest.raises(ArtifactError, match=words):
        load_model(rewritten(tmp_path, small_model(own), {}, membrane_temperature=1.0))


def test_an_answer_is_a_probability_and_it_is_golden(tmp_path):
    model = with_membrane("mean")
    with new_folder(tmp_path / "model", "train", None) as draft:
        said = description("mean", membrane_temperature=1.0)
        save_model(model, draft.path, said)
        write_golden(draft.path, Predictor(model, said))
    predictor = Predictor.load(tmp_path / "model", "fp32")
    assert predictor.tells_membrane
    answers = predictor.predict(SEQUENCES)
    assert [answer.membrane for answer in answers] == pytest.approx(logits(model)[:, -1].sigmoid().tolist())
    assert answers[0].probabilities.sum() == pytest.approx(1.0)
    golden = read_golden(tmp_path / "model")
    found = predictor.predict([entry["sequence"] for entry in golden])
    assert [entry["membrane"] for entry in golden] == pytest.approx([answer.membrane for answer in found])


def test_a_model_without_the_output_says_nothing_of_it(tmp_path):
    model = small_model("mean")
    predictor = Predictor(model, description("mean"))
    assert not predictor.tells_membrane
    assert predictor.predict(["MKT"])[0].membrane is None
    write_golden(tmp_path, predictor)
    assert "membrane" not in read_golden(tmp_path)[0]


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_its_temperature_undoes_a_factor_and_unknown_flags_have_no_say(factor):
    generator = torch.Generator().manual_seed(0)
    logits_N = 2 * torch.randn(4000, generator=generator)
    flags_N = torch.bernoulli(logits_N.sigmoid(), generator=generator)
    assert fit_membrane_temperature(factor * logits_N, flags_N) == pytest.approx(factor, rel=0.06)
    known = fit_membrane_temperature(factor * logits_N[:3000], flags_N[:3000])
    flags_N[3000:] = float("nan")
    logits_N[3000:] = 100.0
    assert fit_membrane_temperature(factor * logits_N, flags_N) == known


def test_without_any_flag_its_temperature_is_one():
    assert fit_membrane_temperature(torch.tensor([3.0, -1.0]), torch.tensor([float("nan")] * 2)) == 1.0
