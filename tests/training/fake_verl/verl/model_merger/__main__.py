"""`python -m verl.model_merger merge --local_dir DIR --target_dir DIR`: the shard is the model."""

import sys
import zipfile
from pathlib import Path

options = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
target = Path(options["--target_dir"])
target.mkdir()
shard = Path(options["--local_dir"]) / "model_world_size_1_rank_0.pt"
with zipfile.ZipFile(shard) as file:
    (target / "model.safetensors").write_bytes(file.read("archive/data/0"))
