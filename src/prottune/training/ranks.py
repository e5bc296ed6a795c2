"""The processes that train together. The loop talks to `Ranks` and never asks how many there are."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from prottune.errors import ConfigError, HungError
from prottune.training.processes import launched_by_torchrun


@dataclass(frozen=True)
class Ranks:
    """This process's place among all that train."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this rank writes what only one may write."""
        return self.rank == 0

    def share_gradients(self, model: nn.Module, *, compress: bool = False) -> nn.Module:
        """Wrap a model so that every backward pass leaves the mean of all ranks' gradients on all of them.

        `compress` exchanges them as bf16.

        Raises: ConfigError if this machine's exchange cannot do that.
        """
        if self.world_size == 1:
            return model
        shared = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
        if compress:
            exchange_as_bf16(shared)
        return shared

    def keep_gradients(self, shared: nn.Module) -> AbstractContextManager[None]:
        """Inside, passes through a wrapped model add up this rank's own gradients and exchange none."""
        return shared.no_sync() if isinstance(shared, DistributedDataParallel) else nullcontext()

    def seed_generators(self, seed: int, step: int) -> None:
        """Start torch's random numbers anew: they depend on (seed, step, rank) and on nothing else.

        So a resumed run draws what an uninterrupted one draws, and no checkpoint holds a generator's state.
        """
        mixed = np.random.SeedSequence(seed, spawn_key=(step, self.rank)).generate_state(1, np.uint64)
        torch.default_generator.manual_seed(int(mixed[0]))  # not torch.manual_seed: it formats a stack trace
        if self.device.type == "cuda":
            torch.cuda.manual_seed(int(mixed[0]))

    def gather(self, number: Tensor) -> Tensor:
        """One number of every rank, in float64 on the host, indexed by rank."""
        mine = number.detach().to(self.device, torch.float64).reshape(1)
        if self.world_size == 1:
            return mine.cpu()
        everyones = mine.new_empty(self.world_size)
        torch.distributed.all_gather_into_tensor(everyones, mine)
        return everyones.cpu()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all ranks, bit for bit the same on each, on the host."""
        if self.world_size == 1:
            return tensor.cpu()
        total = tensor.to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.cpu()

    def tell(self, words: str) -> str:
        """What rank 0 says, on every rank; the others wait for it."""
        if self.world_size == 1:
            return words
        size = self.sum(torch.tensor([len(words.encode()) if self.leads else 0]))
        letters = torch.zeros(int(size), dtype=torch.uint8)
        if self.leads:
            letters = torch.tensor(list(words.encode()), dtype=torch.uint8)
        return bytes(self.sum(letters).tolist()).decode()


def exchange_as_bf16(shared: DistributedDataParallel) -> None:
    """Halve what the ranks send each other at every step: gradients travel, and are summed, as bf16.

    Raises: ConfigError if the ranks talk by something that cannot sum bf16.
    """
    device = next(shared.parameters()).device
    try:
        torch.distributed.all_reduce(torch.zeros(1, dtype=torch.bfloat16, device=device))
    except RuntimeError as error:
        raise ConfigError(
            f"compress_gradients=True: the processes talk by {torch.distributed.get_backend()}, which cannot "
            f"exchange bf16 here ({' '.join(str(error).split())}); leave the setting out"
        ) from error
    shared.register_comm_hook(None, _as_bf16)


def _as_bf16(group, bucket):  # type: ignore[no-untyped-def]  # torch takes annotated hooks for something else
    """Torch's hook under another name: under its own, torch refuses it without NCCL."""
    return bf16_compress_hook(group, bucket)


@contextmanager
def joined(timeout_seconds: float) -> Iterator[Ranks]:
    """Meet the other ranks that torchrun started (nccl on GPUs, gloo elsewhere); alone, be rank 0 of 1.

    Raises: ConfigError if a GPU machine has fewer GPUs than processes were asked for; HungError if one of the
        others keeps this one waiting for longer than the timeout.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = _device(local_rank)
    if not launched_by_torchrun(os.environ):
        yield Ranks(0, 1, device)
        return
    timeout = datetime.timedelta(seconds=timeout_seconds)
    try:
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
        yield Ranks(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)
    except RuntimeError as error:
        if "timed out" not in str(error).lower():
            raise
        raise HungError(
            f"rank {os.environ['RANK']} waited {timeout_seconds:g} s for the others: one of them has hung; "
            "start again, or raise rank_timeout_seconds if it was only slow"
        ) from error
    # Only after a good end: beside a rank that died, saying goodbye to it could wait for ever.
    torch.distributed.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"num_processes: process {local_rank + 1} has no GPU of its own, this node has "
            f"{torch.cuda.device_count()}; start one process a GPU"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
