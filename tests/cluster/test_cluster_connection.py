"""What prottune asks of an API server, what it asks again, and how it says that it got no answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crd_schemas import Schema
from kubernetes import client
from small_cluster import SmallCluster, serving

from prottune.cluster import connection
from prottune.cluster.connection import Cluster, connect
from prottune.cluster.objects import INFERENCE_SERVICES, LEASES, PODS, covers
from prottune.errors import ClusterError, ConfigError

NAMES = "leases.coordination.k8s.io"


@pytest.fixture
def server() -> Iterator[SmallCluster]:
    with serving(SmallCluster()) as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def cluster(server: SmallCluster, pauses: list[float]) -> Cluster:
    settings = client.Configuration(host=server.url)
    settings.retries = False
    connected = client.ApiClient(settings)
    return Cluster(connected, "lab", read_seconds=5, now=lambda: sum(pauses), sleep=pauses.append)


def lease(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Lease", "metadata": {"name": "x"}, "spec": spec}


def test_an_object_that_is_as_it_should_be_is_not_written(server: SmallCluster, cluster: Cluster) -> None:
    server.put(NAMES, lease(a=1))
    assert cluster.settle(LEASES, "x", lambda there: there) == server.get(NAMES, "x")
    assert cluster.settle(LEASES, "y", lambda there: there) is None
    assert server.writes == []


def test_an_object_is_made_changed_and_deleted_as_it_should_be(
    server: SmallCluster, cluster: Cluster
) -> None:
    cluster.settle(LEASES, "x", lambda there: lease(a=1))
    cluster.settle(LEASES, "x", lambda there: there and there | {"spec": {"a": 2}})
    assert server.get(NAMES, "x")["spec"] == {"a": 2}
    assert cluster.settle(LEASES, "x", lambda there: None) is None
    assert [call.verb for call in server.writes] == ["create", "update", "delete"]
    assert server.named(NAMES) == []


def test_a_decision_is_taken_again_on_what_somebody_else_has_written(
    server: SmallCluster, cluster: Cluster
) -> None:
    server.put(NAMES, lease(a=1))
    seen = []

    def one_more(there: Any) -> Any:
        seen.append(there["spec"]["a"])
        if len(seen) == 1:  # between our reading and our writing
            server.put(NAMES, lease(a=5))
        return there | {"spec": {"a": there["spec"]["a"] + 1}}

    written = cluster.settle(LEASES, "x", one_more)
    assert (seen, written and written["spec"]) == ([1, 5], {"a": 6})


def test_what_was_changed_meanwhile_is_not_deleted(server: SmallCluster, cluster: Cluster) -> None:
    server.put(NAMES, lease(a=1))

    def old_ones(there: Any) -> Any:
        if there["spec"]["a"] == 1:
            server.put(NAMES, lease(a=2))
            return None
        return there

    assert cluster.settle(LEASES, "x", old_ones) == server.get(NAMES, "x")


def test_pauses_grow_and_a_server_that_says_how_long_is_listened_to(
    server: SmallCluster, cluster: Cluster, pauses: list[float]
) -> None:
    server.faults, server.retry_after = {1: 500, 2: 503, 3: 429}, 7
    assert cluster.get(PODS, "x") is None
    assert 0.12 <= pauses[0] <= 0.25
    assert 0.25 <= pauses[1] <= 0.5
    assert pauses[2:] == [7.0]


def test_a_server_that_stays_away_is_given_up_with_its_address(
    server: SmallCluster, cluster: Cluster, pauses: list[float]
) -> None:
    server.down = True
    words = rf"GET {server.url}/api/v1/namespaces/lab/pods: ProtocolError .*; given up after 120 s"
    with pytest.raises(ClusterError, match=words):
        cluster.list(PODS)
    assert 100 < sum(pauses) <= 120


def test_a_log_that_cannot_be_had_is_empty(server: SmallCluster, cluster: Cluster) -> None:
    server.put("pods", {"metadata": {"name": "a"}})
    server.logs["a", "main"] = "one\ntwo\n"
    assert cluster.log("a", "main", lines=1) == "two\n"
    assert cluster.log("a", "other", lines=1) == ""
    server.down = True
    assert cluster.log("a", "main", lines=1) == ""


def test_an_object_that_the_server_refuses_is_the_callers_fault(
    server: SmallCluster, cluster: Cluster
) -> None:
    for status in (400, 403, 422):
        server.faults = {len(server.calls) + 2: status}
        with pytest.raises(ConfigError, match=rf"POST .*/leases: {status} call .* fails on purpose"):
            cluster.settle(LEASES, "x", lambda there: lease())


def test_a_field_that_the_server_does_not_know_is_refused_and_not_dropped(
    server: SmallCluster, cluster: Cluster
) -> None:
    fields = {"properties": {"model": {"type": "string"}}}
    known = {"apiVersion": {}, "kind": {}, "metadata": {}, "spec": fields}
    version = {"name": "v1beta1", "storage": True, "schema": {"openAPIV3Schema": {"properties": known}}}
    names = {"kind": INFERENCE_SERVICES.kind}
    definition = {"group": INFERENCE_SERVICES.group, "names": names, "versions": [version]}
    server.schemas = {"inferenceservices.serving.kserve.io": Schema({"spec": definition})}
    first: dict[str, Any] = {"apiVersion": INFERENCE_SERVICES.api_version, "kind": INFERENCE_SERVICES.kind}
    first |= {"metadata": {"name": "x"}, "spec": {"model": "a"}}
    cluster.settle(INFERENCE_SERVICES, "x", lambda there: first)
    with pytest.raises(ConfigError, match=r'400 .*strict decoding error: unknown field "spec\.canary"'):
        cluster.settle(INFERENCE_SERVICES, "x", lambda there: there and there | {"spec": {"canary": []}})
    assert server.get("inferenceservices.serving.kserve.io", "x")["spec"] == {"model": "a"}


def test_the_namespace_is_the_one_named_or_the_kubeconfigs(
    server: SmallCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "config", namespace="proteins")))
    assert connect().namespace == "proteins"
    assert connect("other").namespace == "other"
    assert connect().get(INFERENCE_SERVICES, "x") is None
    assert server.calls[-1].namespace == "proteins"


def test_a_machine_without_a_cluster_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"no cluster to reach from here .*or name a kubeconfig"):
        connect()
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
    (tmp_path / "token").write_text("secret")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(ConfigError, match="no cluster to reach from here"):
        connect()


@pytest.mark.parametrize(
    ("found", "wanted", "answer"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}, True),
        ({"resources": {"limits": {"memory": "1Gi"}}}, {"resources": {"limits": {"memory": "1024Mi"}}}, True),
        ({"resources": {"limits": {"memory": "1G"}}}, {"resources": {"limits": {"memory": "1Gi"}}}, False),
        ({"version": "1"}, {"version": "1000m"}, False),
        (None, {"a": 1}, False),
    ],
)
def test_an_object_covers_what_is_wanted(found: Any, wanted: Any, answer: bool) -> None:
    assert covers(found, wanted) == answer
