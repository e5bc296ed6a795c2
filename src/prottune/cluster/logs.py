"""A container's log, followed by asking for it now and then: no broken call loses or doubles a line."""

from __future__ import annotations

from prottune.cluster.connection import Cluster


class LogFollower:
    """The lines that a container has written since it was last asked, each once.

    The API server gives lines from a whole second on; what was seen of that second is told by the time that
    each line carries.
    """

    def __init__(self, cluster: Cluster, container: str) -> None:
        self._cluster, self._container = cluster, container
        self._pod = ""
        self._newest, self._num_then = "", 0
        """Time of the newest line, and how many lines of that very time were seen."""

    def read(self, pod: str) -> list[str]:
        """New lines of a pod's container, oldest first; another pod than last time begins anew."""
        if pod != self._pod:
            self._pod, self._newest, self._num_then = pod, "", 0
        before, num_seen = self._newest, self._num_then
        fresh = []
        for line in self._cluster.log(pod, self._container, since=before).split("\n"):
            time, _, words = line.partition(" ")
            if not time or time < before:
                continue
            if time == before and num_seen > 0:
                num_seen -= 1
                continue
            self._num_then = self._num_then + 1 if time == self._newest else 1
            self._newest = time
            fresh.append(words)
        return fresh
