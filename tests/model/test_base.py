import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import BertForMaskedLM

from prottune.alphabet import VOCABULARY, encode
from prottune.errors import ArtifactError, ConfigError, StorageError
from prottune.model import fetching
from prottune.model.base import build_model, find_base, load_base
from prottune.model.packed import PackedBatch
from prottune.model.presets import MAX_POSITIONS, PRESETS
from tests.model.small_models import LABELS, random_sequence, small_config, small_model, write_model

PROTBERT_CONFIG = {
    "architectures": ["BertForMaskedLM"],
    "attention_probs_dropout_prob": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "max_position_embeddings": 9000,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "type_vocab_size": 2,
    "vocab_size": 30,
}
"""The settings that Rostlab/prot_bert publishes, made small: no `model_type` among them."""

REVISION = "0123456789" * 4


def published_weights(seed=1):
    """Weights as Rostlab published them: under `bert.`, with a pooler, and the heads of pre-training."""
    torch.manual_seed(seed)
    model = BertForMaskedLM(small_config(max_position_embeddings=9000))
    weights = dict(model.state_dict())
    weights["bert.pooler.dense.weight"] = torch.randn(32, 32)
    weights["bert.pooler.dense.bias"] = torch.randn(32)
    weights["bert.embeddings.position_ids"] = torch.arange(9000)[None]
    weights["cls.seq_relationship.weight"] = torch.randn(2, 32)
    assert any(name.startswith("cls.predictions") for name in weights)
    return weights


def write_base(folder: Path, weights=None, config=None, vocabulary=VOCABULARY, zipped=True) -> Path:
    """A folder in the layout of Rostlab/prot_bert: config without model_type, vocab.txt, only a pickle."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(PROTBERT_CONFIG if config is None else config))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.save(
        published_weights() if weights is None else weights,
        folder / "pytorch_model.bin",
        _use_new_zipfile_serialization=zipped,
    )
    return folder


def load(folder, head="attention"):
    return load_base(str(folder), "", head, LABELS, 0.1)


@pytest.mark.parametrize("zipped", [True, False], ids=["as torch writes now", "as torch wrote in 2020"])
def test_protbert_loads_as_it_is_published(tmp_path, head, zipped):
    model = load(write_base(tmp_path / "base", zipped=zipped), head)
    published = published_weights()
    for name, tensor in model.bert.state_dict().items():
        assert torch.equal(tensor, published[f"bert.{name}"]), name
    assert model.labels == LABELS
    assert model.config.encoder["hidden_dropout_prob"] == 0.0
    assert not model.bert.embeddings.position_embeddings.weight.requires_grad
    if head == "cls":
        assert torch.equal(model.head.dense.weight, published["bert.pooler.dense.weight"])


def test_weights_without_the_bert_prefix_and_with_old_layer_norm_names_load(tmp_path):
    old = {
        name.removeprefix("bert.")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in published_weights().items()
    }
    model = load(write_base(tmp_path / "base", weights=old))
    expected = published_weights()["bert.encoder.layer.1.output.LayerNorm.weight"]
    assert torch.equal(model.bert.encoder.layer[1].output.LayerNorm.weight, expected)


def test_safetensors_are_preferred_to_the_pickle(tmp_path):
    folder = write_base(tmp_path / "base")
    other = {name: tensor.contiguous() for name, tensor in published_weights(seed=2).items()}
    safetensors.torch.save_file(
        {name: tensor.clone() for name, tensor in other.items()}, folder / "model.safetensors"
    )
    model = load(folder)
    assert torch.equal(
        model.bert.embeddings.word_embeddings.weight, other["bert.embeddings.word_embeddings.weight"]
    )


def test_half_precision_weights_are_trained_in_fp32(tmp_path):
    weights = {name: t.bfloat16() if t.is_floating_point() else t for name, t in published_weights().items()}
    model = load(write_base(tmp_path / "base", weights=weights))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_base_is_identified_by_config_and_weights(tmp_path):
    first = load(write_base(tmp_path / "one")).base
    again = load(write_base(tmp_path / "two")).base
    other = load(write_base(tmp_path / "three", weights=published_weights(seed=2))).base
    reset = load(write_base(tmp_path / "four", config={**PROTBERT_CONFIG, "hidden_act": "relu"})).base
    assert first.name == str(tmp_path / "one")
    assert first.revision == ""
    assert len(first.digest) == 64
    assert first.digest == again.digest
    assert len({first.digest, other.digest, reset.digest}) == 3


class Poison:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_poisoned_pickle_is_refused_and_not_executed(tmp_path, zipped):
    poison = Poison(tmp_path / "executed")
    folder = write_base(tmp_path / "base", weights={"bert.embeddings": poison}, zipped=zipped)
    with pytest.raises(ArtifactError, match="refused, it is damaged or holds more than weights"):
        load(folder)
    assert not poison.path.exists()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(poison))
    with pytest.raises(ArtifactError, match="refused, it is damaged or holds more than weights"):
        load(folder)
    assert not poison.path.exists()


def without(name):
    return {key: tensor for key, tensor in published_weights().items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"weights": without("bert.encoder.layer.1.output.dense.bias")},
            "1 encoder weights are missing, .*layer.1",
        ),
        (
            {
                "weights": {
                    **published_weights(),
                    "bert.embeddings.word_embeddings.weight": torch.zeros(31, 32),
                }
            },
            r"word_embeddings.weight has shape \(31, 32\), config.json says \(30, 32\)",
        ),
        ({"weights": [1, 2]}, "expected a table of weights, got list"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, change, words):
    with pytest.raises(ArtifactError, match=words):
        load(write_base(tmp_path / "base", **change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"vocabulary": [*VOCABULARY[:6], "X", *VOCABULARY[7:]]},
            "token 6 is 'X', expected 'A' as in ProtBERT",
        ),
        ({"vocabulary": VOCABULARY[:29]}, "29 tokens, expected 30 as in ProtBERT"),
        ({"vocabulary": [*VOCABULARY, "J"]}, "31 tokens, expected 30 as in ProtBERT"),
        ({"config": {**PROTBERT_CONFIG, "vocab_size": 33}}, "vocab_size 33, expected ProtBERT's 30"),
        ({"config": {**PROTBERT_CONFIG, "model_type": "t5"}}, "model_type 't5'; prottune fine-tunes BERT"),
        (
            {"config": {**PROTBERT_CONFIG, "_name_or_path": "Rostlab/prot_bert_bfd_localization"}},
            "already fine-tuned on DeepLoc's labels",
        ),
    ],
)
def test_another_kind_of_base_is_refused(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        load(write_base(tmp_path / "base", **change))


def test_a_base_without_a_vocabulary_is_refused(tmp_path):
    folder = write_base(tmp_path / "base")
    (folder / "vocab.txt").unlink()
    with pytest.raises(ConfigError, match=r"neither vocab.txt nor tokenizer.json"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", None, "no config.json; this is not a folder of a base model"),
        ("config.json", b"{", "config.json: not JSON"),
        ("config.json", b"[]", "expected a JSON object, got list"),
        ("pytorch_model.bin", None, "neither model.safetensors nor pytorch_model.bin"),
        ("pytorch_model.bin", b"", "it is damaged or holds more than weights"),
        ("model.safetensors", b"x" * 20, "model.safetensors: damaged"),
    ],
)
def test_a_damaged_folder_is_refused(tmp_path, file, content, words):
    folder = write_base(tmp_path / "base")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=words):
        load(folder)


@pytest.mark.parametrize(
    "name", ["Rostlab/prot_bert_bfd_localization", "s3://models/ProtBert_BFD_localization/"]
)
def test_a_base_that_knows_deeplocs_labels_is_refused_before_anything_is_fetched(name):
    with pytest.raises(ConfigError, match="already fine-tuned on DeepLoc's labels"):
        load_base(name, REVISION, "attention", LABELS, 0.1)


def test_a_name_that_means_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"base_model='no_such_base': no such folder, and no Hub name"):
        load_base("no_such_base", REVISION, "attention", LABELS, 0.1)


def test_a_hub_model_needs_a_pinned_revision():
    with pytest.raises(ConfigError, match="base_revision='main': a Hub model needs the 40 hex digits"):
        load_base("Rostlab/prot_bert", "main", "attention", LABELS, 0.1)


def test_a_hub_model_that_cannot_be_fetched_is_an_outside_failure(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        StorageError, match=r"https://huggingface.co/Rostlab/prot_bert: could not fetch revision"
    ):
        load_base("Rostlab/prot_bert", REVISION, "attention", LABELS, 0.1)


def test_a_hub_that_breaks_off_in_the_middle_is_an_outside_failure(monkeypatch):
    import huggingface_hub
    from httpx2 import ReadError

    def break_off(*_, **__):
        raise ReadError("connection reset by peer")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", break_off)
    with pytest.raises(StorageError, match=r"could not fetch revision \w+ \(ReadError\)"):
        load_base("Rostlab/prot_bert", REVISION, "attention", LABELS, 0.1)


def test_a_hub_model_is_fetched_at_its_revision_without_code(monkeypatch, tmp_path):
    import huggingface_hub

    folder = write_base(tmp_path / "hub")
    asked = {}

    def snapshot_download(name, *, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    model = load_base("Rostlab/prot_bert", REVISION, "attention", LABELS, 0.1)
    assert (model.base.name, model.base.revision) == ("Rostlab/prot_bert", REVISION)
    assert asked == {
        "name": "Rostlab/prot_bert",
        "revision": REVISION,
        "patterns": list(fetching.HUB_FILES),
    }
    assert not any(pattern.endswith(".py") or pattern == "*" for pattern in fetching.HUB_FILES)


def test_a_base_can_be_named_by_uri(tmp_path, monkeypatch):
    folder = write_base(tmp_path / "base")
    by_file = load_base(folder.as_uri(), "", "attention", LABELS, 0.1)
    assert by_file.base.name == folder.as_uri()
    fetched = []

    def fetch_folder(uri, target):
        fetched.append(uri)
        return Path(shutil.copytree(folder, target))

    monkeypatch.setattr("prottune.storage.fetch_folder", fetch_folder)
    by_s3 = load_base("s3://models/prot_bert", "", "attention", LABELS, 0.1)
    assert fetched == ["s3://models/prot_bert"]
    assert by_s3.base.digest == by_file.base.digest


def test_a_model_that_prottune_trained_can_be_a_base(tmp_path, head):
    trained = small_model(head, max_position_embeddings=9000)
    folder = write_model(tmp_path / "model", trained)
    model = load_base(str(folder), "", head, ("A", "B"), 0.1)
    assert model.labels == ("A", "B")
    for name, tensor in model.bert.state_dict().items():
        assert torch.equal(tensor, trained.bert.state_dict()[name]), name


def test_a_base_that_is_found_once_builds_the_same_model_in_every_process(tmp_path):
    base = find_base(str(write_base(tmp_path / "base")), "", tmp_path / "scratch")
    models = []
    for _ in range(2):
        torch.manual_seed(5)
        models.append(build_model(base, "attention", LABELS, 0.1))
    for name, tensor in models[0].state_dict().items():
        assert torch.equal(tensor, models[1].state_dict()[name]), name


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_start_from_scratch_with_protberts_vocabulary(preset, head):
    torch.manual_seed(0)
    model = load_base(preset, "", head, LABELS, 0.1)
    assert model.config.encoder["vocab_size"] == len(VOCABULARY)
    assert model.max_residues == MAX_POSITIONS - 2
    assert model.config.encoder["attention_probs_dropout_prob"] == 0.0
    assert model.bert.embeddings.position_embeddings.weight.requires_grad
    assert (model.base.name, model.base.revision, len(model.base.digest)) == (preset, "", 64)
    spread = model.bert.embeddings.word_embeddings.weight.detach().std()
    assert spread.item() == pytest.approx(model.config.hidden_size**-0.5, rel=0.1)
    assert not model.bert.embeddings.position_embeddings.weight.any()


def test_presets_have_digests_of_their_own():
    digests = {load_base(preset, "", "mean", LABELS, 0.1).base.digest for preset in PRESETS}
    assert len(digests) == len(PRESETS)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_starts_from_guessing_not_from_wrong_certainty(name):
    torch.manual_seed(43)
    model = load_base(name, "", "attention", LABELS, 0.0).eval()
    ids, offsets = encode([random_sequence(length) for length in (40, 200, 400)])
    batch = PackedBatch.from_ids(np.split(ids, offsets[1:-1]))
    with torch.no_grad():
        probabilities = model(batch).softmax(dim=1)
    assert float(probabilities.max()) < 3 / len(LABELS)
