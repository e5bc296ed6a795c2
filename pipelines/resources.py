"""What Kubernetes gives each task: image, environment, memory, GPUs, retries and time.

Sizes of /dev/shm, retries, times and how many shards run at once are constants: kfp 2.17 takes no pipeline
parameter for them.
kfp.local ignores all of it except environment and retries.
"""

from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask

from prottune.cluster.objects import GPU, S3_SECRET, S3_SECRET_KEYS, S3_TOKEN_KEY
from prottune.s3.access import CA_VARIABLES
from prottune.tracking.unsent import PLACE_VARIABLE
from prottune.training.settings import MOST_SECONDS

CONFIG_MAP = "prottune"
FROM_CONFIG_MAP = (
    *("S3_ENDPOINT", "S3_SECURE", "S3_REGION", "AWS_ENDPOINT_URL_STS", CA_VARIABLES[0]),
    *("MLFLOW_TRACKING_URI", PLACE_VARIABLE),
)
SECRET, FROM_SECRET = S3_SECRET, (*S3_SECRET_KEYS, S3_TOKEN_KEY)
CA_CONFIG_MAP, CA_FOLDER = "prottune-ca", "/etc/prottune/ca"
"""ConfigMap of certificates to trust, if there is one, and where pods have its files."""
PIPELINE_RUN_LABEL = "metadata.labels['pipeline/runid']"
"""Label that KFP puts on every pod of a run."""

USER = 65532
"""Number of the user that every container runs as; the images know no other, and root is none of them."""

NUM_RETRIES = 2
BACKOFF = "30s"
SHORT_SECONDS = 15 * 60
LONG_SECONDS = 2 * 3600
TRAIN_SECONDS = MOST_SECONDS + 30 * 60
"""Longer than a TrainJob may take, so that the step that follows it is there to say how it ended."""
PREDICT_SECONDS = 8 * 3600
"""For one shard; more shards take less each."""

PARALLEL_SHARDS = 8
"""Shards that are answered at once at most, however many there are: GPUs of a cluster are shared."""

SHARED_MEMORY = "2Gi"
NUM_GPUS = 1
"""GPUs of the pod that trains; 0 trains on processors. Where several nodes train it only waits: 0."""
EVALUATE_GPUS = 1
"""GPUs of the pod that evaluates; 0 evaluates on processors."""
ANY_NODE: dict[str, Any] = {}
NO_TOLERATIONS: list[Any] = []


def light(task: PipelineTask, image: str, seconds: int = SHORT_SECONDS) -> PipelineTask:
    """Give a task the light image, two cores and what every task gets."""
    _every(task, image, seconds)
    return task.set_cpu_request("500m").set_memory_request("1Gi").set_memory_limit("8Gi")


def heavy(
    task: PipelineTask,
    image: str,
    seconds: int,
    *,
    num_gpus: int,
    node_selector: dict[str, Any],
    tolerations: list[Any],
) -> PipelineTask:
    """Give a task the torch image, GPUs on the nodes chosen, and shared memory for its processes.

    `num_gpus` must also be an argument of the task's component: kfp 2.17 forgets to hand a parameter that
    only a resource names into a group (tests/pipelines/test_compiling.py).
    """
    _every(task, image, seconds)
    task.set_cpu_request("2").set_memory_request("8Gi").set_memory_limit("64Gi")
    task.set_accelerator_type(GPU).set_accelerator_limit(num_gpus)
    kubernetes.add_node_selector_json(task, node_selector)
    kubernetes.add_toleration_json(task, tolerations)
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=SHARED_MEMORY)  # noqa: S108
    return task


def _every(task: PipelineTask, image: str, seconds: int) -> None:
    task.set_container_image(image)
    task.set_caching_options(False)  # KFP's keys are strings, not contents: a changed file would be missed
    task.set_retry(NUM_RETRIES, backoff_duration=BACKOFF, backoff_factor=2.0)
    kubernetes.set_timeout(task, seconds)
    kubernetes.set_security_context(task, run_as_user=USER, run_as_group=USER, run_as_non_root=True)
    from_map, from_secret = {name: name for name in FROM_CONFIG_MAP}, {name: name for name in FROM_SECRET}
    kubernetes.use_config_map_as_env(task, CONFIG_MAP, from_map, optional=True)
    kubernetes.use_secret_as_env(task, SECRET, from_secret, optional=True)
    kubernetes.use_config_map_as_volume(task, CA_CONFIG_MAP, CA_FOLDER, optional=True)
    kubernetes.use_field_path_as_env(task, "PROTTUNE_PIPELINE_RUN", PIPELINE_RUN_LABEL)
