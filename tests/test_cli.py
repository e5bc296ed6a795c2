"""What a person at a terminal meets: help, refusals of one line, exit codes, and what success says."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import pytest

from prottune import __version__
from prottune.cli import VERBS, guarded
from prottune.commands import COMMANDS
from prottune.errors import DataError, DivergedError, StorageError


def prottune(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "prottune", *words], capture_output=True, text=True, check=False
    )


def run_raising(error: BaseException) -> int:
    def run(_: Sequence[str]) -> int:
        raise error

    return guarded(run, ["train"], "prottune", VERBS)


def test_every_verb_of_the_overview_has_flags() -> None:
    assert list(VERBS) == list(COMMANDS)


def test_help_lists_the_verbs_at_once() -> None:
    begun = monotonic()
    ended = prottune("--help")
    assert monotonic() - begun < 3, "0.1 s on an idle machine: nothing heavy may be imported"
    assert ended.returncode == 0
    assert [line.split()[0] for line in ended.stdout.splitlines() if line.startswith("  ")] == list(VERBS)


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'numpy', 'pyarrow', 'mlflow', 'tyro', 'kfp'}"
    program = f"import sys, prottune.cli; sys.exit(str(sorted({heavy} & set(sys.modules))))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stderr.strip() == "[]"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_its_flags(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from prottune.flags import parse_flags

    with pytest.raises(SystemExit) as ended:
        parse_flags(COMMANDS[verb], ["--help"], f"prottune {verb}", VERBS[verb])
    assert ended.value.code == 0
    assert f"usage: prottune {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["evalute"], "error: unknown verb 'evalute' (did you mean evaluate?); `prottune --help` lists them"),
        (["--verbose"], "error: unknown verb '--verbose'; `prottune --help` lists them"),
        (
            ["train", "--token", "x"],
            "error: unknown flag --token (did you mean --tokens?); `prottune train --help` lists all",
        ),
        (
            ["sample", "--output", "x.fasta", "--num-proteins", "many"],
            "error: --num-proteins: got 'many', expected a whole number",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_one_line_on_stderr_and_exit_code_2(words: list[str], line: str) -> None:
    ended = prottune(*words)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line + "\n")


def test_no_word_at_all_lists_the_verbs_and_is_refused() -> None:
    ended = prottune()
    assert ended.returncode == 2
    assert "usage: prottune <verb>" in ended.stdout


def test_help_of_a_verb_may_be_asked_for_in_two_ways() -> None:
    assert prottune("help", "tokenize").stdout == prottune("tokenize", "--help").stdout != ""


def test_version_is_the_package_version() -> None:
    assert prottune("--version").stdout == f"prottune {__version__}\n"


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (DataError("x.fasta:3: no location"), 2, "error: x.fasta:3: no location\n"),
        (StorageError("s3://a/b: refused"), 3, "error: s3://a/b: refused\n"),
        (DivergedError("loss is not finite\nat step 3"), 4, "error: loss is not finite at step 3\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (
            KeyboardInterrupt("interrupted; the same command goes on"),
            130,
            "error: interrupted; the same command goes on\n",
        ),
    ],
)
def test_a_refusal_is_one_line_and_its_own_exit_code(
    error: BaseException, exit_code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_raising(error) == exit_code
    assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback_and_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_raising(ZeroDivisionError("here")) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith("ZeroDivisionError: here\n")


def test_a_package_that_is_not_installed_is_one_line_and_a_module_of_ours_a_bug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_raising(ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")) == 2
    assert capsys.readouterr().err == (
        "error: package 'torch' is not installed here; train, evaluate, predict, explain and serve need "
        "those of requirements/torch.in, which the image prottune-torch has\n"
    )
    assert run_raising(ModuleNotFoundError("No module named 'prottune.x'", name="prottune.x")) == 1
    assert capsys.readouterr().err.startswith("Traceback")


def test_a_reader_that_leaves_early_does_not_stop_the_work(tmp_path: Path) -> None:
    records, tokens = tmp_path / "records", tmp_path / "tokens"
    assert prottune("sample", "--output", str(tmp_path / "a.fasta"), "--num-proteins", "200").returncode == 0
    words = f"ingest --source {tmp_path / 'a.fasta'} --records {records}"
    for line, made in ((words, records), (f"tokenize --records {records} --tokens {tokens}", tokens)):
        command = f"{sys.executable} -um prottune {line} | true; echo ${{PIPESTATUS[0]}}"
        ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (ended.stdout, (made / "manifest.json").is_file()) == ("0\n", True), ended.stderr
    command = f"{sys.executable} -um prottune tokenize --records {tmp_path} --tokens {tokens}2 | true"
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, "bad input stays bad input"


def test_a_screen_that_cannot_be_written_is_told_in_one_line() -> None:
    command = f"{sys.executable} -m prottune --version >/dev/full"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    line = "error: standard output: cannot be written (No space left on device)\n"
    assert (ended.returncode, ended.stderr) == (3, line)
    closed = subprocess.run(["bash", "-c", f"{sys.executable} -m prottune --version >&-"], check=False)
    assert closed.returncode == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["tokenize", "--records", "{folder}", "--tokens", "s3://bucket/tokens"],
            "error: --tokens: got the address 's3:/bucket/tokens', expected a path of this machine",
        ),
        (
            ["train", "--tokens", "{folder}", "--model", "{folder}/file/model"],
            "error: {folder}: no manifest.json; this is not a finished prottune folder",
        ),
        (
            ["tokenize", "--records", "{folder}/file", "--tokens", "{folder}/tokens"],
            "error: {folder}/file: no manifest.json; this is not a finished prottune folder",
        ),
        (
            ["ingest", "--source", "", "--records", "{folder}/records"],
            "error: got an empty path or address; is a variable of the shell unset?",
        ),
        (
            ["ingest", "--source", "/dev/null", "--records", "{folder}/records"],
            "error: /dev/null: not a regular file; pipes cannot be read twice, so write it to a file first",
        ),
        (
            ["sample", "--output", "{folder}/file/a.fasta"],
            "error: {folder}/file: File exists; name another place",
        ),
        (
            ["sample", "--output", "{folder}/file"],
            "error: {folder}/file exists already; name a file in another folder, or remove it",
        ),
        (
            ["tokenize", "--tokens", "tok\udcff"],
            r"error: 'tok\udcff': not UTF-8; expected names that can be written",
        ),
    ],
)
def test_a_wrong_place_is_one_line_and_exit_code_2(words: list[str], line: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    ended = prottune(*(word.format(folder=tmp_path) for word in words))
    assert (ended.returncode, ended.stderr.splitlines()[-1:]) == (2, [line.format(folder=tmp_path)])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_help_fits_any_terminal() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "prottune", "tokenize", "--help"],
        env={**os.environ, "COLUMNS": "3"}, capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    assert "--max-residues" in shown.stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m prottune train --help | head -1; echo ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert ended.stdout == "usage: prottune train [-h] [OPTIONS]\n0\n"
    assert ended.stderr == ""


def test_the_sample_says_that_it_is_synthetic_and_where_it_lies(tmp_path: Path) -> None:
    fasta = tmp_path / "sample.fasta"
    ended = prottune("sample", "--output", str(fasta), "--num-proteins", "200")
    assert (ended.returncode, ended.stderr) == (0, "")
    first, second, third = ended.stdout.splitlines()
    assert first.startswith("ALL SYNTHETIC: ")
    assert second.startswith(f"{fasta}: 200 proteins")
    assert third.startswith(str(tmp_path / "signals.tsv"))
    assert fasta.read_text(encoding="utf-8").count(">") == 200


def test_ingest_and_tokenize_say_what_they_made(tmp_path: Path) -> None:
    fasta, records, tokens = tmp_path / "sample.fasta", tmp_path / "records", tmp_path / "tokens"
    assert prottune("sample", "--output", str(fasta), "--num-proteins", "200").returncode == 0
    ingested = prottune("ingest", "--source", str(fasta), "--records", str(records))
    assert ingested.returncode == 0, ingested.stderr
    assert ingested.stdout.startswith(f"{records}: ")
    assert ingested.stdout.endswith(f"report: {records / 'report.html'}\n")
    tokenized = prottune(
        "tokenize", "--records", str(records), "--tokens", str(tokens), "--max-residues", "50"
    )
    assert tokenized.returncode == 0, tokenized.stderr
    assert tokenized.stdout.startswith(f"{tokens}: num proteins ")
    again = prottune("tokenize", "--records", str(records), "--tokens", str(tokens))
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith(f"error: {tokens} exists already")


@pytest.mark.parametrize("words", [["--expected-sha256", "0" * 64], [f"--expected-sha256={'0' * 64}"]])
def test_a_source_with_another_hash_than_expected_is_refused(words: list[str], tmp_path: Path) -> None:
    fasta, records = tmp_path / "good.fasta", tmp_path / "records"
    fasta.write_text(">P1 Nucleus-U\nMKT\n", encoding="utf-8")
    ended = prottune("ingest", "--source", str(fasta), "--records", str(records), *words)
    assert ended.returncode == 2
    assert "0" * 64 in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not records.exists()


def test_a_bad_fasta_is_refused_by_file_and_line_and_leaves_nothing(tmp_path: Path) -> None:
    fasta, records = tmp_path / "bad.fasta", tmp_path / "records"
    fasta.write_text(">P1 Nucleus-U\nMKT\n>P2 Nowhere-U\nMK1\n", encoding="utf-8")
    ended = prottune("ingest", "--source", str(fasta), "--records", str(records))
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("error: bad.fasta:3: P2 has '1' at residue 3")
    assert not list(tmp_path.glob("records*"))
