"""What a machine computes with: the number format, bf16 if it has matrix units for it, and the kernels on a GPU."""

import os
import sys

import torch

from common.errors import UserError


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """torch.bfloat16 or torch.float32 for `precision` auto, bf16 or fp32. Weights and optimizer stay in fp32 either way.

    On CPU bf16 pays off only with hardware support (1.5-1.9x with avx512_bf16); emulated it is slower than fp32.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise UserError(f"precision={precision}: choose auto, bf16 or fp32.")
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if cpu_has_bf16() else torch.float32


def choose_kernels(deterministic: bool, flash_attention: str, device: torch.device, say: bool = True) -> str | None:
    """Choose the kernels of this process on a GPU; returns the FlashAttention that computes attention, None on a CPU.

    `deterministic`: kernels that add in a fixed order where torch has them, an error for an operation that has none. It must be
    set before the first matrix product. `flash_attention`: FA3 needs a Hopper GPU (compute capability 9.0) and the package
    flash_attn_interface; auto takes it where both are there. Without it torch's own FlashAttention-2 is used, and a line says
    so. FA3's backward has no fixed order, so `deterministic` keeps FA2. (torch.nn.attention.activate_flash_attention_impl)
    """
    if device.type != "cuda":
        return None
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS' own requirement
        torch.utils.deterministic.fill_uninitialized_memory = False  # costs a pass over every new tensor; none is read
    lacks = None
    if flash_attention == "FA2":
        return "FA2"
    if torch.cuda.get_device_capability(device) != (9, 0):
        if flash_attention == "auto":
            return "FA2"
        lacks = "this GPU is not a Hopper (compute capability 9.0)"
    elif deterministic:
        lacks = "deterministic=true, and its backward adds in any order"
    else:
        lacks = _activate_fa3()
    if lacks and say:
        print(f"attention: no FlashAttention-3 ({lacks}); torch's own FlashAttention-2 computes it", file=sys.stderr)
    return "FA2" if lacks else "FA3"


def _activate_fa3() -> str | None:
    """Activate FlashAttention-3 in torch; what is missing, None if nothing is."""
    try:
        from torch.nn.attention import activate_flash_attention_impl
    except ImportError:
        return f"torch {torch.__version__} cannot activate it; use 2.11 or newer"
    try:
        activate_flash_attention_impl("FA3")
    except ModuleNotFoundError as error:
        return f"the package {error.name} is not installed; build it from github.com/Dao-AILab/flash-attention, folder hopper"
    except (ImportError, RuntimeError, ValueError, AttributeError) as error:
        return " ".join(str(error).split())
    return None


def cpu_has_bf16() -> bool:
    """Whether this machine's CPU has instructions for bf16 products; False where Linux does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return any(flag in flags.split() for flag in ("avx512_bf16", "amx_bf16", "bf16"))
