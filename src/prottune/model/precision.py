"""Which number format a device computes in: bf16 where its hardware has it, else fp32; never fp16."""

from __future__ import annotations

import torch


def choose_precision(precision: str, device: torch.device | str) -> torch.dtype:
    """Turn a setting into torch's type; auto takes bf16 where the hardware multiplies in it, else fp32."""
    if precision == "fp32":
        return torch.float32
    if precision == "bf16" or _multiplies_in_bf16(torch.device(device)):
        return torch.bfloat16
    return torch.float32


def _multiplies_in_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
