"""Faults that a manifest may have, each planted on purpose to see that it is found, and by whom."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What is changed in a pod's spec, how our own check says it, and which check of checkov must fail."""

    words: str
    check: str
    of_pod: Mapping[str, Any] | None = None
    of_container: Mapping[str, Any] | None = None

    def planted(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """A pod spec with the fault in it, and in its first container."""
        faulty = copy.deepcopy(dict(spec))
        _merge(faulty, self.of_pod or {})
        _merge(faulty["containers"][0], self.of_container or {})
        return faulty


def _of(**context: Any) -> dict[str, Any]:
    return {"securityContext": context}


FAULTS = (
    Fault("is privileged", "CKV_K8S_16", of_container=_of(privileged=True)),
    Fault("may gain privileges", "CKV_K8S_20", of_container=_of(allowPrivilegeEscalation=True)),
    Fault(
        "has capabilities",
        "CKV_K8S_39",
        of_container=_of(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    ),
    Fault("has capabilities", "CKV_K8S_37", of_container=_of(capabilities={"drop": None})),
    Fault("may run as root", "CKV_K8S_23", of_container=_of(runAsNonRoot=False), of_pod=_of(runAsUser=None)),
    Fault("runs as user 0", "CKV_K8S_40", of_container=_of(runAsUser=0)),
    Fault(
        "has no seccomp profile",
        "CKV_K8S_31",
        of_pod=_of(seccompProfile=None),
        of_container=_of(seccompProfile=None),
    ),
    Fault("can write to its image's files", "CKV_K8S_22", of_container=_of(readOnlyRootFilesystem=False)),
    Fault("has no memory limit", "CKV_K8S_13", of_container={"resources": {"limits": {"memory": None}}}),
    Fault(
        "takes a port of its host",
        "CKV_K8S_26",
        of_container={"ports": [{"containerPort": 80, "hostPort": 80}]},
    ),
    Fault("hostNetwork is true", "CKV_K8S_19", of_pod={"hostNetwork": True}),
    Fault("hostPID is true", "CKV_K8S_17", of_pod={"hostPID": True}),
    Fault("hostIPC is true", "CKV_K8S_18", of_pod={"hostIPC": True}),
)


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, Mapping):
            _merge(into.setdefault(name, {}), value)
        else:
            into[name] = value
