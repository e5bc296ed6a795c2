"""What a cluster is given: rendered whole, held to Kubernetes' schemas and to the restricted standard."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import small_kserve
import small_trainer
import yaml
from crd_schemas import schema_of
from pods import Pod, pods_of, violations
from rendering import OVERLAYS, kustomize_command, rendered

from pipelines import resources
from prottune.cluster.objects import S3_SECRET_KEYS

Documents = list[dict[str, Any]]
_CUSTOM = ("serving.kserve.io", "trainer.kubeflow.org", "kubeflow.org", "security.istio.io")
_KUBERNETES = "1.33.0"

pytestmark = pytest.mark.skipif(kustomize_command() is None, reason="kustomize is not here")


@pytest.fixture(scope="module")
def overlays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Documents]:
    scratch = tmp_path_factory.mktemp("rendered")
    return {name: rendered(name, scratch) for name in OVERLAYS}


@pytest.fixture(params=OVERLAYS)
def documents(request: pytest.FixtureRequest, overlays: dict[str, Documents]) -> Documents:
    return overlays[request.param]


def named(documents: Documents, kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name)
    return found


def test_objects_of_kubernetes_have_its_fields_and_no_others(documents: Documents) -> None:
    core = [each for each in documents if each["apiVersion"].partition("/")[0] not in _CUSTOM]
    assert len(core) >= 15
    for document in core:
        kubernetes_validate.validate(document, _KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("kind", "resource"),
    [
        ("ServingRuntime", "servingruntimes.serving.kserve.io"),
        ("TrainingRuntime", "trainingruntimes.trainer.kubeflow.org"),
    ],
)
def test_runtimes_have_the_fields_that_their_schemas_know_and_no_others(
    kind: str, resource: str, documents: Documents
) -> None:
    schema = schema_of(resource)
    assert schema.errors(named(documents, kind, "prottune")) == []
    assert schema.errors(named(documents, kind, "prottune") | {"speck": {}}) != []


def test_every_pod_keeps_to_the_restricted_standard(documents: Documents) -> None:
    pods = [pod for document in documents for pod in pods_of(document)]
    assert {pod.where for pod in pods} >= {
        "Deployment prottune-mlflow",
        "StatefulSet prottune-database",
        "ServingRuntime prottune",
        "TrainingRuntime prottune",
    }
    assert [words for pod in pods for words in violations(pod)] == []


def test_pod_specs_inside_custom_resources_have_kubernetes_fields(documents: Documents) -> None:
    for document in documents:
        for pod in pods_of(document):
            spec = {
                name: pod.spec[name] for name in ("containers", "volumes", "tolerations") if name in pod.spec
            }
            whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
            kubernetes_validate.validate(whole, _KUBERNETES, strict=True)


PLANTED: dict[str, Mapping[str, Any]] = {
    "is privileged": {"securityContext": {"privileged": True}},
    "may gain privileges": {"securityContext": {"allowPrivilegeEscalation": True}},
    "has capabilities": {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN"]}}},
    "may run as root": {"securityContext": {"runAsNonRoot": False}},
    "runs as user 0": {"securityContext": {"runAsUser": 0}},
    "has no seccomp profile": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
    "can write to its image's files": {"securityContext": {"readOnlyRootFilesystem": False}},
    "has no memory limit": {"resources": {"limits": {"memory": None}}},
    "takes a port of its host": {"ports": [{"containerPort": 80, "hostPort": 80}]},
}


@pytest.mark.parametrize("words", PLANTED)
def test_a_planted_violation_is_found_in_every_kind(words: str, overlays: dict[str, Documents]) -> None:
    for document in copy.deepcopy(overlays["gpu"]):
        for pod in pods_of(document):
            container = pod.containers[0]
            for field, value in PLANTED[words].items():
                if isinstance(value, Mapping):
                    _merge(container.setdefault(field, {}), value)  # type: ignore[attr-defined]
                else:
                    container[field] = value  # type: ignore[index]
            assert any(words in found for found in violations(pod)), pod.where


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("hostNetwork", True, "hostNetwork is true"),
        ("volumes", [{"name": "disk", "hostPath": {"path": "/"}}], "volume disk is a hostPath"),
        ("volumes", [{"name": "scratch", "emptyDir": {}}], "volume scratch has no size limit"),
    ],
)
def test_what_a_pod_takes_of_its_node_is_found(field: str, value: Any, words: str) -> None:
    assert violations(Pod("Pod p", {"containers": [], field: value})) == [f"Pod p: {words}"]


def test_an_image_outside_every_pod_that_was_found_is_an_error() -> None:
    with pytest.raises(AssertionError, match="Strange s: images"):
        pods_of({"kind": "Strange", "metadata": {"name": "s"}, "spec": {"runner": {"image": "x"}}})


def test_the_pipeline_finds_its_settings_and_keys_by_the_names_it_was_compiled_with(
    documents: Documents,
) -> None:
    settings = named(documents, "ConfigMap", resources.CONFIG_MAP)["data"]
    assert set(settings) >= {"S3_ENDPOINT", "MLFLOW_TRACKING_URI"}
    assert set(named(documents, "Secret", resources.SECRET)["data"]) == set(S3_SECRET_KEYS)


@pytest.mark.parametrize(
    ("kind", "name"), [("TrainingRuntime", "prottune"), ("Deployment", "prottune-mlflow")]
)
def test_who_talks_to_the_store_has_the_certificates_where_steps_have_them(
    documents: Documents, kind: str, name: str
) -> None:
    (pod,) = pods_of(named(documents, kind, name))
    (volume,) = (each["name"] for each in pod.spec["volumes"] if "configMap" in each)
    assert {"name": volume, "configMap": {"name": resources.CA_CONFIG_MAP, "optional": True}} in pod.spec[
        "volumes"
    ]
    mount = {"name": volume, "mountPath": resources.CA_FOLDER, "readOnly": True}
    assert [mount in container["volumeMounts"] for container in pod.containers] == [True]


def test_one_store_is_named_the_same_everywhere(documents: Documents) -> None:
    endpoint = named(documents, "ConfigMap", resources.CONFIG_MAP)["data"]["S3_ENDPOINT"]
    said = named(documents, "Secret", resources.SECRET)["metadata"]["annotations"]
    assert endpoint == f"http://{said['serving.kserve.io/s3-endpoint']}"
    assert said["serving.kserve.io/s3-usehttps"] == "0"
    launcher = yaml.safe_load(named(documents, "ConfigMap", "kfp-launcher")["data"]["providers"])
    assert launcher["s3"]["default"]["endpoint"] == endpoint
    assert launcher["s3"]["default"]["credentials"]["secretRef"]["secretName"] == resources.SECRET


def test_the_role_allows_what_prottune_calls_and_nothing_else(documents: Documents) -> None:
    granted = {
        (verb, f"{resource}.{group}".rstrip("."))
        for rule in named(documents, "Role", "prottune-run")["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == small_kserve.RIGHTS | small_trainer.RIGHTS


def test_the_role_has_no_wildcard_and_reads_no_secret(documents: Documents) -> None:
    for rule in named(documents, "Role", "prottune-run")["rules"]:
        words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "*" not in words
        assert "secrets" not in words
        assert not {"escalate", "bind", "impersonate"} & set(words)
    assert not [each for each in documents if each["kind"] in ("ClusterRole", "ClusterRoleBinding")]


def test_only_the_account_of_a_run_gets_a_token(documents: Documents) -> None:
    tokens = {
        each["metadata"]["name"]: each.get("automountServiceAccountToken", True)
        for each in documents
        if each["kind"] == "ServiceAccount"
    }
    assert tokens == {"prottune-run": True, "prottune-serve": False, "prottune-work": False}


@pytest.mark.parametrize("name", ["gpu", "multi-user"])
def test_in_a_namespace_of_our_own_nothing_may_talk_that_is_not_named(
    name: str, overlays: dict[str, Documents]
) -> None:
    policy = named(overlays[name], "NetworkPolicy", "default-deny")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_beside_a_standalone_kubeflow_its_own_pods_are_left_alone(overlays: dict[str, Documents]) -> None:
    for document in overlays["local"]:
        if document["kind"] == "NetworkPolicy":
            assert document["spec"]["podSelector"], document["metadata"]["name"]
        assert document["kind"] != "Namespace"
        assert document["metadata"].get("namespace") == "kubeflow"


def test_every_pod_that_a_service_or_policy_means_exists(documents: Documents) -> None:
    made_here = _names_of_pods(documents)
    for document in documents:
        if document["kind"] == "Service":
            assert document["spec"]["selector"]["app.kubernetes.io/name"] in made_here
        if document["kind"] == "NetworkPolicy":
            assert _selected(document, made_here) or document["metadata"]["name"] == "steps"


@pytest.mark.parametrize("port", [53, 8333])
def test_whoever_may_not_talk_freely_can_still_look_up_names_and_reach_the_store(
    port: int, documents: Documents
) -> None:
    policies = [each for each in documents if each["kind"] == "NetworkPolicy"]
    need_both = {"prottune-mlflow", "prottune-training", "prottune-endpoint"}
    for name in need_both:
        mine = [each["spec"] for each in policies if name in _selected(each, need_both)]
        rules = [rule for spec in mine for rule in spec.get("egress", [])]
        ports = [entry["port"] for rule in rules for entry in rule.get("ports", [])]
        assert port in ports, name


def _names_of_pods(documents: Documents) -> set[str]:
    labels = [pod.get("metadata", {}).get("labels", {}) for each in documents for pod in _templates(each)]
    labels += [each["spec"]["labels"] for each in documents if each["kind"] == "ServingRuntime"]
    return {found["app.kubernetes.io/name"] for found in labels if "app.kubernetes.io/name" in found}


def _selected(policy: Mapping[str, Any], names: set[str]) -> set[str]:
    """Those of the pods, by name, that a policy is about."""
    selector = policy["spec"]["podSelector"]
    if not selector:
        return names
    meant = {selector.get("matchLabels", {}).get("app.kubernetes.io/name")}
    for expression in selector.get("matchExpressions", []):
        meant |= set(expression.get("values", []))
    return meant & names


def _templates(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        here = [value["template"]] if isinstance(value.get("template"), dict) else []
        return here + [inner for each in value.values() for inner in _templates(each)]
    if isinstance(value, list):
        return [inner for each in value for inner in _templates(each)]
    return []


def test_the_keys_themselves_are_never_committed() -> None:
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()
    assert "manifests/base/*.env" in ignored
