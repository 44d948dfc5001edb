"""Memory of a step on a CPU (freed blocks stay, kernels are kept once); one that needs too much is told in one line."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator

import torch

from common.errors import UserError
from training.tracking import peak_memory

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's mallopt
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
# What torch's allocators and numpy say of a request that could not be met.
WANTED = re.compile(r"(?:ried to allocate|Unable to allocate) ([\d.]+) (bytes|KiB|MiB|GiB|TiB)")
FAILED = ("can't allocate memory", "out of memory", "bad_alloc", "Unable to allocate")


def keep_freed_blocks() -> bool:
    """Let freed memory stay with the process; False where the C library is not glibc.

    By default glibc requests every block above 32 MB from the system and returns it at once, and the system clears its
    pages each time. That was 0.48 s of the 1.24 s of CPU time for the loss of 590 positions x 64,000 tokens (bf16, one
    thread); with the blocks kept the loss takes 0.83 s. Other allocators (jemalloc, macOS) do not need this.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(M_MMAP_THRESHOLD, 1 << 30) and libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
    return False


def keep_kernels_once() -> None:
    """Let torch keep no second copy of oneDNN's kernels; LRU_CACHE_CAPACITY keeps a value of the user's own.

    In bf16 on a CPU oneDNN makes a kernel of about 0.35 MB for each new shape of a product and keeps 1,024 of them. torch (its
    ideep) holds on to them in a cache of its own, also of 1,024, which saves nothing: with a capacity of 1 the same 444
    kernels were made and the same 9,536 found again in 60 steps of modern 4 x 256 (2,048 tokens, demo text, bf16, one thread),
    and the peak was 601 MiB instead of 695. oneDNN's own cache stays as it is: with ONEDNN_PRIMITIVE_CACHE_CAPACITY=256 as
    well the peak was 564, but it made twice the kernels in the last 15 steps, some 2 % of the time of all products, and
    with 128 a tenth. Both capacities are read at the first product, so this comes before it.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "1")


def lacked(error: BaseException) -> int | None:
    """Bytes that could not be allocated (0: not said); None if the error is no lack of memory."""
    said = str(error)
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(words in said for words in FAILED):
        return None
    found = WANTED.search(said)
    return int(float(found[1]) * UNITS[found[2]]) if found else 0


@contextlib.contextmanager
def told_out_of_memory(device: torch.device, key: str, value: int) -> Iterator[None]:
    """A lack of memory in the block is a UserError: what the step needed, and the setting `key` that lowers it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if (wanted := lacked(error)) is None:
            raise
        held = peak_memory(device)
        more = f" and asked for {wanted / 2**20:,.0f} MiB more" if wanted else " and asked for more"
        raise UserError(
            f"out of memory on {device.type}: a step had {held / 2**20:,.0f} MiB{more}. Lower {key} (now {value}): a step "
            "then reads as much text in more passes, each with less memory, and the result is as good."
        ) from None
