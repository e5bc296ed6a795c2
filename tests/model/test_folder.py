import json

import pytest
import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from prottune.alphabet import encode
from prottune.artifacts import new_folder
from prottune.errors import ArtifactError
from prottune.model.description import DESCRIPTION_FILE
from prottune.model.folder import HEADS_FILE, WEIGHTS_FILE, load_model, save_model
from prottune.model.packed import PackedBatch
from tests.model.small_models import LABELS, description, random_sequence, small_model, write_model

SEQUENCES = [random_sequence(length) for length in (1, 7, 100, 254)]


def logits(model, sequences=SEQUENCES):
    with torch.inference_mode():
        return model(PackedBatch.from_ids([encode([sequence])[0] for sequence in sequences]))


def test_a_saved_model_loads_back_equal(tmp_path, head):
    model = small_model(head, head_dropout=0.1)
    loaded, found = load_model(write_model(tmp_path / "model", model))
    assert torch.equal(logits(loaded), logits(model))
    assert found == description(head)
    assert loaded.labels == LABELS
    assert not loaded.training
    assert loaded.config.head_dropout == 0.1
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_bf16_keeps_the_last_layer_in_fp32(tmp_path, head):
    model = small_model(head)
    loaded, _ = load_model(write_model(tmp_path / "model", model), torch.bfloat16)
    assert loaded.bert.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    assert loaded.classifier.weight.dtype == torch.float32
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0.2)


def test_a_cls_folder_is_a_stock_classifier_with_the_same_answers(tmp_path):
    model = small_model("cls", head_dropout=0.1)
    folder = write_model(tmp_path / "model", model)
    stock, notes = BertForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not notes["missing_keys"]
    assert not notes["unexpected_keys"]
    assert stock.config.id2label == dict(enumerate(LABELS))
    assert stock.config.problem_type == "single_label_classification"
    assert stock.config.classifier_dropout == 0.1
    batch = AutoTokenizer.from_pretrained(folder)(SEQUENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        torch.testing.assert_close(stock.eval()(**batch).logits, logits(model), rtol=0, atol=1e-5)
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["model_type"] == "bert"
    assert not (folder / HEADS_FILE).exists()


@pytest.mark.parametrize("own", ["mean", "attention"])
def test_an_own_head_is_apart_from_the_encoder_and_no_stock_class_takes_it_silently(tmp_path, own):
    from safetensors import safe_open
    from transformers import AutoModelForSequenceClassification

    folder = write_model(tmp_path / "model", small_model(own))
    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        assert all(name.startswith("bert.") for name in file.keys())  # noqa: SIM118 - no mapping
    with safe_open(folder / HEADS_FILE, "pt") as file:
        assert not any(name.startswith("bert.") for name in file.keys())  # noqa: SIM118
    with pytest.raises(ValueError, match="prottune"):
        AutoModelForSequenceClassification.from_pretrained(folder)


def test_the_folder_says_all_that_must_travel_with_the_weights(tmp_path, head):
    folder = write_model(tmp_path / "model", small_model(head), temperature=1.5, confident_above=0.8)
    content = json.loads((folder / DESCRIPTION_FILE).read_text())
    assert content["temperature"] == 1.5
    assert content["confident_above"] == 0.8
    assert content["labels"] == list(LABELS)
    assert content["head"] == head


def rewritten(tmp_path, change):
    """A finished folder whose prottune.json says something else."""
    model = small_model("mean")
    with new_folder(tmp_path / "model", "train", None) as draft:
        save_model(model, draft.path, description("mean"))
        path = draft.path / DESCRIPTION_FILE
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda content: {**content, "alphabet_sha256": "0" * 64},
            "made with alphabet 000000000000, this prottune",
        ),
        (
            lambda content: {**content, "labels": ["A", "B", "C"]},
            "config.json and prottune.json name other locations",
        ),
        (lambda content: {**content, "future": 1}, "fields .*'future'.*, expected"),
        (lambda content: {key: content[key] for key in content if key != "head"}, "expected .*'head'"),
        (lambda content: {**content, "head": "lstm"}, "head 'lstm', expected one of cls, mean, attention"),
        (lambda content: [content], "holds a list, expected the fields of a model"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, change, words):
    with pytest.raises(ArtifactError, match=words):
        load_model(rewritten(tmp_path, change))


def test_a_damaged_folder_is_refused(tmp_path):
    folder = write_model(tmp_path / "model", small_model("mean"))
    weights = folder / WEIGHTS_FILE
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model.safetensors: damaged, SHA-256"):
        load_model(folder)


def test_a_folder_of_another_stage_is_refused(tmp_path):
    with new_folder(tmp_path / "tokens", "tokenize", None) as draft:
        (draft.path / "tokens.arrow").write_bytes(b"")
    with pytest.raises(ArtifactError, match="made by stage 'tokenize', expected one made by 'train'"):
        load_model(tmp_path / "tokens")


def test_a_folder_without_a_description_is_refused(tmp_path):
    with new_folder(tmp_path / "model", "train", None) as draft:
        (draft.path / "config.json").write_text("{}")
    with pytest.raises(
        ArtifactError, match=r"prottune.json: missing; this is not a model that prottune trained"
    ):
        load_model(tmp_path / "model")


def test_weights_of_another_shape_are_refused(tmp_path):
    model = small_model("mean")
    with new_folder(tmp_path / "model", "train", None) as draft:
        save_model(model, draft.path, description("mean"))
        path = draft.path / "config.json"
        settings = json.loads(path.read_text())
        settings["encoder"]["num_hidden_layers"] = 3
        path.write_text(json.dumps(settings))
    with pytest.raises(ArtifactError, match=r"weights do not fit config.json"):
        load_model(tmp_path / "model")


def test_loading_makes_no_random_weights_first(tmp_path, head):
    folder = write_model(tmp_path / "model", small_model(head))
    before = torch.get_rng_state()
    load_model(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_who_changes_the_file_later_does_not_change_the_model(tmp_path, head):
    folder = write_model(tmp_path / "model", small_model(head))
    loaded, _ = load_model(folder)
    expected = logits(loaded)
    with (folder / WEIGHTS_FILE).open("r+b") as file:
        file.seek(file.seek(0, 2) // 2)
        file.write(b"\xff" * 1000)
    assert torch.equal(logits(loaded), expected)
