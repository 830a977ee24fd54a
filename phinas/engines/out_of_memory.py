"""Telling that the memory was too small, which is expected, from every other error."""

from __future__ import annotations

import torch


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host ran out of memory: exceptions of their own, or messages of PyTorch, ONNX Runtime."""
    signs = (
        "DefaultCPUAllocator",
        "Storage size calculation overflowed",  # more bytes than 64 bits can count
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "Failed to allocate memory",
    )
    own = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return own or any(sign in str(error) for sign in signs)
