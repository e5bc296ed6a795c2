"""From a model folder to the champion and back, by the verbs of the command line."""

import json
from pathlib import Path

import pytest
from judged_models import report_on
from mlflow_template import new_store

from prottune.artifacts import new_folder
from prottune.errors import ConfigError
from prottune.registration.provenance import settings_digest
from prottune.registry_commands import Promote, Register, Rollback
from prottune.tokenization import TokenizeConfig
from prottune.tracking.mlflow_store import mlflow_client
from prottune.training.settings import TrainConfig


def test_the_verbs_say_what_they_did_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := new_store(tmp_path))
    settings = TrainConfig(epochs=3)
    for name, champion in (("a", ""), ("b", "1")):
        with new_folder(tmp_path / name, "train", settings) as draft:
            (draft.path / "prottune.json").write_text(
                json.dumps({"max_residues": 510, "cut": "tail", "n": name})
            )
        report = report_on(tmp_path / name, champion=champion)
        verb = Register(model=tmp_path / name, uri=str(tmp_path / name), report=report)
        said = list(verb.run())
    assert said[0] == f"version 2 is the challenger; it lies at {tmp_path / 'b'}"
    assert said[1].endswith("then prottune promote --version 2 --compared-with 1")
    assert next(iter(verb.run())).startswith("version 2 is the challenger (it was registered already)")
    digest = settings_digest(TokenizeConfig(max_residues=510, cut="tail"), settings)
    assert mlflow_client(uri).get_model_version("prottune", "2").tags["prottune.settings_digest"] == digest

    list(Promote(version="1").run())
    assert list(Promote(version="2", compared_with="1").run()) == [
        "version 2 is the champion: it takes the place of version 1"
    ]
    assert list(Rollback().run()) == [
        "version 1 is the champion again: version 2 was rolled back",
        f"next: prottune deploy --model {tmp_path / 'a'} --model-version 1",
    ]
    with pytest.raises(
        ConfigError, match=r"version 2 was not promoted: version 2 was rolled back; .* --overrule"
    ):
        list(Promote(version="2", compared_with="1").run())
    assert next(iter(Promote(version="2", compared_with="1", overrule=True).run())).startswith("version 2 is")
