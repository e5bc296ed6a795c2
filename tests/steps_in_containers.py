"""Steps of a compiled graph in containers: kfp.local's DockerRunner, with exit codes that are not guessed.

kfp 2.17 lets docker remove a container as soon as it ends, and takes one that is gone for one that ended
well: failing steps came back green. `report_honestly` asks for the exit code while the container is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker
import pytest
import yaml
from docker_daemon import LABEL
from kfp.local import docker_task_handler

_STEP_SECONDS = 900


def report_honestly(patch: pytest.MonkeyPatch) -> None:
    """From now on a step's container is removed after its exit code was read, and no image is pulled."""
    patch.setattr(docker_task_handler, "run_docker_container", _run_and_report)


def _run_and_report(
    client: docker.DockerClient, image: str, command: list[str], volumes: dict[str, Any], **options: Any
) -> int:
    container = client.containers.create(
        image, command=command, volumes=volumes, labels={LABEL: "1"}, **options
    )
    try:
        container.start()
        code = int(container.wait(timeout=_STEP_SECONDS)["StatusCode"])
        print(container.logs().decode(errors="replace"))
        return code
    finally:
        container.remove(force=True, v=True)


def with_images(committed: str, images: Mapping[str, str], named: Mapping[str, str]) -> str:
    """A compiled graph with the names of images written in, which kfp.local does not do.

    `images` has a name for each parameter that names one; `named` has names for single steps.
    """
    documents = list(yaml.safe_load_all(committed))
    for label, executor in documents[0]["deploymentSpec"]["executors"].items():
        container = executor["container"]
        parameter = container["image"].split("pipelinechannel--")[1].split("'")[0]
        container["image"] = named.get(label.removeprefix("exec-"), images[parameter])
    return yaml.safe_dump_all(documents)
