"""The images of the steps, by the names that the operator's cluster knows them."""

import os

from components import LIGHT_IMAGE, TORCH_IMAGE

REGISTRY_VARIABLE = "PROTTUNE_REGISTRY"
"""Environment variable with the registry that the images were pushed to, as registry.example/lab."""


def images() -> dict[str, str]:
    """Parameter of a graph -> its image if none is named, in the registry of the environment."""
    registry = os.environ.get(REGISTRY_VARIABLE, "").rstrip("/")
    prefix = f"{registry}/" if registry else ""
    return {"light_image": prefix + LIGHT_IMAGE, "torch_image": prefix + TORCH_IMAGE}
