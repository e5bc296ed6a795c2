"""The small cluster answers as an API server does, seen through the client that prottune uses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from crd_schemas import Schema
from kubernetes import client, watch
from kubernetes.client.rest import ApiException
from small_cluster import Call, SmallCluster, serving
from urllib3.exceptions import HTTPError

ISVC = ("serving.kserve.io", "v1beta1", "lab", "inferenceservices")
RESOURCE = "inferenceservices.serving.kserve.io"


@pytest.fixture
def cluster() -> Iterator[SmallCluster]:
    with serving(SmallCluster()) as running:
        yield running


@pytest.fixture
def connection(cluster: SmallCluster) -> Iterator[client.ApiClient]:
    configuration = client.Configuration(host=cluster.url)
    configuration.retries = False
    with client.ApiClient(configuration) as connection:
        yield connection


@pytest.fixture
def api(connection: client.ApiClient) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(connection)


def service(uri: str = "s3://b/1", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "prottune", **metadata},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "prottune"}, "storageUri": uri}}},
    }


def refusal(call: Any, *args: Any, **kwargs: Any) -> ApiException:
    with pytest.raises(ApiException) as caught:
        call(*args, **kwargs)
    return caught.value


def test_an_object_gets_what_the_server_gives_and_its_generation_counts_specs(
    cluster: SmallCluster, api: client.CustomObjectsApi
) -> None:
    made = api.create_namespaced_custom_object(*ISVC, service())
    assert (made["metadata"]["generation"], made["metadata"]["namespace"]) == (1, "lab")
    same = api.replace_namespaced_custom_object(*ISVC, "prottune", made)
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "nothing was changed"
    told = api.patch_namespaced_custom_object(*ISVC, "prottune", {"metadata": {"labels": {"a": "b"}}})
    assert (told["metadata"]["generation"], told["metadata"]["labels"]) == (1, {"a": "b"})
    told["spec"]["predictor"]["model"]["storageUri"] = "s3://b/2"
    changed = api.replace_namespaced_custom_object(*ISVC, "prottune", told)
    assert changed["metadata"]["generation"] == 2
    assert changed["metadata"]["uid"] == made["metadata"]["uid"]
    assert [call.verb for call in cluster.writes] == ["create", "update", "patch", "update"]


def test_an_old_resource_version_is_a_conflict_and_none_at_all_is_invalid(
    cluster: SmallCluster, api: client.CustomObjectsApi
) -> None:
    old = api.create_namespaced_custom_object(*ISVC, service())
    assert refusal(api.create_namespaced_custom_object, *ISVC, service()).status == 409
    cluster.change(RESOURCE, "prottune", lambda found: found.update(status={"url": "http://x"}))
    conflict = refusal(api.replace_namespaced_custom_object, *ISVC, "prottune", old)
    assert (conflict.status, json.loads(conflict.body)["reason"]) == (409, "Conflict")
    assert refusal(api.get_namespaced_custom_object, *ISVC, "other").status == 404


def test_status_is_written_by_its_own_path_only(cluster: SmallCluster, api: client.CustomObjectsApi) -> None:
    made = api.create_namespaced_custom_object(*ISVC, service() | {"status": {"url": "mine"}})
    assert "status" not in made
    made["status"] = {"url": "theirs"}
    told = api.replace_namespaced_custom_object_status(*ISVC, "prottune", made)
    assert (told["status"], told["metadata"]["generation"]) == ({"url": "theirs"}, 1)
    told["status"] = {"url": "forged"}
    assert api.replace_namespaced_custom_object(*ISVC, "prottune", told)["status"] == {"url": "theirs"}


def test_a_merge_patch_takes_out_what_is_null(cluster: SmallCluster, api: client.CustomObjectsApi) -> None:
    api.create_namespaced_custom_object(*ISVC, service(annotations={"a": "1", "b": "2"}))
    told = api.patch_namespaced_custom_object(*ISVC, "prottune", {"metadata": {"annotations": {"a": None}}})
    assert told["metadata"]["annotations"] == {"b": "2"}


def test_deleting_minds_preconditions_and_finalizers(
    cluster: SmallCluster, api: client.CustomObjectsApi
) -> None:
    made = api.create_namespaced_custom_object(*ISVC, service(finalizers=["kserve"]))
    wrong = {"preconditions": {"uid": "another"}}
    assert refusal(api.delete_namespaced_custom_object, *ISVC, "prottune", body=wrong).status == 409
    right = {"preconditions": {"uid": made["metadata"]["uid"]}}
    api.delete_namespaced_custom_object(*ISVC, "prottune", body=right)
    assert "deletionTimestamp" in cluster.get(RESOURCE, "prottune")["metadata"]
    cluster.change(RESOURCE, "prottune", lambda found: found["metadata"].pop("finalizers"))
    assert cluster.named(RESOURCE) == []


def test_lists_are_selected_by_labels_and_fields(cluster: SmallCluster, connection: client.ApiClient) -> None:
    for name, phase in (("a", "Running"), ("b", "Pending"), ("c", "Running")):
        labels = {"app": "x" if name != "c" else "y"}
        pod = {"metadata": {"name": name, "labels": labels}, "status": {"phase": phase}}
        cluster.put("pods", pod)
    core = client.CoreV1Api(connection)
    found = core.list_namespaced_pod("lab", label_selector="app=x", field_selector="status.phase=Running")
    assert [pod.metadata.name for pod in found.items] == ["a"]
    assert [pod.metadata.name for pod in core.list_pod_for_all_namespaces(label_selector="app!=x").items] == [
        "c"
    ]


def test_logs_are_a_containers_own_and_may_be_the_one_before(
    cluster: SmallCluster, connection: client.ApiClient
) -> None:
    cluster.put("pods", {"metadata": {"name": "a"}})
    cluster.logs["a", "main"] = "one\ntwo\nthree\n"
    cluster.logs["a", "main (previous)"] = "bang\n"
    core = client.CoreV1Api(connection)
    assert core.read_namespaced_pod_log("a", "lab", container="main", tail_lines=2) == "two\nthree\n"
    assert core.read_namespaced_pod_log("a", "lab", container="main", previous=True) == "bang\n"
    assert refusal(core.read_namespaced_pod_log, "a", "lab", container="other").status == 400


def test_a_watch_tells_what_happens_after_a_version_and_expires(
    cluster: SmallCluster, api: client.CustomObjectsApi
) -> None:
    first = cluster.put(RESOURCE, service())
    version = first["metadata"]["resourceVersion"]
    later = threading.Timer(0.05, cluster.change, (RESOURCE, "prottune", lambda o: o.update(status={"n": 1})))
    later.start()
    stream = watch.Watch()
    seen = []
    words = {"resource_version": version, "timeout_seconds": 5}
    for event in stream.stream(api.list_namespaced_custom_object, *ISVC, **words):
        seen.append((event["type"], event["object"]["status"]))
        stream.stop()
    later.join()
    assert seen == [("MODIFIED", {"n": 1})]
    cluster.expire()
    gone = refusal(list, watch.Watch().stream(api.list_namespaced_custom_object, *ISVC, **words))
    assert gone.status == 410


def test_a_webhook_and_a_controller_are_scripted(cluster: SmallCluster, api: client.CustomObjectsApi) -> None:
    def controller(call: Call, written: dict[str, Any]) -> None:
        if call.resource == RESOURCE:
            cluster.change(RESOURCE, "prottune", lambda found: found.update(status={"for": call.verb}))

    cluster.admit = lambda call, sent: sent["spec"]["predictor"].update(minReplicas=1)
    cluster.after_write = controller
    made = api.create_namespaced_custom_object(*ISVC, service())
    assert (made["spec"]["predictor"]["minReplicas"], "status" in made) == (1, False)
    assert cluster.get(RESOURCE, "prottune")["status"] == {"for": "create"}


def test_rights_are_reviewed_and_held_to(cluster: SmallCluster, connection: client.ApiClient) -> None:
    cluster.denied.add(("create", RESOURCE))
    attributes = {"verb": "create", "group": ISVC[0], "resource": ISVC[3], "namespace": "lab"}
    reviews = client.AuthorizationV1Api(connection)

    def allowed(verb: str) -> bool:
        spec = {"resourceAttributes": attributes | {"verb": verb}}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        return bool(reviews.create_self_subject_access_review(body).status.allowed)

    assert (allowed("create"), allowed("get")) == (False, True)
    custom = client.CustomObjectsApi(connection)
    assert refusal(custom.create_namespaced_custom_object, *ISVC, service()).status == 403
    assert cluster.objects == {}


@pytest.mark.parametrize("fault", [409, 410, 429, 500, "cut", "timeout", "lost"])
def test_the_nth_call_fails_as_told_and_only_lost_has_an_effect(
    cluster: SmallCluster, api: client.CustomObjectsApi, fault: str | int
) -> None:
    cluster.faults[2] = fault
    assert refusal(api.get_namespaced_custom_object, *ISVC, "prottune").status == 404
    with pytest.raises((ApiException, HTTPError)) as caught:
        api.create_namespaced_custom_object(*ISVC, service(), _request_timeout=(0.2, 0.2))
    if isinstance(fault, int):
        assert caught.value.status == fault  # type: ignore[union-attr]
        assert ("Retry-After" in caught.value.headers) == (fault == 429)  # type: ignore[union-attr]
    assert cluster.named(RESOURCE) == (["prottune"] if fault == "lost" else [])
    cluster.put(RESOURCE, service())
    assert api.get_namespaced_custom_object(*ISVC, "prottune")["kind"] == "InferenceService"


DEFINITION = {
    "group": "serving.kserve.io",
    "names": {"kind": "InferenceService"},
    "versions": [
        {
            "name": "v1beta1",
            "storage": True,
            "schema": {
                "openAPIV3Schema": {
                    "properties": {
                        **{name: {"type": "string"} for name in ("apiVersion", "kind")},
                        "metadata": {"type": "object"},
                        "spec": {
                            "properties": {
                                "predictor": {
                                    "properties": {
                                        "minReplicas": {"type": "integer"},
                                        "model": {
                                            "x-kubernetes-preserve-unknown-fields": True,
                                            "properties": {},
                                        },
                                    }
                                }
                            }
                        },
                    }
                }
            },
        }
    ],
}
"""What a custom resource's definition says of it, in small."""


@pytest.fixture
def strict(cluster: SmallCluster) -> SmallCluster:
    cluster.schemas = {RESOURCE: Schema({"spec": DEFINITION})}
    return cluster


def test_an_unknown_field_is_dropped_or_refused_as_is_asked_and_a_wrong_type_is_refused(
    strict: SmallCluster, api: client.CustomObjectsApi
) -> None:
    misspelt = service()
    misspelt["spec"]["predictor"]["minReplica"] = 1
    refused = refusal(api.create_namespaced_custom_object, *ISVC, misspelt, field_validation="Strict")
    assert refused.status == 400
    assert json.loads(refused.body)["message"].endswith('unknown field "spec.predictor.minReplica"')
    kept = api.create_namespaced_custom_object(*ISVC, misspelt)
    assert "minReplica" not in kept["spec"]["predictor"]
    api.delete_namespaced_custom_object(*ISVC, "prottune")
    wrong = service()
    wrong["spec"]["predictor"]["minReplicas"] = "one"
    refused = refusal(api.create_namespaced_custom_object, *ISVC, wrong)
    assert (refused.status, "spec.predictor.minReplicas" in refused.body) == (422, True)
    made = api.create_namespaced_custom_object(*ISVC, service())
    made["metadata"].pop("resourceVersion")
    refused = refusal(api.replace_namespaced_custom_object, *ISVC, "prottune", made)
    assert (refused.status, "must be specified" in refused.body) == (422, True)
