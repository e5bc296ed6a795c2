from __future__ import annotations

from pathlib import Path

import pytest

from prottune.serving.__main__ import main


def test_an_unknown_flag_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "folder", "--prot", "80"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("prottune.serving: unknown flag --prot (did you mean --port?)")
    assert error.count("\n") == 1


def test_a_setting_that_cannot_work_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "folder", "--port", "70000"]) == 2
    assert capsys.readouterr().err == "prottune.serving: port=70000: expected 0 to 65535\n"


def test_a_folder_that_is_no_model_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(tmp_path), "--port", "0"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"prottune.serving: {tmp_path}: no manifest.json; this is not a finished prottune folder"
    )
