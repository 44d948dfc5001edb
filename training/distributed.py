"""Ranks: a single process, or several started by torchrun, with the same code."""

import datetime
import os
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.errors import UserError
from training.memory import keep_freed_blocks, keep_kernels_once

PATIENCE = datetime.timedelta(hours=48)  # how long ranks wait while the first one prepares data or scores tasks


@dataclass
class Ranks:
    """This process and its relation to the others."""

    rank: int
    world: int
    device: torch.device
    host_group: dist.ProcessGroup | None = None  # gloo, for numbers on the host
    clock_group: dist.ProcessGroup | None = None  # gloo, for the thread that plans steps ahead
    wait_group: dist.ProcessGroup | None = None  # gloo, for long waits, such as for the building of a corpus

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and prints messages."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of `values` over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def host_sum(self, *values: float) -> list[float]:
        """Sums of host numbers over all ranks, without waiting for the device."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.host_group)
        return tensor.tolist()

    def of_first(self, value: float) -> float:
        """The first rank's `value`, on every rank; in its own group, so that one other thread may call it."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(tensor, 0, group=self.clock_group)
        return float(tensor)

    def wait(self) -> None:
        """Wait on the host until all ranks are here, for up to PATIENCE: NCCL would give up after ten minutes."""
        if self.world > 1:
            dist.barrier(group=self.wait_group)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model with its gradients averaged over ranks at the end of backward; unchanged for one rank."""
        if self.world == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)

    def close(self) -> None:
        """Leave the process group."""
        if self.world > 1:
            dist.destroy_process_group()


def start(device: str) -> Ranks:
    """Join the group that torchrun describes in the environment, or be the only rank. `device`: auto, cpu or cuda."""
    world, rank, local = (
        int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
    )
    told, many = "WORLD_SIZE" in os.environ, int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if many > 1 and not told:
        raise UserError(
            f"srun started {many} processes and none was told of the others, so each would train alone. For one run on all of "
            "them set RANK, LOCAL_RANK and WORLD_SIZE as docs/slurm.md does; for one process use srun -n1."
        )
    if device == "mps":
        raise UserError(
            "device=mps: Apple's GPUs are not supported; nothing here was ever tested on one. Set device=cpu (auto does so)."
        )
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device={device}: choose auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch sees no CUDA device. Set device=cpu, or install a CUDA build of torch.")
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if use_cuda and local >= torch.cuda.device_count():
        raise UserError(
            f"LOCAL_RANK={local}, but this machine has {torch.cuda.device_count()} CUDA device(s): one rank needs one of its "
            "own. Start torchrun with that --nproc-per-node, or set device=cpu."
        )
    place = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(place)
    if world == 1:
        return Ranks(rank, world, place)
    dist.init_process_group("nccl" if use_cuda else "gloo", device_id=place if use_cuda else None)
    host, clock = (dist.new_group(backend="gloo") for _ in range(2))
    return Ranks(rank, world, place, host, clock, dist.new_group(backend="gloo", timeout=PATIENCE))


def without_sync(model: nn.Module, last: bool):
    """Context for a micro-batch: only the last of a step exchanges gradients."""
    return nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()


def bare(model: nn.Module) -> nn.Module:
    """The model without its wrappers (DDP, torch.compile)."""
    model = getattr(model, "module", model)
    return getattr(model, "_orig_mod", model)


def only_device(device: str, threads: int | None) -> torch.device:
    """The device of a script that runs on one, its threads set. UserError under torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("fine-tuning runs on one device. Start it without torchrun; spread tasks with python finetune.py -m.")
    if threads:
        torch.set_num_threads(threads)
    keep_freed_blocks()
    keep_kernels_once()
    return start(device).device
