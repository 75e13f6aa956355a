"""`python -m verl.model_merger merge --local_dir DIR --target_dir DIR`: the shard is the model."""

import sys
from pathlib import Path

options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
target = Path(options["--target_dir"])
target.mkdir()
shard = Path(options["--local_dir"]) / "model_world_size_1_rank_0.pt"
(target / "model.safetensors").write_bytes(shard.read_bytes())
