"""What Prometheus is told about HTTP: requests by route and answer, how many are in the house, refusals.

Routes are those of the program, never a caller's path, so that nobody can fill the memory with labels.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge

_requests = Counter("prottune_http_requests", "Requests that were answered", ["route", "status"])
_in_house = Gauge("prottune_http_requests_in_house", "Requests that await an answer, but for those of probes")
_refused = Counter("prottune_http_refused", "Requests and connections that were refused", ["reason"])


def count_request(route: str, status: int) -> None:
    """One request was answered; 499 stands for a caller that went away first."""
    _requests.labels(route, str(status)).inc()


def count_refusal(reason: str) -> None:
    """One request, or a connection before it was a request, was refused before the model saw it."""
    _refused.labels(reason).inc()


def set_in_house(num_requests: int) -> None:
    """So many requests are being answered now."""
    _in_house.set(num_requests)
