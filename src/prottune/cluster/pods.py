"""What ails a pod, in one line to act on: not scheduled, no image, crashed with its last words."""

from __future__ import annotations

from collections.abc import Iterator

from prottune.cluster.connection import Cluster
from prottune.cluster.objects import EVENTS, Object

_HOPELESS = ("CrashLoopBackOff", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
"""Reasons of a waiting container that Kubernetes gives after it has tried more than once."""
_ON_ITS_WAY = ("PodInitializing", "ContainerCreating")
_LAST_LINES = 5
_LONGEST_LINE = 300


def is_ready(pod: Object) -> bool:
    """Whether its containers say that they can serve."""
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in _status(pod, "conditions")
    )


def is_live(pod: Object) -> bool:
    """Whether it runs or will: not on its way out, not evicted, not over."""
    over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return not over and not pod["metadata"].get("deletionTimestamp")


def is_hopeless(pod: Object) -> bool:
    """Whether Kubernetes tries again and again what has failed already."""
    return any(reason in _HOPELESS for _, reason, _ in _waiting(pod))


def ailment(cluster: Cluster, pod: Object) -> str:
    """Why a pod is not ready, in one line."""
    name = pod["metadata"]["name"]
    for condition in _status(pod, "conditions"):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"pod {name} is not scheduled: {_line(condition.get('message', ''))}"
    for container, reason, message in _waiting(pod):
        if reason not in _ON_ITS_WAY:
            told = _line(f"{reason} {message}")
            return f"container {container} of pod {name}: {told}{_last_words(cluster, pod, container)}"
    for status in _containers(pod):
        over = status.get("state", {}).get("terminated") or {}
        if over.get("exitCode"):
            words = _last_words(cluster, pod, status["name"])
            return f"container {status['name']} of pod {name}: {_end(over)}{words}"
    if told := warnings(cluster, "Pod", name):
        return f"pod {name}: {told}"
    running = [status["name"] for status in _containers(pod) if "running" in status.get("state", {})]
    words = "".join(_last_words(cluster, pod, container) for container in running[:1])
    return f"pod {name} is {pod.get('status', {}).get('phase', 'Pending')} and not ready{words}"


def warnings(cluster: Cluster, kind: str, name: str) -> str:
    """The newest warning that Kubernetes has noted about objects of one kind whose names start with `name`;
    empty if there is none."""
    events = [
        event
        for event in cluster.list(EVENTS, fields=f"involvedObject.kind={kind},type=Warning")
        if event["involvedObject"]["name"].startswith(name)
    ]
    newest = max(
        events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default={}
    )
    return _line(f"{newest.get('reason', '')} {newest.get('message', '')}")


def _waiting(pod: Object) -> Iterator[tuple[str, str, str]]:
    """Name, reason and message of each container that waits."""
    for status in _containers(pod):
        if waiting := status.get("state", {}).get("waiting"):
            yield status["name"], waiting.get("reason", ""), waiting.get("message", "")


def _last_words(cluster: Cluster, pod: Object, container: str) -> str:
    """How the container ended before, if it did, and the last lines of its log."""
    (status,) = [status for status in _containers(pod) if status["name"] == container]
    before = status.get("lastState", {}).get("terminated") or {}
    told = f"; before, {_end(before)}" if before else ""
    text = cluster.log(pod["metadata"]["name"], container, lines=_LAST_LINES, previous=bool(before))
    lines = [_line(line) for line in text.splitlines() if line.strip()]
    return told + (f"; its last words: {' | '.join(lines[-_LAST_LINES:])}" if lines else "")


def _end(terminated: Object) -> str:
    reason = terminated.get("reason", "Error")
    return f"it ended with exit code {terminated.get('exitCode')} ({reason})"


def _containers(pod: Object) -> list[Object]:
    return _status(pod, "initContainerStatuses") + _status(pod, "containerStatuses")


def _status(pod: Object, name: str) -> list[Object]:
    found: list[Object] = pod.get("status", {}).get(name) or []
    return found


def _line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_LINE]
