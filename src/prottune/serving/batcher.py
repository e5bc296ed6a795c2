"""Refusals of the queue in front of the model."""

from __future__ import annotations

from prottune.errors import ServiceError


class Overloaded(ServiceError):  # noqa: N818
    """More is asked than the model can answer in time; nothing of this request was queued."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        super().__init__(f"{message}; try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class TooLate(ServiceError):  # noqa: N818
    """A request's deadline passed; what was not begun of it is not computed."""

    retry_after_seconds = 1
