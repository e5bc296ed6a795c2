"""What somebody may do in a namespace, asked of the API server before it is tried."""

from __future__ import annotations

from dataclasses import dataclass

from prottune.cluster.connection import Cluster
from prottune.cluster.objects import Object

_GROUP = "/apis/authorization.k8s.io/v1"


@dataclass(frozen=True)
class Call:
    """One kind of call, as a Role allows it."""

    verb: str
    group: str
    """Empty for the core kinds, as pods."""
    plural: str
    part: str = ""
    """What of the object is meant, as `log` of a pod; empty: the object."""

    def __str__(self) -> str:
        resource = ".".join(filter(None, (self.plural, self.group)))
        return f"{self.verb} {'/'.join(filter(None, (resource, self.part)))}"


def calls_of(role: Object) -> list[Call]:
    """Every call that a Role allows."""
    return [
        Call(verb, group, *name.split("/", 1))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for name in rule["resources"]
        for verb in rule["verbs"]
    ]


def is_allowed(cluster: Cluster, call: Call, account: str = "") -> bool:
    """Whether a service account of the namespace may make a call; without a name: who asks.

    Raises: ForbiddenError if others' rights may not be asked.
    """
    asked = {"namespace": cluster.namespace, "verb": call.verb, "group": call.group, "resource": call.plural}
    spec: Object = {"resourceAttributes": asked | ({"subresource": call.part} if call.part else {})}
    kind, path = "SelfSubjectAccessReview", f"{_GROUP}/selfsubjectaccessreviews"
    metadata = {}
    if account:
        kind = "LocalSubjectAccessReview"
        path = f"{_GROUP}/namespaces/{cluster.namespace}/localsubjectaccessreviews"
        metadata = {"namespace": cluster.namespace}
        spec |= _user(cluster.namespace, account)
    question = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
    return bool(cluster.review(path, question)["status"]["allowed"])


def _user(namespace: str, account: str) -> Object:
    """A service account as authorization knows it.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#service-account-tokens
    """
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    return {"user": f"system:serviceaccount:{namespace}:{account}", "groups": groups}
