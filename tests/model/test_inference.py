import numpy as np
import pytest
import torch

from prottune.errors import ArtifactError, DataError
from prottune.model import inference
from prottune.model.calibration import NOBODY
from prottune.model.golden import GOLDEN_FILE, read_golden, write_golden
from prottune.model.inference import Predictor
from prottune.model.precision import choose_precision
from tests.model.small_models import LABELS, description, random_sequence, small_model, write_model

SEQUENCES = [random_sequence(length) for length in (40, 1, 254, 9, 100, 12)]


def predictor(head="attention", **changes):
    return Predictor(small_model(head), description(head, **changes))


def test_an_answer_names_the_most_probable_location():
    for answer in predictor().predict(SEQUENCES):
        assert answer.probabilities.shape == (len(LABELS),)
        assert answer.probabilities.dtype == np.float32
        assert answer.probabilities.sum() == pytest.approx(1, abs=1e-6)
        assert answer.location == LABELS[answer.probabilities.argmax()]
        assert answer.probability == answer.probabilities.max()


def test_a_protein_gets_the_same_answer_alone_and_in_any_company(head, monkeypatch):
    ours = predictor(head)
    together = ours.predict(SEQUENCES)
    alone = [ours.predict([sequence])[0] for sequence in SEQUENCES]
    backwards = ours.predict(SEQUENCES[::-1])[::-1]
    monkeypatch.setattr(inference, "TOKENS_PER_BATCH", {"cpu": 100})
    in_small_batches = ours.predict(SEQUENCES)
    for answers in (alone, backwards, in_small_batches):
        for one, other in zip(together, answers, strict=True):
            np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-5)
            assert one.num_residues == other.num_residues


def test_no_batch_exceeds_its_tokens_except_for_a_single_long_protein():
    batches = list(inference._batches([10, 300, 20, 58, 38], 100))
    assert batches == [[1], [3, 4], [2, 0]]


def test_answers_come_in_the_order_of_the_questions():
    assert [answer.num_residues for answer in predictor().predict(SEQUENCES)] == [40, 1, 254, 9, 100, 12]
    assert predictor().predict([]) == []


@pytest.mark.parametrize("written", ["mktauy", " M K T A U Y", "MKT\nAUY\n", "MKTAJY", "MKTAXY"])
def test_a_sequence_means_the_same_however_it_is_written(written):
    expected, found = predictor().predict(["MKTAXY", written])
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=1e-6)


def test_a_sequence_that_is_none_is_refused_by_its_number():
    with pytest.raises(DataError, match="sequence 2: '1' at residue 2 is no amino acid"):
        predictor().predict(["MKTA", "M1K"])
    with pytest.raises(DataError, match="sequence 3: the sequence is empty"):
        predictor().predict(["MKTA", "MK", "  "])


def test_a_long_protein_is_cut_as_in_training_and_the_answer_says_so():
    ours = predictor(max_residues=20, cut="head_tail")
    long = random_sequence(100)
    cut, by_hand, short = ours.predict([long, long[:10] + long[-10:], long[:20]])
    np.testing.assert_allclose(cut.probabilities, by_hand.probabilities, rtol=0, atol=1e-6)
    assert (cut.truncated, by_hand.truncated, short.truncated) == (True, False, False)
    assert (cut.num_residues, by_hand.num_residues) == (100, 20)


def test_a_protein_beyond_the_position_table_is_cut_to_it():
    ours = predictor(max_residues=0, cut="tail")
    assert ours.max_residues == 254
    long = random_sequence(300)
    cut, by_hand = ours.predict([long, long[-254:]])
    np.testing.assert_allclose(cut.probabilities, by_hand.probabilities, rtol=0, atol=1e-6)
    assert cut.truncated


def test_confidence_and_likeness_follow_the_models_thresholds():
    plain = predictor().predict(SEQUENCES)
    highest = max(plain, key=lambda answer: answer.probability)
    answers = predictor(confident_above=highest.probability).predict(SEQUENCES)
    assert [answer.confident for answer in answers] == [answer is highest for answer in plain]
    assert not any(answer.confident for answer in predictor(confident_above=NOBODY).predict(SEQUENCES))
    assert all(answer.confident for answer in predictor(confident_above=0.0).predict(SEQUENCES))
    assert all(answer.unlike_training for answer in predictor(energy_below=-1e9).predict(SEQUENCES))
    assert not any(answer.unlike_training for answer in predictor(energy_below=1e9).predict(SEQUENCES))


def test_what_is_unlike_training_has_more_energy_than_the_limit(head):
    limit = sorted(answer.unlikeness for answer in predictor(head).predict(SEQUENCES))[3]
    answers = predictor(head, energy_below=limit + 1e-4).predict(SEQUENCES)
    assert [answer.unlike_training for answer in answers] == [
        answer.unlikeness > limit + 1e-4 for answer in answers
    ]
    assert sum(answer.unlike_training for answer in answers) == 2


def test_a_folder_answers_as_the_model_that_was_saved(tmp_path, head):
    model = small_model(head)
    expected = Predictor(model, description(head)).predict(SEQUENCES)
    folder = write_model(tmp_path / "model", model)
    loaded = Predictor.load(folder, "fp32")
    assert loaded.labels == LABELS
    for one, other in zip(expected, loaded.predict(SEQUENCES), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-6)
    for one, other in zip(expected, Predictor.load(folder, "bf16").predict(SEQUENCES), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=0.1)


def test_in_bf16_on_a_cpu_few_row_lengths_are_met_and_the_answers_stay_the_same(tmp_path, head):
    loaded = Predictor.load(write_model(tmp_path / "model", small_model(head)), "bf16")
    rows = []
    loaded.model.embeddings().register_forward_hook(lambda _, __, output: rows.append(output.shape[1]))
    alone = [loaded.predict([sequence])[0] for sequence in SEQUENCES]
    assert rows == [64, 32, 256, 32, 128, 32]
    for one, other in zip(alone, loaded.predict(SEQUENCES), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=0.02)


def test_precision_follows_the_hardware(monkeypatch):
    for amx, avx, expected in (
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
        (False, False, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        assert choose_precision("auto", "cpu") == expected
    assert choose_precision("fp32", "cpu") == torch.float32
    assert choose_precision("bf16", "cpu") == torch.bfloat16


def test_golden_answers_are_the_models_own(tmp_path):
    ours = predictor()
    write_golden(tmp_path, ours)
    golden = read_golden(tmp_path)
    assert len(golden) == 8
    assert len({entry["accession"] for entry in golden}) == 8
    assert min(len(entry["sequence"]) for entry in golden) == 1
    answers = ours.predict([entry["sequence"] for entry in golden])
    for entry, answer in zip(golden, answers, strict=True):
        assert entry["location"] == answer.location
        assert list(entry["probabilities"]) == list(LABELS)
        assert list(entry["probabilities"].values()) == pytest.approx(answer.probabilities.tolist(), abs=1e-6)


def test_golden_files_are_equal_for_equal_models(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_golden(tmp_path / name, predictor())
    assert (tmp_path / "one" / GOLDEN_FILE).read_bytes() == (tmp_path / "two" / GOLDEN_FILE).read_bytes()


@pytest.mark.parametrize(
    ("content", "words"), [(None, "missing"), ("{", "not a file of golden"), ("[]", "not a file")]
)
def test_a_folder_without_golden_answers_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / GOLDEN_FILE).write_text(content)
    with pytest.raises(ArtifactError, match=words):
        read_golden(tmp_path)
