"""What a cluster is given: rendered whole, held to Kubernetes' schemas and to the restricted standard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import small_kserve
import small_trainer
import yaml
from crd_schemas import schema_of
from planted import FAULTS, Fault
from pods import Pod, pods_of, violations
from rendering import OVERLAYS, needed_kustomize, rendered
from small_kustomize import built

from pipelines import manifests, resources
from prottune.cluster.objects import S3_SECRET_KEYS
from prottune.deployment.contract import MODEL_NAME
from prottune.deployment.rollout import ROLLOUT_LEASE
from prottune.registration.registry import PROMOTION_LEASE
from prottune.training.trainjob import RUNTIME

Documents = list[dict[str, Any]]
_CUSTOM = ("serving.kserve.io", "trainer.kubeflow.org", "kubeflow.org", "security.istio.io")
_KUBERNETES = "1.33.0"


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


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_rendered_without_kustomize_is_what_kustomize_renders(overlay: str, tmp_path: Path) -> None:
    ours = built(manifests.scratch_copy(tmp_path) / "overlays" / overlay)
    theirs = manifests.rendered(overlay, needed_kustomize(), tmp_path)
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in theirs}
    assert {(each["kind"], each["metadata"]["name"]): each for each in ours} == by_name
    assert len(ours) == len(theirs) == len(by_name)


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


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.check)
def test_a_planted_fault_is_found_in_every_kind(fault: Fault, overlays: dict[str, Documents]) -> None:
    for document in overlays["gpu"]:
        for pod in pods_of(document):
            found = violations(Pod(pod.where, fault.planted(pod.spec)))
            assert any(fault.words in words for words in found), pod.where


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
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
    settings = named(documents, "ConfigMap", resources.CONFIG_MAP)["data"]
    endpoint, region = settings["S3_ENDPOINT"], settings["S3_REGION"]
    said = named(documents, "Secret", resources.SECRET)["metadata"]["annotations"]
    scheme = {"0": "http", "1": "https"}[said["serving.kserve.io/s3-usehttps"]]
    assert endpoint == f"{scheme}://{said['serving.kserve.io/s3-endpoint']}"
    launcher = yaml.safe_load(named(documents, "ConfigMap", "kfp-launcher")["data"]["providers"])
    store = launcher["s3"]["default"]
    assert (store["endpoint"], store["disableSSL"]) == (endpoint, scheme == "http")
    assert store["region"] == said["serving.kserve.io/s3-region"] == region
    assert store["credentials"]["secretRef"]["secretName"] == resources.SECRET


def test_the_role_allows_what_prottune_calls_and_nothing_else(documents: Documents) -> None:
    granted = {call[:2] for call in _granted(documents, "prottune-run")}
    assert granted == small_kserve.RIGHTS | small_trainer.RIGHTS


def test_the_role_is_bound_to_the_objects_that_prottune_names(documents: Documents) -> None:
    names = {
        small_kserve.SERVICES: {MODEL_NAME},
        small_kserve.LEASES: {ROLLOUT_LEASE, PROMOTION_LEASE},
        small_trainer.RUNTIMES: {RUNTIME},
    }
    wanted = {
        (verb, resource, name)
        for verb, resource in small_kserve.RIGHTS | small_trainer.RIGHTS
        for name in (names.get(resource, {""}) if verb != "create" else {""})
    }
    assert _granted(documents, "prottune-run") == wanted
    assert len(wanted) == 18


def test_the_launcher_of_kubeflow_pipelines_may_read_where_artifacts_go_and_with_which_keys(
    documents: Documents,
) -> None:
    launcher = named(documents, "ConfigMap", "kfp-launcher")
    secret = yaml.safe_load(launcher["data"]["providers"])["s3"]["default"]["credentials"]["secretRef"]
    assert _granted(documents, "prottune-run-launcher") == {
        ("get", "configmaps", launcher["metadata"]["name"]),
        ("get", "secrets", secret["secretName"]),
    }


@pytest.mark.parametrize("role", ["prottune-run", "prottune-run-launcher"])
def test_a_role_is_given_to_the_account_of_runs_alone(role: str, documents: Documents) -> None:
    binding = named(documents, "RoleBinding", role)
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}
    namespace = binding["metadata"]["namespace"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "prottune-run", "namespace": namespace}]


def _granted(documents: Documents, role: str) -> set[tuple[str, str, str]]:
    """Every call that a Role allows: verb, resource, and the object's name, if it is bound to one."""
    return {
        (verb, f"{resource}.{group}".rstrip("."), name)
        for rule in named(documents, "Role", role)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames", [""])
    }


def test_no_role_has_a_wildcard_or_reads_a_secret_that_it_does_not_name(documents: Documents) -> None:
    for rule in (rule for each in documents if each["kind"] == "Role" for rule in each["rules"]):
        words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert "*" not in words
        assert "secrets" not in words or rule["resourceNames"] == [resources.SECRET]
        assert not {"escalate", "bind", "impersonate"} & set(words)
    assert not [each for each in documents if each["kind"] in ("ClusterRole", "ClusterRoleBinding")]


def test_only_the_account_of_a_run_gets_a_token(documents: Documents) -> None:
    tokens = {
        each["metadata"]["name"]: each.get("automountServiceAccountToken", True)
        for each in documents
        if each["kind"] == "ServiceAccount"
    }
    assert tokens == {"prottune-run": True, "prottune-serve": False, "prottune-work": False}


def test_in_a_profile_of_its_own_nothing_may_talk_that_is_not_named(overlays: dict[str, Documents]) -> None:
    policy = named(overlays["multi-user"], "NetworkPolicy", "default-deny")["spec"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for document in overlays["multi-user"]:
        if document["kind"] != "Profile":
            assert document["metadata"]["namespace"] == "prottune", document["metadata"]["name"]


@pytest.mark.parametrize("name", ["local", "gpu", "example"])
def test_beside_a_standalone_kubeflow_its_own_pods_are_left_alone(
    name: str, overlays: dict[str, Documents]
) -> None:
    for document in overlays[name]:
        if document["kind"] == "NetworkPolicy":
            assert document["spec"]["podSelector"], document["metadata"]["name"]
        assert document["kind"] != "Namespace"
        assert document["metadata"].get("namespace") == "kubeflow"


def test_in_a_mesh_steps_without_a_sidecar_reach_mlflow_and_the_endpoint(
    overlays: dict[str, Documents],
) -> None:
    documents = overlays["multi-user"]
    pods = {pod.labels["app.kubernetes.io/name"]: pod for each in documents for pod in pods_of(each)}
    for name in ("prottune-mlflow", "prottune-database"):
        assert pods[name].labels["sidecar.istio.io/inject"] == "false"
    allow = named(documents, "AuthorizationPolicy", "prottune-endpoint")["spec"]
    assert (allow["action"], [set(rule) for rule in allow["rules"]]) == ("ALLOW", [{"to"}])
    peers = named(documents, "PeerAuthentication", "prottune-endpoint")["spec"]
    assert peers["mtls"] == {"mode": "PERMISSIVE"}
    assert peers["selector"] == allow["selector"]


def test_where_the_mesh_asks_for_a_signed_in_user_the_sidecar_reads_tokens(
    overlays: dict[str, Documents],
) -> None:
    documents = overlays["multi-user"]
    asked = [
        each["spec"]["selector"]
        for each in documents
        if each["kind"] == "AuthorizationPolicy"
        for rule in each["spec"]["rules"]
        for source in rule.get("from", [])
        if {"requestPrincipals", "notRequestPrincipals"} & set(source["source"])
    ]
    readers = [each["spec"] for each in documents if each["kind"] == "RequestAuthentication"]
    assert (
        [reader["selector"] for reader in readers]
        == asked
        == [{"matchLabels": {"app.kubernetes.io/name": "prottune-endpoint"}}]
    )
    for rule in readers[0]["jwtRules"]:
        assert rule["jwksUri"].startswith(rule["issuer"] + "/"), "no sidecar may fetch keys; istiod does"
        assert rule["forwardOriginalToken"] is True


def test_each_of_our_pods_may_talk_only_as_a_policy_says(documents: Documents) -> None:
    policies = [each for each in documents if each["kind"] == "NetworkPolicy"]
    pods = _names_of_pods(documents)
    for way in ("Ingress", "Egress"):
        ruled = [each for each in policies if way in each["spec"]["policyTypes"]]
        assert pods == {name for policy in ruled for name in _selected(policy, pods)}


def test_every_pod_that_a_service_policy_or_budget_means_exists(documents: Documents) -> None:
    made_here = _names_of_pods(documents)
    for document in documents:
        if document["kind"] == "PodDisruptionBudget":
            assert document["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] in made_here
        if document["kind"] == "Service":
            assert document["spec"]["selector"]["app.kubernetes.io/name"] in made_here
        if document["kind"] == "NetworkPolicy":
            others = ("steps", "artifacts")  # pods that Kubeflow makes
            assert _selected(document, made_here) or document["metadata"]["name"] in others


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
    pods = [pod for document in documents for pod in pods_of(document)]
    return {pod.labels["app.kubernetes.io/name"] for pod in pods}


def _selected(policy: Mapping[str, Any], names: set[str]) -> set[str]:
    """Those of the pods, by name, that a policy is about."""
    selector = policy["spec"]["podSelector"]
    if not selector:
        return names
    meant = {selector.get("matchLabels", {}).get("app.kubernetes.io/name")}
    for expression in selector.get("matchExpressions", []):
        meant |= set(expression.get("values", []))
    return meant & names


def test_the_keys_themselves_are_never_committed() -> None:
    ignored = (Path(__file__).parents[2] / ".gitignore").read_text().splitlines()
    assert "manifests/base/*.env" in ignored
