"""What prottune writes, held to the schemas that an API server publishes."""

from __future__ import annotations

import pytest
import yaml
from crd_schemas import FILES, folder_of_schemas

from pipelines import manifests
from pipelines.checks.kubeflow import TRAIN_JOB
from prottune.cluster.schemas import unknown_fields
from prottune.deployment.revision import predictor
from prottune.deployment.settings import DeployConfig

SCHEMA = {
    "properties": {
        "spec": {
            "properties": {
                "image": {"type": "string"},
                "env": {"items": {"properties": {"name": {}}}},
                "limits": {"additionalProperties": {"type": "string"}},
                "labels": {"additionalProperties": {"properties": {"a": {}}}},
                "free": {"x-kubernetes-preserve-unknown-fields": True},
                "metadata": {"$ref": "#/components/schemas/ObjectMeta"},
            }
        }
    }
}


def test_fields_that_a_schema_does_not_know_are_told_by_path_once() -> None:
    spec = {
        "image": "x",
        "imge": "x",
        "env": [{"name": "A", "valu": 1}, {"name": "B", "valu": 2}],
        "limits": {"cpu": "1"},
        "labels": {"any": {"a": 1, "b": 2}},
        "free": {"what": {"ever": 1}},
        "metadata": {"name": "x"},
    }
    assert unknown_fields(SCHEMA, {"spec": spec}) == ["spec.env.valu", "spec.imge", "spec.labels.any.b"]


def test_a_part_that_a_schema_does_not_have_is_unknown_as_a_whole() -> None:
    assert unknown_fields({}, {"spec": {"a": {"b": 1}}}) == ["spec.a"]


@pytest.mark.parametrize("resource", sorted(FILES))
def test_all_that_is_written_is_in_the_schemas_of_kserve_and_trainer(resource: str) -> None:
    config = DeployConfig(to="kserve", serving_gpus=1, cpu="1", memory="1Gi")
    runtimes = [each for kind in ("ServingRuntime", "TrainingRuntime") for each in manifests.objects(kind)]
    serving, training = (each["spec"] for each in runtimes)
    specs = {
        "inferenceservices.serving.kserve.io": {"predictor": predictor("s3://bucket/model", config, "1")},
        "servingruntimes.serving.kserve.io": serving,
        "trainjobs.trainer.kubeflow.org": TRAIN_JOB,
        "trainingruntimes.trainer.kubeflow.org": training,
    }
    text = (folder_of_schemas() / FILES[resource]).read_text(encoding="utf-8")
    (version,) = yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    spec = specs[resource]
    assert unknown_fields(schema, {"spec": spec}) == []
    assert unknown_fields(schema, {"spec": spec | {"speck": 1}}) == ["spec.speck"]
