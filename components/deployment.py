"""The step that serves a model and checks what its endpoint answers."""

from kfp import dsl
from kfp.dsl import Input, Metrics, Model, Output

from components import LIGHT_IMAGE


@dsl.component(base_image=LIGHT_IMAGE, install_kfp_package=False)
def deploy(
    model: Input[Model],
    version: str,
    deploy_to: str,
    replicas: int,
    serving_gpus: int,
    metrics: Output[Metrics],
) -> str:
    """Serve a model and hold its endpoint to the golden answers; returns the endpoint's address."""
    from prottune.addresses import s3_uri
    from prottune.deployment.settings import DeployConfig
    from prottune.deployment.stage import deploy
    from prottune.tracking.step import step
    from prottune.tracking.tracker import numbers

    config = DeployConfig(to=deploy_to, replicas=replicas, serving_gpus=serving_gpus)
    with step("deploy", config) as tracker:
        report = deploy(s3_uri(model.uri), config, version)
        tracker.numbers(numbers(report, "deploy"))
    metrics.metadata.update(numbers(report))
    return report.url
