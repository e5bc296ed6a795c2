"""What the demo says when nothing was trained: a broken pipeline must not look healthy the second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow_template import new_store

from pipelines import demo
from prottune.artifacts import manifest_of, new_folder
from prottune.tracking.mlflow_store import mlflow_client


@pytest.fixture
def summary(tmp_path: Path) -> dict[str, Any]:
    with new_folder(tmp_path / "records", "ingest", None) as draft:
        (draft.path / "proteins").write_text("MKT")
    uri = new_store(tmp_path)
    return {"decision": "same", "tracking_uri": uri, "folders": {"records": str(tmp_path / "records")}}


def champion_of(summary: dict[str, Any], dataset: str) -> None:
    client = mlflow_client(summary["tracking_uri"])
    client.create_registered_model("prottune")
    client.create_model_version("prottune", "s3://b/m", tags={"prottune.dataset_digest": dataset})
    client.set_registered_model_alias("prottune", "champion", "1")


def test_nothing_new_is_fine_where_the_sample_made_the_champion(summary: dict[str, Any]) -> None:
    champion_of(summary, manifest_of(Path(summary["folders"]["records"])).digest)
    assert demo._check(summary) == 0


@pytest.mark.parametrize("dataset", ["", "other data"])
def test_a_model_that_was_held_before_fails_the_demo_again(
    dataset: str, summary: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    if dataset:
        champion_of(summary, dataset)
    assert demo._check(summary) == 1
    assert "what this sample makes was held or rolled back before" in capsys.readouterr().err
