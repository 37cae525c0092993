"""Batch buffers that are used again as soon as nobody looks at them.

A fresh allocation of a batch costs page faults, up to a millisecond a megabyte. A buffer lent from
here comes back by itself when the last tensor or array that shows it is gone, so a batch that
somebody keeps is never overwritten.
"""

from __future__ import annotations

import weakref
from collections import deque

import torch
from torch import Tensor


class BufferPool:
    """Tensors of one shape and dtype in host memory, pinned where a CUDA device will read them."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape = shape
        self.dtype = dtype
        self._pinned = torch.cuda.is_available()
        self._free: deque[Tensor] = deque()

    def take(self) -> Tensor:
        """An uninitialised tensor."""
        if self._pinned:
            # torch keeps pinned blocks itself, and knows when a copy that is under way has ended
            return torch.empty(self.shape, dtype=self.dtype, pin_memory=True)
        try:
            owner = self._free.popleft()
        except IndexError:  # no question first: another thread may take the last one in between
            owner = torch.empty(self.shape, dtype=self.dtype)
        # The tensor that is lent shares the array's memory and keeps this view of it alive.
        view = owner.numpy()[...]
        weakref.finalize(view, self._free.append, owner)
        return torch.from_numpy(view)
