"""A repair of verl 0.9.1, loaded into each of its processes by its own hook, `VERL_USE_EXTERNAL_MODULES`.

Rotary positions of images are rows of shape (4, L). torch takes L for the ragged dimension of a batch of them only when
the lengths differ; when all are equal it takes the 4 (pytorch issue 153238), and verl, which then says that it is L,
cannot cut the batch into passes. Importing this module replaces that place by one that lays the values out anew.
"""

from __future__ import annotations

from typing import Any

import torch
from verl.utils import tensordict_utils


def along_length(rows: Any) -> Any:
    """A jagged tensor (B, 4, L) with L as its ragged dimension, values (4, ΣL), whichever it was before."""
    values, offsets = rows.values(), rows.offsets()
    count = offsets.numel() - 1
    if int(offsets[-1]) != values.shape[0]:
        rows._ragged_idx = 2  # tensordict forgets it where tensors travel
        return rows
    return torch.nested.nested_tensor_from_jagged(
        values.unflatten(0, (count, -1)).transpose(0, 1).flatten(1),
        offsets=torch.arange(count + 1, device=offsets.device, dtype=offsets.dtype) * values.shape[1],
        jagged_dim=2,
    )


def repaired(data: Any) -> None:
    """verl's `maybe_fix_3d_position_ids`: makes the `position_ids` of a TensorDict ragged along L, in place."""
    if "position_ids" in data.keys():  # noqa: SIM118 - no mapping
        rows = data["position_ids"]
        if rows.dim() == 3 and rows.is_nested:
            data["position_ids"] = along_length(rows)


assert callable(tensordict_utils.maybe_fix_3d_position_ids)  # noqa: S101 - a verl without it needs no repair, or another
tensordict_utils.maybe_fix_3d_position_ids = repaired
