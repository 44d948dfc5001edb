"""A training step on a CUDA device that is not there: its kernels, bytes, FLOPs, copies and waits, from shapes alone.

torch's fake tensors have a shape, a type and a device, but no values. A build of torch for CPUs has them on device="cuda"
too, except for backward, which asks for a device guard. benchmarks/fake_cuda.cpp is one that does nothing (compiled in
seconds with the machine's C++ compiler). So the real code of a step runs as it would on a GPU, and a `Watch` sees every
operation that torch dispatches:

    lines of host code       run for real (layouts, packing, masks), so that shapes are true
    operations on the device give fake tensors; each that is not a view counts as one kernel, which reads its inputs and
                             writes its outputs once
    copies to the device     recorded; one that is not from pinned memory or not `non_blocking` makes the host wait
    reads by the host        recorded with the line of ours that asked; the value read is 1

What no fake tensor can show: that a kernel's numbers are right, that its shapes are accepted, and how fast it is.
"""

import os
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from common.errors import UserError
from common.launch import ROOT

SOURCE = Path(__file__).with_suffix(".cpp")
DEVICE = torch.device("cuda", 0)
# Operations that only look at memory from another angle, or reserve it: no kernel runs.
VIEWS = frozenset([
    "view", "t", "transpose", "slice", "select", "unbind", "split", "split_with_sizes", "expand", "permute",
    "unsqueeze", "squeeze", "detach", "alias", "_unsafe_view", "as_strided", "reshape", "_reshape_alias", "chunk",
    "diagonal", "narrow", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
    "is_pinned", "sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "numel", "size", "stride",
    "storage_offset", "is_contiguous", "device", "layout", "result_type", "is_same_size", "set_", "resize_",
])  # fmt: skip
WRITES_ONLY = frozenset([
    "zeros", "ones", "full", "arange", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full",
    "zero_", "fill_",
])  # fmt: skip
# These read as many elements as they write, not the whole table.
PICKS = frozenset([
    "embedding", "index", "index_select", "gather",
])  # fmt: skip
READS = frozenset([
    "_local_scalar_dense", "equal", "nonzero", "is_nonzero", "item", "masked_select", "unique", "unique_consecutive",
])  # fmt: skip


def why_not() -> str | None:
    """Why this machine cannot pretend to have a CUDA device; None if it can."""
    if torch.version.cuda is not None:
        return f"torch {torch.__version__} is a CUDA build, which has a device guard of its own: tests/gpu runs on the device"
    if compiler() is None:
        return "no C++ compiler (c++, g++ or clang++; or set CXX): the device guard of fake_cuda.cpp cannot be compiled"
    return None


def compiler() -> str | None:
    """The C++ compiler of this machine, None without one."""
    return next(
        (found for name in (os.environ.get("CXX"), "c++", "g++", "clang++") if name and (found := shutil.which(name))), None
    )


def library(folder: Path) -> Path:
    """The compiled guard in `folder`; made there if it is missing. UserError if it cannot be made."""
    if reason := why_not():
        raise UserError(f"no fake CUDA device: {reason}.")
    made = folder / "fake_cuda.so"
    if made.exists():
        return made
    torch_dir = Path(torch.__file__).parent
    places = [f"-I{torch_dir / 'include'}", f"-L{torch_dir / 'lib'}", f"-Wl,-rpath,{torch_dir / 'lib'}"]
    words = [
        compiler(),
        "-shared",
        "-fPIC",
        "-O0",
        "-w",
        "-std=c++20",
        str(SOURCE),
        "-o",
        f"{made}.part",
        *places,
        "-lc10",
        "-ltorch_cpu",
    ]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UserError(f"{SOURCE}: {words[0]} cannot compile it: {result.stderr.strip()[-600:]}")
    Path(f"{made}.part").rename(made)
    return made


def run_with_device(module: str, arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess:
    """Run `python -m module` in a process that has the fake device; `folder` keeps the compiled guard."""
    env = os.environ | {"LD_PRELOAD": str(library(folder)), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )


def pretend(capability: tuple[int, int] = (9, 0)) -> None:
    """Make torch.cuda answer as one device of this compute capability would. For a process that `run_with_device` began.

    With a real device only what fake tensors need is changed.
    """
    _foreach_utils._foreach_supported_types.append(FakeTensor)  # as a real tensor: one kernel for a list
    if torch.version.cuda is not None:
        return
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1
    torch.cuda.get_device_capability = lambda device=None: capability
    torch.cuda.is_bf16_supported = lambda including_emulation=True: capability[0] >= 8
    torch.cuda.set_device = lambda device: None
    torch.cuda.get_rng_state = lambda device=None: torch.zeros(16, dtype=torch.uint8)
    torch.cuda.set_rng_state = lambda state, device=None: None
    torch.cuda._lazy_init = lambda: None


def on_device(module: nn.Module) -> nn.Module:
    """`module` with fake parameters and buffers on the device. Built on "meta", it takes no memory at any size."""
    for part in module.modules():
        for own in (part._parameters, part._buffers):
            for name, value in own.items():
                if value is not None:
                    fake = torch.empty(value.shape, dtype=value.dtype, device=DEVICE)
                    own[name] = nn.Parameter(fake, value.requires_grad) if own is part._parameters else fake
    return module


@dataclass
class Kernel:
    """One operation on the device: the memory that it reads and writes ({number: bytes}), FLOPs of its products, shapes."""

    name: str
    reads: dict[int, int]
    writes: dict[int, int]
    flops: float
    shapes: list[tuple[int, ...]]

    @property
    def bytes(self) -> int:
        """Bytes read and written, each tensor once."""
        return sum(self.reads.values()) + sum(self.writes.values())


class Watch(TorchDispatchMode):
    """Runs what is inside on the fake device and counts it.

    log: every kernel, in order. copies: number of pinned, asynchronous copies to the device. waits: (what, line of ours) of
    each copy or read for which the host waits. mixed: operations on tensors of two devices.
    """

    def __init__(self, pairs: Callable[[int, int, int], float] | None = None) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.pinned = WeakTensorKeyDictionary()
        self.pairs = pairs  # (queries, keys, window) to the number of (query, key) pairs of an attention kernel
        self.held: list[Any] = []
        self.forget()

    def forget(self) -> None:
        """Begin to count anew."""
        self.copies = 0
        self.waits: Counter = Counter()
        self.mixed: Counter = Counter()
        self.log: list[Kernel] = []
        # So that no memory gets the number of another. Weak, because a gradient that somebody else holds is copied.
        self.numbers: dict[int, StorageWeakRef] = {}

    @property
    def kernels(self) -> int:
        """Number of kernels."""
        return len(self.log)

    @property
    def bytes(self) -> int:
        """Bytes that the kernels read and write."""
        return sum(kernel.bytes for kernel in self.log)

    def __enter__(self) -> "Watch":
        self.held.append(torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(x, device="cuda"): made on the host, then copied, as it is
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        torch._C._set_only_lift_cpu_tensors(self.held.pop())
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = [x for x in given if isinstance(x, FakeTensor)]
        goal = kwargs.get("device")
        to_device = goal is not None and torch.device(goal).type == "cuda"
        if name == "is_pinned":
            return given[0] in self.pinned
        if name == "_pin_memory":
            copy = given[0].clone()
            self.pinned[copy] = True
            return copy
        if not ours and not to_device:
            return func(*args, **kwargs)  # the host's own work
        if ours and name in READS:
            self.waits[f"read ({name})", where()] += 1
            return True if name in ("equal", "is_nonzero") else 1.0 if ours[0].is_floating_point() else 1
        if ours and goal is not None and not to_device:
            self.waits["copy to the host", where()] += 1
            return torch.ones(ours[0].shape, dtype=kwargs.get("dtype") or ours[0].dtype)
        if name == "copy_" and not isinstance(given[0], FakeTensor):
            if not kwargs.get("non_blocking", args[2] if len(args) > 2 else False):
                self.waits["copy to the host", where()] += 1
            return given[0]
        moved = [x for x in given if not isinstance(x, FakeTensor) and (x.dim() or name in ("_to_copy", "copy_"))]
        if moved and name in ("_to_copy", "copy_"):
            asynchronous = kwargs.get("non_blocking", args[2] if name == "copy_" and len(args) > 2 else False)
            if moved[0] in self.pinned and asynchronous:
                self.copies += 1
            else:
                self.waits[
                    "copy to the device from memory that is not pinned" if asynchronous else "copy to the device", where()
                ] += 1
        elif moved:
            self.mixed[name, where()] += 1
        with self.fake:
            out = func(*tree_map(self.faked, args), **tree_map(self.faked, kwargs))
        if name not in VIEWS:
            self.count(func, name, args, kwargs, ours, out)
        return out

    def faked(self, x: Any) -> Any:
        """A tensor of the host as a fake one on the host; anything else as it is."""
        return self.fake.from_tensor(x) if isinstance(x, Tensor) and not isinstance(x, FakeTensor) else x

    def count(self, func: Any, name: str, args: tuple, kwargs: dict, inputs: list[Tensor], out: Any) -> None:
        """One kernel more in the log."""
        results = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        changed = [part.alias_info is not None and part.alias_info.is_write for part in func._schema.arguments]
        given = [x for x, write in zip(args, changed, strict=False) if write]  # lists of tensors, which are changed in place
        writes = {number(x): size(x) for x in [*results, *tree_leaves(given)] if isinstance(x, Tensor)}
        reads = {} if name in WRITES_ONLY else {number(x): size(x) for x in inputs}
        if name in PICKS:
            reads[number(inputs[0])] = sum(size(x) for x in results)
        shapes = [tuple(x.shape) for x in [*inputs, *results]]
        for x in results:
            self.numbers.setdefault(number(x), StorageWeakRef(x.untyped_storage()))
        self.log.append(Kernel(name, reads, writes, self.flops_of(func, name, args, kwargs, out), shapes))

    def flops_of(self, func: Any, name: str, args: tuple, kwargs: dict, out: Any) -> float:
        """FLOPs of a matrix product or attention, 0 for any other operation."""
        if "varlen_attn" in name:
            if self.pairs is None:
                return 0.0
            given = dict(zip((part.name for part in func._schema.arguments), args, strict=False)) | kwargs
            q, k, window = given["query"], given["key"], (given.get("window_size") or [-1])[0]
            # Two products forward; backward makes the scores again and has four of its own (arXiv 2307.08691).
            products = 5 if name.endswith("backward") else 2
            return products * 2 * q.shape[1] * q.shape[2] * self.pairs(len(q), len(k), window)
        counted = flop_registry.get(func.overloadpacket)
        return float(counted(*args, **kwargs, out_val=out)) if counted else 0.0

    def seen(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "kernels": self.kernels,
            "gigabytes": self.bytes / 1e9,
            "teraflops": sum(kernel.flops for kernel in self.log) / 1e12,
            "copies": self.copies,
            "waits": [f"{what}, {line} ({count} times)" for (what, line), count in self.waits.items()],
            "mixed": [f"{what}, {line}" for what, line in self.mixed],
        }


def number(x: Tensor) -> int:
    """The number of the memory behind a tensor; its views have the same."""
    return x.untyped_storage()._cdata


def size(x: Tensor) -> int:
    """Bytes of a tensor; an expanded one counts what it really holds."""
    elements = 1
    for length, step in zip(x.shape, x.stride(), strict=True):
        elements *= length if step else 1
    return elements * x.element_size()


def where() -> str:
    """The innermost line of this project that is being run, outside this file."""
    for frame in reversed(traceback.extract_stack()):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and path != Path(__file__) and "tests" not in path.parts:
            return f"{path.relative_to(ROOT)}:{frame.lineno}"
    return "?"
