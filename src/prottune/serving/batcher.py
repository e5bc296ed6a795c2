"""Refusals of the queue in front of the model."""

from __future__ import annotations

from prottune.errors import ServiceError


class Overloaded(ServiceError):  # noqa: N818 - the name of a state
    """More is asked than the model can answer in time; raised at once, before anything is queued."""

    retry_after_seconds: int = 1


class TooLate(ServiceError):  # noqa: N818
    """The request's deadline passed before the model could answer."""
