"""What ranks exchange, seen in this very process: a group of one, over gloo."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from prottune.errors import ConfigError
from prottune.training.ranks import exchange_as_bf16


class Deaf(torch.distributed.ProcessGroup):
    """A way to talk that sums nothing but fp32."""

    def allreduce(self, tensors: list[torch.Tensor], options: object) -> object:
        if tensors[0].dtype != torch.float32:
            raise RuntimeError("Invalid\nscalar type")
        raise AssertionError("nothing else is exchanged here")


@pytest.fixture
def alone() -> Iterator[None]:
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def gradients(shared: torch.nn.Module) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shared(torch.randn(5, 7)).pow(2).sum().backward()
    return [parameter.grad.clone() for parameter in shared.parameters() if parameter.grad is not None]


def linear() -> DistributedDataParallel:
    torch.manual_seed(1)
    return DistributedDataParallel(
        torch.nn.Linear(7, 3), broadcast_buffers=False, gradient_as_bucket_view=True
    )


def test_compressed_gradients_are_the_exact_ones_rounded_to_bf16(alone: None) -> None:
    exact = gradients(linear())
    compressed = linear()
    exchange_as_bf16(compressed)
    found = gradients(compressed)
    assert not any(torch.equal(gradient, gradient.bfloat16().float()) for gradient in exact)
    for expected, gradient in zip(exact, found, strict=True):
        assert torch.equal(gradient, expected.bfloat16().float())


def test_a_backend_that_cannot_sum_bf16_is_refused_by_name() -> None:
    torch.distributed.Backend.register_backend("deaf", lambda *_: Deaf(0, 1), devices=["cpu"])
    torch.distributed.init_process_group("deaf", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ConfigError, match=r"compress_gradients=True: .* deaf, .*\(Invalid scalar type\)"):
            exchange_as_bf16(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    finally:
        torch.distributed.destroy_process_group()
