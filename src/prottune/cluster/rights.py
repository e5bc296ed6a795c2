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
    name: str = ""
    """The one object that is meant; empty: any."""

    def __str__(self) -> str:
        resource = ".".join(filter(None, (self.plural, self.group)))
        whole = "/".join(filter(None, (resource, self.part)))
        return " ".join(filter(None, (self.verb, whole, self.name)))


def calls_of(role: Object) -> list[Call]:
    """Every call that a Role allows; one to each object that a rule names."""
    return [
        Call(verb, group, plural, part, name)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for plural, _, part in (resource.partition("/") for resource in rule["resources"])
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or [""]
    ]


def is_allowed(cluster: Cluster, call: Call, account: str = "") -> bool:
    """Whether a service account of the namespace may make a call; without a name: who asks.

    Raises: ForbiddenError if others' rights may not be asked.
    """
    asked = {"namespace": cluster.namespace, "verb": call.verb, "group": call.group, "resource": call.plural}
    narrower = {"subresource": call.part, "name": call.name}
    asked |= {field: value for field, value in narrower.items() if value}
    spec: Object = {"resourceAttributes": asked}
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
