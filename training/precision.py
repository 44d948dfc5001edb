"""The number format for computations: bf16 if the hardware has matrix units for it, otherwise fp32."""

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


def cpu_has_bf16() -> bool:
    """Whether this machine's CPU has instructions for bf16 products; False where Linux does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return any(flag in flags.split() for flag in ("avx512_bf16", "amx_bf16", "bf16"))
