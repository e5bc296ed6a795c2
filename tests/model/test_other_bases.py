"""Bases that are no BERT: their vocabularies, their weights, and the model folders that come of them."""

import json
import logging

import pytest
import safetensors.torch
import torch
from transformers import AutoTokenizer, EsmModel, EsmTokenizer

from prottune.alphabet import RARE_RESIDUES, STANDARD_RESIDUES, VOCABULARY, encode
from prottune.artifacts import new_folder
from prottune.errors import ArtifactError, ConfigError, DataError
from prottune.model import encoders
from prottune.model.base import find_base, load_base
from prottune.model.folder import HEADS_FILE, WEIGHTS_FILE, load_model, save_model
from prottune.model.packed import PackedBatch
from prottune.model.published import read_encoder
from tests.model.small_encoders import ESM_VOCABULARY, write_base, write_esm_base
from tests.model.small_models import LABELS, description, random_sequence, small_model, write_model

SEQUENCES = [random_sequence(length) for length in (1, 7, 100, 254)]


def load(folder, head="attention", labels=LABELS):
    torch.manual_seed(0)
    return load_base(str(folder), "", head, labels, 0.1).eval()


def batch_of(sequences=SEQUENCES):
    return PackedBatch.from_ids([encode([sequence])[0] for sequence in sequences])


def logits(model, sequences=SEQUENCES):
    with torch.inference_mode():
        return model(batch_of(sequences))


@pytest.mark.parametrize(
    ("kind", "old_names"),
    [("rotary", False), ("rotary", True), ("absolute", False)],
    ids=["ESM-2", "ESM-2 as published in 2022", "ESM-1b"],
)
def test_esm_gives_the_vectors_that_stock_transformers_computes_from_the_same_folder(
    tmp_path, kind, old_names
):
    settings = {"position_embedding_type": kind, "max_position_embeddings": 300}
    folder = write_esm_base(tmp_path / "esm", old_names=old_names, **settings)
    model = load(folder)
    stock = EsmModel.from_pretrained(folder, add_pooling_layer=False).eval()
    rows = EsmTokenizer(str(folder / "vocab.txt"))(SEQUENCES, padding=True, return_tensors="pt")
    batch = batch_of()
    with torch.inference_mode():
        expected_BLD = stock(**rows).last_hidden_state
        own = model.own_ids_V[batch.input_ids_1T]
        assert torch.equal(own[0], rows["input_ids"][rows["attention_mask"].bool()])
        features = []
        model.head.register_forward_pre_hook(lambda head, inputs: features.append(inputs[0]))
        model(batch)
    assert model.layout.is_packed
    torch.testing.assert_close(features[0], expected_BLD[rows["attention_mask"].bool()], rtol=0, atol=1e-5)


def test_an_esm_may_come_without_what_no_answer_depends_on_but_not_without_a_layer(tmp_path):
    folder = write_esm_base(tmp_path / "esm")
    path = folder / "model.safetensors"
    weights = safetensors.torch.load_file(path)
    lean = {name: t for name, t in weights.items() if "contact_head" not in name and "inv_freq" not in name}
    safetensors.torch.save_file(lean, path, metadata={"format": "pt"})
    assert load(folder).layout.is_packed
    del lean["esm.encoder.layer.1.output.dense.bias"]
    safetensors.torch.save_file(lean, path, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"1 encoder weights are missing, .* esm.encoder.layer.1.output"):
        load(folder)


def test_weights_of_another_shape_are_refused(tmp_path):
    folder = write_esm_base(tmp_path / "esm")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(ArtifactError, match=r"esm.encoder.layer.0.* has shape \(48,?.*\), config.json says"):
        load(folder)


def test_every_token_of_ours_has_the_encoders_own_id(tmp_path):
    own = read_encoder(write_esm_base(tmp_path / "esm")).token_ids
    spelled = [ESM_VOCABULARY[index] for index in own]
    assert spelled[:5] == ["<pad>", "<unk>", "<cls>", "<eos>", "<mask>"]
    assert spelled[5:] == list(VOCABULARY[5:])


def test_a_token_that_nothing_writes_may_be_missing_and_counts_as_x(tmp_path):
    lean = [token for token in ESM_VOCABULARY if token not in (*RARE_RESIDUES, "<unk>", "<mask>")]
    own = read_encoder(write_esm_base(tmp_path / "esm", lean)).token_ids
    for token in ("[UNK]", "[MASK]", "U", "B", "Z", "O"):
        assert lean[own[VOCABULARY.index(token)]] == "X"
    assert [lean[own[VOCABULARY.index(residue)]] for residue in STANDARD_RESIDUES] == list(STANDARD_RESIDUES)


@pytest.mark.parametrize("missing", ["W", "X", "<cls>", "<eos>", "<pad>"])
def test_a_vocabulary_without_a_residue_or_mark_is_refused(tmp_path, missing):
    vocabulary = [token for token in ESM_VOCABULARY if token != missing]
    with pytest.raises(ArtifactError, match=r"vocab.txt: no token for .*; expected one for each") as refusal:
        load(write_esm_base(tmp_path / "esm", vocabulary))
    assert "\n" not in str(refusal.value)


def test_ids_beyond_the_encoders_table_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"vocab.txt: id 36, but config.json has vocab_size 33"):
        load(write_esm_base(tmp_path / "esm", ["<one>", "<two>", "<three>", "<four>", *ESM_VOCABULARY]))


def test_a_vocabulary_can_be_a_tokenizer_file(tmp_path):
    folder = write_esm_base(tmp_path / "esm")
    expected = read_encoder(folder).token_ids
    (folder / "vocab.txt").unlink()
    letters = {token: index for index, token in enumerate(ESM_VOCABULARY) if len(token) == 1}
    marks = [{"id": i, "content": token} for i, token in enumerate(ESM_VOCABULARY) if len(token) > 1]
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": letters}, "added_tokens": marks}))
    assert read_encoder(folder).token_ids == expected


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {}}', '{"model": {"vocab": [["A", -1.5]]}}'])
def test_a_tokenizer_file_without_a_table_of_ids_is_refused(tmp_path, content):
    folder = write_esm_base(tmp_path / "esm")
    (folder / "vocab.txt").unlink()
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"tokenizer.json: no table of tokens and ids"):
        load(folder)


def test_the_vocabulary_is_part_of_what_identifies_a_translated_base(tmp_path):
    swapped = list(ESM_VOCABULARY)
    swapped[4], swapped[5] = swapped[5], swapped[4]
    first, again, other = (
        find_base(str(write_esm_base(tmp_path / name, vocabulary)), "", tmp_path).facts.digest
        for name, vocabulary in (("one", ESM_VOCABULARY), ("two", ESM_VOCABULARY), ("three", swapped))
    )
    assert first == again != other


def test_a_base_that_will_run_padded_says_so_before_anything_is_built(tmp_path, caplog):
    encoders._say_padded.cache_clear()
    folder = write_base(tmp_path / "base", "roformer")
    with caplog.at_level(logging.WARNING, "prottune"):
        find_base(str(folder), "", tmp_path)
        load(folder)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["encoder 'roformer': does not support attention functions; running padded"]


@pytest.mark.parametrize("layout", ["electra", "roformer"])
def test_another_family_loads_saves_and_answers(tmp_path, layout, head):
    model = load(write_base(tmp_path / "base", layout), head)
    assert model.layout.is_packed == (layout == "electra")
    together_BC = logits(model)
    alone_BC = torch.cat([logits(model, [sequence]) for sequence in SEQUENCES])
    torch.testing.assert_close(together_BC, alone_BC, rtol=0, atol=2e-5)
    loaded, _ = load_model(write_model(tmp_path / "model", model))
    assert torch.equal(logits(loaded), together_BC)


def test_a_trained_esm_is_saved_whole_and_can_be_a_base_again(tmp_path, head):
    model = load(write_esm_base(tmp_path / "esm"), head)
    folder = write_model(tmp_path / "model", model)
    loaded, found = load_model(folder)
    assert torch.equal(logits(loaded), logits(model))
    assert found == description(head)
    weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    assert all(name.startswith("esm.") for name in weights)
    heads = safetensors.torch.load_file(folder / HEADS_FILE)
    assert not any(name.startswith("esm.") for name in heads)

    again = load(folder, head, ("A", "B"))
    assert again.config.token_ids == model.config.token_ids
    for name, tensor in again.esm.state_dict().items():
        assert torch.equal(tensor, model.esm.state_dict()[name]), name


def test_the_saved_tokenizer_gives_the_ids_that_an_esm_model_is_fed(tmp_path):
    folder = write_model(tmp_path / "model", load(write_esm_base(tmp_path / "esm")))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.model_max_length == encoders.MAX_TOKENS_WITHOUT_TABLE
    for sequence in SEQUENCES:
        assert tokenizer(sequence)["input_ids"] == encode([sequence])[0].tolist()


def test_angles_of_positions_stay_in_fp32_when_the_rest_computes_in_bf16(tmp_path):
    model = load(write_esm_base(tmp_path / "esm"))
    loaded, _ = load_model(write_model(tmp_path / "model", model), torch.bfloat16)
    assert loaded.esm.embeddings.word_embeddings.weight.dtype == torch.bfloat16
    assert torch.equal(loaded.esm.rotary_embeddings.inv_freq, model.esm.rotary_embeddings.inv_freq)
    assert loaded.classifier.weight.dtype == torch.float32
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=0.2)


def test_a_protein_longer_than_an_esms_position_table_is_refused(tmp_path):
    folder = write_esm_base(tmp_path / "esm", position_embedding_type="absolute")
    model = load(folder)
    assert model.max_residues == 252
    assert logits(model, [random_sequence(252)]).shape == (1, len(LABELS))
    with pytest.raises(DataError, match="a protein of 253 residues: this model reads at most 252"):
        logits(model, [random_sequence(253)])


def test_rotary_positions_read_longer_than_the_settings_say(tmp_path):
    model = load(write_esm_base(tmp_path / "esm"))
    sequences = [random_sequence(400), random_sequence(3)]
    torch.testing.assert_close(logits(model, sequences)[1:], logits(model, sequences[1:]), rtol=0, atol=1e-5)


def test_a_bert_folder_written_before_other_encoders_were_known_loads_the_same(tmp_path, head):
    model = small_model(head, head_dropout=0.1)
    with new_folder(tmp_path / "model", "train", None) as draft:
        save_model(model, draft.path, description(head))
        path = draft.path / "config.json"
        settings = json.loads(path.read_text())
        if head != "cls":
            encoder = settings.pop("encoder")
            del settings["token_ids"], encoder["model_type"]
            path.write_text(json.dumps({**settings, **encoder}))
    loaded, _ = load_model(tmp_path / "model")
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.config.head_dropout == 0.1
    assert loaded.config.to_dict() == model.config.to_dict()
    assert load(tmp_path / "model").config.encoder == model.config.encoder


def test_accessors_name_the_encoders_parts(tmp_path):
    for model, name in ((small_model("mean"), "bert"), (load(write_esm_base(tmp_path / "esm")), "esm")):
        encoder = getattr(model, name)
        assert model.base_model is encoder
        assert model.embeddings() is encoder.embeddings
        assert model.layers() is encoder.encoder.layer
        assert {id(p) for p in model.encoder_parameters()} == {id(p) for p in encoder.parameters()}
        assert model.config.hidden_size == 32


def test_code_in_a_base_folder_is_not_run(tmp_path):
    folder = write_esm_base(tmp_path / "esm")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "planted.Config", "AutoModel": "planted.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    model = load(folder)
    assert "auto_map" not in model.config.encoder
    assert not (tmp_path / "ran").exists()
