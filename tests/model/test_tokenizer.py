import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from prottune.alphabet import VOCABULARY, clean, encode
from prottune.model.tokenizer import save_tokenizer
from tests.model.small_models import random_sequence, small_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder, 512)
    small_config().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[AutoTokenizer, PreTrainedTokenizerFast])
def tokenizer(request, folder):
    return request.param.from_pretrained(folder)


@pytest.mark.parametrize(
    "written",
    [
        "MKTA",
        "mkta",
        "M K T A",
        " MK\r\nTA\t\n",
        "MUZOBJX",
        "muzobjx",
        "ACDEFGHIKLMNPQRSTVWY",
        "acdefghiklmnpqrstvwy",
        random_sequence(2000),
        " ".join(random_sequence(300)),
    ],
)
def test_raw_sequences_get_prottunes_ids(tokenizer, written):
    assert tokenizer(written)["input_ids"] == encode([clean(written)])[0].tolist()


def test_a_batch_is_padded_and_masked_for_stock_models(tokenizer):
    batch = tokenizer(["MKTA", "X"], padding=True)
    assert batch["input_ids"] == [[2, 21, 12, 15, 6, 3], [2, 25, 3, 0, 0, 0]]
    assert batch["attention_mask"] == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]
    assert tokenizer.model_max_length == 512


def test_what_is_no_residue_is_unknown_letter_by_letter(tokenizer):
    assert tokenizer("M*-A")["input_ids"] == [2, 21, 1, 1, 6, 3]


def test_the_vocabulary_is_protberts(tokenizer, folder):
    assert tokenizer.convert_ids_to_tokens(list(range(30))) == list(VOCABULARY)
    assert len(tokenizer) == 30
    assert (folder / "vocab.txt").read_text().split("\n") == [*VOCABULARY, ""]
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id) == (2, 3, 0)
