"""Settings of the endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from prottune.errors import ConfigError
from prottune.model.settings import MAX_GOLDEN_DIFFERENCE

MODEL_NAME = "prottune"
"""Name of the model in every route and of the InferenceService in a cluster."""

_POSITIVE = (
    "max_sequences",
    "max_residues",
    "max_body_megabytes",
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
    head_seconds: float = 10.0
    """A request's head must have come within this time."""
    body_seconds: float = 10.0
    """So must its body, after the head."""
    request_seconds: float = 60.0
    """A request that is not answered within this time is given up, and the model does not compute it."""
    queue_seconds: float = 10.0
    """A request is refused at once (429, Retry-After) if by the speed seen so far it would wait longer than
    this for the model."""
    max_requests: int = 512
    """Most requests in the house at a time; more are refused at once (503, Retry-After)."""
    max_connections: int = 2048
    """Most connections at a time; more are closed at once."""
    drain_seconds: int = 30
    """At TERM, requests that were begun have this time to be answered."""
    token_file: str = ""
    """File with a token that every request but those for health and metrics must bring, as in
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
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)}: expected more than 0")
        if not 0 < self.max_probability_difference < 1:
            raise ConfigError(
                f"max_probability_difference={self.max_probability_difference}: expected between 0 and 1"
            )
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ConfigError(f"precision={self.precision!r}: expected one of auto, bf16, fp32")
