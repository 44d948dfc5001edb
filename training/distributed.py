"""Ranks: one process alone, or several started by torchrun, with the same code."""

import os
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.errors import UserError


@dataclass
class Ranks:
    """This process among its peers."""

    rank: int
    world: int
    device: torch.device
    host_group: dist.ProcessGroup | None = None  # gloo, for numbers that live on the host
    clock_group: dist.ProcessGroup | None = None  # gloo, for the thread that plans steps ahead

    @property
    def first(self) -> bool:
        """Whether this is the one process that writes files and talks to the user."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of `values` over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def host_sum(self, *values: float) -> list[float]:
        """Sums of host numbers over all ranks, through the host: nothing on the device is waited for."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.host_group)
        return tensor.tolist()

    def of_first(self, value: float) -> float:
        """The first rank's `value`, on every rank; in a group of its own, so that one other thread may call it."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(tensor, 0, group=self.clock_group)
        return float(tensor)

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.world > 1:
            dist.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over ranks at the end of backward; itself where there is one rank."""
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def close(self) -> None:
        """Leave the group."""
        if self.world > 1:
            dist.destroy_process_group()


def start(device: str) -> Ranks:
    """Join the group that torchrun describes in the environment, or stand alone. `device`: auto, cpu or cuda."""
    world, rank, local = (int(os.environ.get(name, default)) for name, default in
                          (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0)))  # fmt: skip
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={device}: choose auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch sees no CUDA device. Set device=cpu, or install a CUDA build of torch.")
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    place = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(place)
    if world == 1:
        return Ranks(rank, world, place)
    dist.init_process_group("nccl" if use_cuda else "gloo")
    return Ranks(rank, world, place, dist.new_group(backend="gloo"), dist.new_group(backend="gloo"))


def without_sync(model: nn.Module, last: bool):
    """Context for a micro-batch: only the last of a step exchanges gradients."""
    return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()


def bare(model: nn.Module) -> nn.Module:
    """The model without what wraps it (DDP, torch.compile)."""
    model = getattr(model, "module", model)
    return getattr(model, "_orig_mod", model)
