"""`python -m verl.trainer.main_ppo KEY=VALUE …`, order of events as in verl 0.9.1's `PPOTrainer.fit`.

The environment variable FAKE_VERL is a JSON list with one object per start (none: no fault):
`at` (step) and `fault`: `die` (in the step), `unlogged` (checkpoint written, step not logged), `full` (the disk, while
saving), `shard` (one shard is not written), `stall`, `nan`, `equal` (all rewards equal), `leave` (ends with status 0),
`missing` (an output is missing).
"""

import json
import os
import pickle
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file


def plain(text: str) -> str:
    return text[1:-1].replace("\\'", "'") if text.startswith("'") else text


config = {key.lstrip("+"): plain(value) for key, _, value in (a.partition("=") for a in sys.argv[1:])}
root = Path(config["trainer.default_local_dir"])
sampled = Path(config["trainer.v1.sampler.sampler_kwargs.folder"])
batch, group = int(config["data.train_batch_size"]), int(config["actor_rollout_ref.rollout.n"])
steps, every = int(config["trainer.total_training_steps"]), int(config["trainer.save_freq"])

started = Path("fake-starts.json")
starts = json.loads(started.read_text("utf-8")) if started.is_file() else []
tracker = root / "latest_checkpointed_iteration.txt"
first = int(tracker.read_text("utf-8")) if tracker.is_file() else 0
started.write_text(json.dumps([*starts, first]), "utf-8")
faults = json.loads(os.environ.get("FAKE_VERL", "[]"))
fault = faults[len(starts)] if len(starts) < len(faults) else {}


def dump(partition: str, step: int, rows: list, size: int) -> None:
    lines = []
    for number, row in enumerate(rows):
        for session in range(size):
            score = 0.5 if fault.get("fault") == "equal" else (number + session + step) % 7 / 10
            lines.append(
                {
                    "group": f"uid-{number}",
                    "session": session,
                    "output": f"output {session}",
                    "tokens": 3,
                    "score": score,
                    "measures": {
                        **dict.fromkeys(("correctness", "recall"), score),
                        "format": 1.0,
                        "items": 2.0,
                        "duplicates": 0.0,
                        "finished": 1.0,
                    },
                    "ground_truth": row["reward_model"]["ground_truth"],
                }
            )
    if hits("missing", step):
        lines.pop()
    (sampled / partition).mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (sampled / partition / f"{step}.jsonl").write_text(text, "utf-8")


def hits(kind: str, step: int) -> bool:
    return fault.get("fault") == kind and fault["at"] == step


def archive(path: Path, data: bytes) -> None:
    """As `torch.save` makes them, without torch: a pickle, and the bytes of a tensor."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"kind": path.stem}, protocol=2))
        file.writestr("archive/data/0", data)
        file.writestr("archive/version", "3\n")


def save(step: int) -> None:
    actor = root / f"global_step_{step}" / "actor"
    (actor / "huggingface").mkdir(parents=True, exist_ok=True)
    weights = load_file(Path(config["actor_rollout_ref.model.path"]) / "model.safetensors")
    save_file({k: v + np.float32(step) for k, v in weights.items()}, actor / "huggingface" / "model.safetensors")
    if hits("full", step):
        raise OSError(28, "No space left on device")
    (actor / "huggingface" / "config.json").write_text("{}", "utf-8")
    (actor / "fsdp_config.json").write_text('{"FSDP_version": 2, "world_size": 1}', "utf-8")
    for kind in ("model", "optim", "extra_state"):
        if kind != "optim" or not hits("shard", step):
            data = (actor / "huggingface" / "model.safetensors").read_bytes()
            archive(actor / f"{kind}_world_size_1_rank_0.pt", data)
    archive(root / f"global_step_{step}" / "data.pt", b"position")
    tracker.write_text(str(step), "utf-8")


rows = pq.read_table(config["data.train_files"]).to_pylist()
held_out = pq.read_table(config["data.val_files"]).to_pylist()
assert len(rows) == steps * batch
with Path(os.environ["VERL_FILE_LOGGER_PATH"]).open("w", encoding="utf-8", buffering=1) as log:
    if config["trainer.val_before_train"] == "true":
        dump("val", first, held_out, 1)
        log.write(json.dumps({"step": first, "data": {"val-core/x/reward/mean@1": 0.1}}) + "\n")
    for step in range(first + 1, steps + 1):
        if hits("leave", step):
            sys.exit(0)
        if hits("die", step):
            print("ray.exceptions.ActorDiedError: The actor died because its worker process has died")
            sys.exit(1)
        while hits("stall", step):
            time.sleep(0.2)
        dump("train", step, rows[(step - 1) * batch : step * batch], group)
        saving = step % every == 0 or step == steps
        if saving:
            save(step)
        if saving and int(config["trainer.test_freq"]) > 0:
            dump("val", step, held_out, 1)
        if hits("unlogged", step):
            os.kill(os.getpid(), 9)
        loss = None if hits("nan", step) else 0.1 / step
        data = {"training/global_step": step, "actor/pg_loss": loss, "actor/grad_norm": 1.0, "timing_s/step": 0.5}
        log.write(json.dumps({"step": step, "data": data}) + "\n")
