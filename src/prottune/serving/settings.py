"""Settings of the endpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prottune.errors import ConfigError
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE

MODEL_NAME = "prottune"
"""Name of the model in every route and of the InferenceService in a cluster."""

_POSITIVE = (
    "max_sequences",
    "max_residues",
    "max_body_megabytes",
    "max_bodies_megabytes",
    "head_seconds",
    "body_seconds",
    "request_seconds",
    "queue_seconds",
    "max_requests",
    "max_connections",
    "drain_seconds",
    "max_explained_residues",
)


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where the endpoint listens and what it accepts."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is this machine only."""
    port: int = 8080
    """Port to listen on; 0 takes a free one and prints it."""
    max_sequences: int = 256
    """Most sequences of one request."""
    max_residues: int = 20_000
    """Longest sequence that is answered; longer ones are refused by name."""
    max_probability_difference: float = MAX_GOLDEN_DIFFERENCE
    """The server starts only if it reproduces each golden probability within this."""
    precision: str = "auto"
    """auto (bf16 where the processor has it), bf16, fp32."""
    max_body_megabytes: int = 8
    """Longest body of a request; 8 hold 256 sequences of 20,000 residues."""
    max_bodies_megabytes: int = 256
    """Most memory for the bodies of all requests at a time; more are refused at once (503, Retry-After)."""
    head_seconds: float = 10.0
    """A request's head must have come within this time."""
    body_seconds: float = 10.0
    """So must its body, after the head; and a client that reads its answer more slowly is cut off."""
    request_seconds: float = 60.0
    """A request that is not answered within this time is given up, and the model does not compute it."""
    queue_seconds: float = 10.0
    """A request is refused at once (429, Retry-After) if by the speed seen so far it would wait longer than
    this for the model."""
    max_requests: int = 512
    """Most requests in the house at a time, each with its whole body; more are refused at once (503,
    Retry-After)."""
    max_connections: int = 2048
    """Most connections at a time; more are closed at once."""
    drain_seconds: int = 30
    """At TERM or INT, requests that were begun have this time to be answered; a cluster's grace period must
    be longer."""
    settle_seconds: int = 5
    """The first part of it, at TERM only: new requests are still answered, because those who send them need a
    moment to hear that this server goes; 0: nobody does."""
    token_file: str = ""
    """File with a token that every request but those for health, metrics and the page must bring, as in
    `Authorization: Bearer TOKEN`; empty: nobody is asked."""
    page: bool = True
    """Whether GET / is a page to paste proteins into."""
    docs: bool = False
    """Whether /openapi.json describes the routes."""
    explain: bool = True
    """Whether :explain says which residues speak for an answer; it loads the model a second time, in fp32."""
    max_explained_residues: int = 2000
    """Longest sequence that is explained: 32 to 512 times the work of an answer."""
    grpc: bool = False
    """Whether the Open Inference Protocol is spoken over gRPC as well."""
    grpc_port: int = 8081
    """Port of gRPC on the same address; 0 takes a free one and prints it."""

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"port={self.port}: expected 0 to 65535")
        if not 0 <= self.grpc_port < 65536:
            raise ConfigError(f"grpc_port={self.grpc_port}: expected 0 to 65535")
        for name in _POSITIVE:
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)}: expected more than 0")
        if self.max_bodies_megabytes < self.max_body_megabytes:
            raise ConfigError(
                f"max_bodies_megabytes={self.max_bodies_megabytes}: expected at least one body, "
                f"max_body_megabytes={self.max_body_megabytes}"
            )
        if not 0 <= self.settle_seconds < self.drain_seconds:
            raise ConfigError(
                f"settle_seconds={self.settle_seconds}: expected 0 or more, and less than "
                f"drain_seconds={self.drain_seconds}"
            )
        if not 0 < self.max_probability_difference < 1:
            raise ConfigError(
                f"max_probability_difference={self.max_probability_difference}: expected between 0 and 1"
            )
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ConfigError(f"precision={self.precision!r}: expected one of auto, bf16, fp32")

    @property
    def max_body_bytes(self) -> int:
        """Longest body of a request, in bytes."""
        return self.max_body_megabytes * 1_000_000

    @property
    def max_bodies_bytes(self) -> int:
        """Most bytes of bodies at a time."""
        return self.max_bodies_megabytes * 1_000_000
