"""`prottune predict` killed at random moments with a real model makes the table that no kill would make."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest
from tiny_model import write_tiny_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

NUM_WINDOWS = 60
WINDOW = 20


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    draws = random.Random(43)
    proteins = (
        f">P{number:05d}\n{''.join(draws.choices('ACDEFGHIKLMNPQRSTVWY', k=draws.randrange(50, 400)))}\n"
        for number in range(NUM_WINDOWS * WINDOW)
    )
    source = tmp_path / "proteome.fasta"
    source.write_text("".join(proteins))
    model = write_tiny_model(tmp_path / "model")
    settings = ["--window", str(WINDOW), "--precision", "fp32"]
    program = [sys.executable, "-m", "prottune", "predict"]
    return [*program, "--model", str(model), "--source", str(source), *settings, "--output"]


def sent(number: signal.Signals, command: list[str], output: Path, delay: float) -> tuple[int, str]:
    """Start the program, send it a signal a while after it answered more; its code and last line."""
    parts = output.with_name(f"{output.name}.partial")
    before = len(list(parts.glob("*.parquet")))
    with subprocess.Popen([*command, str(output)], stderr=subprocess.PIPE, text=True) as child:
        until = monotonic() + 300
        while child.poll() is None and monotonic() < until:
            if len(list(parts.glob("*.parquet"))) > before:
                sleep(delay)
                break
            sleep(0.01)
        child.send_signal(number)
        _, said = child.communicate()
    return child.returncode, said.splitlines()[-1]


def test_killed_again_and_again_it_ends_with_the_same_bytes(command: list[str], tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.csv", tmp_path / "table.csv"
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    seed = int(os.environ.get("PREDICT_KILLS_SEED", "43"))
    draws = random.Random(seed)
    codes = [sent(signal.SIGKILL, command, output, draws.random() * 0.3)[0] for _ in range(4)]
    assert codes[0] == -signal.SIGKILL, "it was done before the first kill: too few proteins"
    if not output.exists():
        ended = subprocess.run([*command, str(output)], check=True, capture_output=True, text=True)
        assert f"{NUM_WINDOWS * WINDOW:,} proteins in " in ended.stdout
    assert output.read_bytes() == whole.read_bytes()
    assert output.read_text().count("\n") == NUM_WINDOWS * WINDOW + 1


def test_interrupted_it_says_how_to_go_on(command: list[str], tmp_path: Path) -> None:
    code, line = sent(signal.SIGINT, command, tmp_path / "table.csv", delay=0.0)
    assert code == 130
    assert line.startswith("error: interrupted; the same command goes on from the ")
    assert line.endswith(f"proteins in {tmp_path / 'table.csv.partial'}")
