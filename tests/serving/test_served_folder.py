"""From a model folder, here or behind an s3:// address, to an endpoint: what is checked, and how often."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from small_store import Store
from tiny_model import write_tiny_model

from prottune.answering import fetched_model
from prottune.artifacts import manifest_of
from prottune.errors import ArtifactError
from prottune.serving.predictor import LocationPredictor
from prottune.serving.settings import ServeConfig
from prottune.storage import upload_folder

ADDRESS = "s3://models/deeploc/7"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("served") / "model")


def served(folder: Path, **settings: Any) -> LocationPredictor:
    return LocationPredictor.from_folder(folder, ServeConfig(**settings), "")


def test_a_model_at_an_s3_address_answers_with_its_digest_as_version(store: Store, folder: Path) -> None:
    upload_folder(folder, ADDRESS)
    with fetched_model(ADDRESS) as fetched:
        model = served(fetched)
    answer = asyncio.run(model.predict({"instances": ["MKRLLV"]}))
    assert answer["model_version"] == manifest_of(folder).digest[:12]
    assert asyncio.run(model.healthy()) is True
    asyncio.run(model.close())


def test_a_model_of_which_one_bit_changed_at_its_s3_address_is_never_served(
    store: Store, folder: Path
) -> None:
    upload_folder(folder, ADDRESS)
    key = "models/deeploc/7/model.safetensors"
    store.objects[key] = store.objects[key][:-1] + bytes([store.objects[key][-1] ^ 1])
    with (
        pytest.raises(ArtifactError, match=r"model\.safetensors"),
        fetched_model(ADDRESS) as fetched,
    ):
        served(fetched)


def test_every_file_is_hashed_once_when_a_server_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        hashed.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    served(folder, precision="fp32")
    assert sorted(hashed) == sorted(Path(name).name for name in manifest_of(folder).files)


def test_weights_are_cast_when_loaded_and_never_again(folder: Path) -> None:
    model = served(folder, precision="bf16")
    encoder = model._predictor.model.base_model
    places = [parameter.data_ptr() for parameter in encoder.parameters()]
    seen: list[tuple[bool, bool]] = []
    for layer in model._predictor.model.layers():
        layer.register_forward_hook(
            lambda _, inputs, __: seen.append(
                (torch.is_autocast_enabled("cpu"), inputs[0].dtype == torch.bfloat16)
            )
        )
    asyncio.run(model.predict({"instances": ["MKRLLV", "KKK"]}))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.bfloat16}
    assert [parameter.data_ptr() for parameter in encoder.parameters()] == places
    assert set(seen) == {(False, True)}
    asyncio.run(model.close())
