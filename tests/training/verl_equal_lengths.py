"""Run by verl's interpreter: `[lengths of rows, passes]` in; out, what verl cuts a batch of such positions into."""

from __future__ import annotations

import json
import sys

import torch
from tensordict import TensorDict
from verl.utils import tensordict_utils
from verl.workers.engine import base as engine

lengths, passes = json.load(sys.stdin)
rows = [torch.arange(4 * n).reshape(4, n) + 100 * i for i, n in enumerate(lengths)]
batch = TensorDict({"position_ids": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}, batch_size=len(rows))
engine.maybe_fix_3d_position_ids(batch)
cut = [
    rows.tolist() for part in tensordict_utils.chunk_tensordict(batch, passes) for rows in part["position_ids"].unbind()
]
order = list(reversed(range(len(lengths))))
picked = tensordict_utils.index_select_tensor_dict(batch, order)["position_ids"].unbind()
print(
    json.dumps({"cut": cut, "picked": [p.tolist() for p in picked], "values": batch["position_ids"].values().tolist()})
)
