from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import pytest

from prottune.serving.questions import Question, questions_of_v1, questions_of_v2
from prottune.serving.sdk import InferInput, InferRequest, InvalidInput
from prottune.serving.settings import ServeConfig
from prottune.serving.strict_json import MAX_PARTS, read_json

CONFIG = ServeConfig(max_sequences=3, max_residues=10)


def v2(
    data: Any, shape: list[int], datatype: str = "BYTES", names: tuple[str, ...] = ("sequence",)
) -> InferRequest:
    return InferRequest("prottune", [InferInput(name, shape, datatype, data) for name in names])


def test_v1_takes_sequences_and_objects_and_keeps_the_order() -> None:
    body = {"instances": ["MKT", {"accession": "P1", "sequence": "ACD"}, {"sequence": "EFG"}]}
    assert questions_of_v1(body, CONFIG) == [Question("MKT"), Question("ACD", "P1"), Question("EFG")]


def test_v1_reads_a_body_that_came_without_a_content_type() -> None:
    assert questions_of_v1(b'{"instances": ["MKT"]}', CONFIG) == [Question("MKT")]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (">P1 some protein\nMKT\nACD\n", Question("MKTACD", "P1")),
        (">sp|P12345|NAME_HUMAN Name OS=Homo sapiens\r\nmkt\r\n", Question("MKT", "P12345")),
        ("\n >tr|A0A1|X_Y\n\nM K T *\n", Question("MKT", "A0A1")),
        ("\ufeff>P1 \u03bc-receptor\nMKT", Question("MKT", "P1")),
    ],
    ids=["id", "UniProt", "blank lines and a stop", "byte order mark and other alphabets"],
)
def test_a_fasta_record_is_read_and_its_header_names_the_protein(text: str, question: Question) -> None:
    assert questions_of_v1({"instances": [text]}, CONFIG) == [question]
    assert questions_of_v2(v2([text.encode()], [1]), CONFIG) == [question]


def test_an_accession_that_is_given_wins_over_the_header() -> None:
    instance = {"accession": "mine", "sequence": ">P1\nMKT", "location": "Nucleus"}
    assert questions_of_v1({"instances": [instance]}, CONFIG) == [Question("MKT", "mine", "Nucleus")]


@pytest.mark.parametrize("text", ["MKT*", "MKT* \n", "mkt\n*"])
def test_a_stop_at_the_end_is_left_out_as_in_batch_prediction(text: str) -> None:
    assert questions_of_v1({"instances": [text]}, CONFIG) == [Question("MKT")]


def test_spaces_line_breaks_lower_case_and_rare_residues_are_read_as_training_reads_them() -> None:
    assert questions_of_v1({"instances": ["m k t\nuzobj"]}, CONFIG) == [Question("MKTXXXXX")]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "body: not JSON"),
        (b"\xff\xfe", "body: byte 0xff at position 1 is not UTF-8"),
        (b"[" * 100_000, "body: not JSON that can be read; .* nested too deep"),
        (
            b'{"instances": ["MKT"], "instances": ["ACD"]}',
            "body: the key 'instances' is given more than once",
        ),
        (b'{"instances": [{"sequence": "M", "sequence": "K"}]}', r"instances\[0\]: the key 'sequence' is"),
        (b'{"instances": ["MKT", NaN]}', r"instances\[1\]: NaN is no JSON"),
        (b'{"instances": ["MKT"], "x": {"y": -Infinity}}', r"x\.y: -Infinity is no JSON"),
        (b'{"instances": [1e999]}', r"instances\[0\]: '1e999' is too large a number"),
        (b'{"instances": [' + b"7" * 5000 + b"]}", r"instances\[0\]: an integer of 5000 digits"),
        ('{"instances": ["MKT"]}'.encode("utf-16"), "body: byte 0xff at position 1 is not UTF-8"),
        (None, "body: expected an object"),
        ([], "body: expected an object"),
        ("MKT", "body: not JSON"),
        ({}, "body: expected an object"),
        ({"instances": None}, "instances: expected a list, got null"),
        ({"instances": "MKT"}, "instances: expected a list, got text"),
        ({"instances": {"sequence": "MKT"}}, "instances: expected a list, got an object"),
        ({"instances": []}, "instances: expected 1 to 3 sequences, got 0"),
        ({"instances": ["M"] * 4}, "instances: expected 1 to 3 sequences, got 4"),
        ({"instances": ["M", 5]}, r"instances\[1\]: expected a sequence, or .* got a number"),
        ({"instances": [None]}, r"instances\[0\]: expected a sequence, or .* got null"),
        ({"instances": [True]}, r"instances\[0\]: .* got true or false"),
        ({"instances": [["MKT"]]}, r"instances\[0\]: .* got a list"),
        ({"instances": [{"seq": "MKT"}]}, r"instances\[0\]: .* got an object"),
        ({"instances": [{"sequence": None}]}, r"instances\[0\]\.sequence: expected text, got null"),
        ({"instances": [{"sequence": ["M"]}]}, r"instances\[0\]\.sequence: expected text, got a list"),
        ({"instances": [{"sequence": "M", "accession": 7}]}, r"instances\[0\]\.accession: .* got a number"),
        ({"instances": [{"sequence": "M", "accession": "P" * 201}]}, r"accession: .* at most 200 characters"),
        ({"instances": ["M", ""]}, r"instances\[1\]: the sequence is empty"),
        ({"instances": [" \n"]}, r"instances\[0\]: the sequence is empty"),
        ({"instances": ["M", "MK1"]}, r"instances\[1\]: '1' at residue 3 is no amino acid"),
        ({"instances": ["M*K"]}, r"instances\[0\]: '\*' at residue 2"),
        ({"instances": ["MK**"]}, r"instances\[0\]: '\*' at residue 3"),
        ({"instances": ["*"]}, r"instances\[0\]: the sequence is empty"),
        ({"instances": ["M\x00K"]}, r"instances\[0\]: '\\x00' at character 2"),
        ({"instances": ["M\x1cK"]}, r"instances\[0\]: '\\x1c' at character 2"),
        ({"instances": [">P1\nMK\n>P2\nMT"]}, r"instances\[0\]: 2 FASTA records, expected one; send each as"),
        ({"instances": [">P1 no line break MKT"]}, r"instances\[0\] line:1: P1 has no sequence"),
        ({"instances": ["> P1\nMKT"]}, r"instances\[0\] line:1: header without an id"),
        ({"instances": [">P1\nMK1"]}, r"instances\[0\]: '1' at residue 3"),
        ({"instances": [">P1\nM\ud800"]}, r"instances\[0\] line:2: byte 0xed is not UTF-8"),
        (
            {"instances": [">" + "P" * 201 + "\nMK"]},
            r"instances\[0\], accession of the header: .* 201 characters",
        ),
        (
            {"instances": [{"sequence": "M", "accession": "P\ud800"}]},
            r"accession: .* '\\ud800' at character 2",
        ),
        ({"instances": [{"sequence": "M", "accession": "a\nb"}]}, r"accession: .* '\\n' at character 2"),
        ({"instances": [{"sequence": "M", "location": 5}]}, r"instances\[0\]\.location: .* got a number"),
        ({"instances": ["M\u00df"]}, r"instances\[0\]: '\\xdf' at character 2 is no amino acid"),
        ({"instances": ["M\u0131"]}, r"instances\[0\]: '\\u0131' at character 2"),
        ({"instances": ["M\ud800"]}, r"instances\[0\]: '\\ud800' at character 2"),
        ({"instances": ["M" * 11]}, r"instances\[0\]: 11 residues, expected at most 10"),
    ],
)
def test_v1_refuses_by_field_and_position(body: Any, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        questions_of_v1(body, CONFIG)
    assert re.search(words, str(caught.value)), str(caught.value)


UNITS = [b"NaN,", b"1e999,", b"[],", b'{"a":1,"a":1},', b'"",', b'""', b"{", b'"[",', rb'"\\",']


@pytest.mark.parametrize("unit", UNITS, ids=bytes.decode)
def test_a_body_of_millions_of_parts_is_refused_in_no_time_and_little_memory(unit: bytes) -> None:
    body = b'{"instances":[' + unit * (8_000_000 // len(unit)) + b"1]}"
    began = time.thread_time()
    with pytest.raises(InvalidInput):
        read_json(body)
    assert time.thread_time() - began < 4  # seconds of a shared processor; NaN took ten and more
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as caught:
            read_json(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40_000_000  # the text itself is 8 MB
    assert unit == b'""' or str(caught.value).startswith(f"body: expected at most {MAX_PARTS} texts, commas")


@pytest.mark.parametrize("unit", [b"NaN,", b"1e999,", b'{"a":1,"a":1},'], ids=bytes.decode)
def test_of_as_many_faults_as_may_be_the_first_is_told_and_soon(unit: bytes) -> None:
    parts = unit.count(b",") + unit.count(b"{")
    body = b'{"instances":[1,' + unit * ((MAX_PARTS - 10) // parts) + b"1]}"
    began = time.thread_time()
    with pytest.raises(InvalidInput, match=r"^instances\[1\]: "):
        read_json(body)
    assert time.thread_time() - began < 4


def test_deep_lists_of_many_faults_take_little_memory() -> None:
    body = b"[" * 500 + b"1," * 50_000 + b"NaN" + b"]" * 500
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=r"^(\[0\]){499}\[50000\]: NaN is no JSON"):
            read_json(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def test_commas_and_brackets_inside_texts_are_not_counted() -> None:
    text = '>P1 one, [two], {three}, \\ "four"\nMKT\n'
    texts = [text + ",[{\\" * 1000] * 256
    assert sum(map(json.dumps(texts).count, ",[{")) > MAX_PARTS
    assert read_json(json.dumps({"instances": texts})) == {"instances": texts}


@pytest.mark.parametrize(
    "request_",
    [v2(["MKT", "acd"], [2]), v2([b"MKT", b"acd"], [2]), v2([["MKT"], ["acd"]], [2, 1])],
    ids=["text", "bytes", "a column"],
)
def test_v2_takes_one_bytes_input(request_: InferRequest) -> None:
    assert questions_of_v2(request_, CONFIG) == [Question("MKT"), Question("ACD")]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (v2(["M"], [1], names=()), "inputs: expected one called 'sequence', got []"),
        (v2(["M"], [1], names=("sequences",)), "inputs: expected one called 'sequence', got ['sequences']"),
        (v2(["M"], [1], names=("sequence", "sequence")), "inputs: expected one called 'sequence'"),
        (v2([5], [1], datatype="INT64"), "inputs[0].datatype: expected 'BYTES', got 'INT64'"),
        (v2(None, [1]), "inputs[0].data: expected a list of sequences"),
        (v2(["M"], [2]), "inputs[0].shape: expected [1], as many as in data, got [2]"),
        (v2(["M"], []), "inputs[0].shape: expected [1]"),
        (v2(["M"], [1, 1, 1]), "inputs[0].shape: expected [1]"),
        (v2([], [0]), "inputs[0].data: expected 1 to 3 sequences, got 0"),
        (v2(["M"] * 4, [4]), "inputs[0].data: expected 1 to 3 sequences, got 4"),
        (v2(["M", 5], [2]), "inputs[0].data[1]: expected text, got a number"),
        (v2(["M", ["M", "K"]], [2]), "inputs[0].data[1]: expected text, got a list"),
        (v2([b"M\xff"], [1]), "inputs[0].data[0]: byte 255 at character 2 is no amino acid"),
        (v2(["M", ">P1\nM\n>P2\nM"], [2]), "inputs[0].data[1]: 2 FASTA records, expected one"),
        (v2(["M", ""], [2]), "inputs[0].data[1]: the sequence is empty"),
        (v2(["M-"], [1]), "inputs[0].data[0]: '-' at residue 2"),
        (v2(["M" * 11], [1]), "inputs[0].data[0]: 11 residues, expected at most 10"),
    ],
)
def test_v2_refuses_by_field_and_position(request_: InferRequest, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        questions_of_v2(request_, CONFIG)
    assert words in str(caught.value)


def test_importing_kserve_does_not_read_our_command_line() -> None:
    code = "import sys; import prottune.serving.sdk; sys.exit(len(sys.argv) != 4)"
    # kserve alone ends with exit code 2 here: it takes --max for one of its own flags
    assert (
        subprocess.run([sys.executable, "-c", code, "--max", "5", "--http_port=x"], check=False).returncode
        == 0
    )
