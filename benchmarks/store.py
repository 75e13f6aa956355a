"""The store against what one would write without it: a loop over the plain client, and `mlflow.log_artifacts`.

    python benchmarks/store.py                       # 2 GB, 10,000 samples, a MinIO server of its own
    python benchmarks/store.py --megabytes 200 --samples 1000 --rounds 3

Each pair is measured in turn in the same run, against the same server and disk; of several rounds the best counts, for
both sides. What is compared:

- model: `upload_directory`/`download_directory` (SHA-256 of every file before and after, resumable, manifest last) with
  `fput_object`/`fget_object` for one file after the other (no digests);
- samples: parts of 64 rows with their images as stages write them (`StageContext.write_part`: Parquet, conditional
  create) with one `fput_object` per image and one JSON Lines file of the rows;
- registering a model that is in the store: `Registry.register` (by reference) with `mlflow.log_artifacts`, on SQLite;
- for orientation the same model into a directory store (digests, fsync) and through `shutil.copytree` (neither).

Wall-clock time is what a user waits for; processor time (of this process and the server) is what can be compared on a
machine that does other things as well.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

from minio import Minio

from viper.registry import Registry, sqlite_uri
from viper.stage import StageContext
from viper.store import (
    DirectoryStore,
    ObjectStore,
    directory_digest,
    download_directory,
    open_store,
    upload_directory,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from servers.running import CREDENTIALS, MinioServer

PART_ROWS = 64
LINE = "{:36}" + "{:>9}" * 6
SHARDS = 4


class Bench:
    """Times pairs of (ours, plain) and keeps the best of several rounds."""

    def __init__(self, rounds: int, server: MinioServer, work: Path) -> None:
        self.rounds, self.server, self.work = rounds, server, work
        self.rows: list[dict[str, Any]] = []

    def pair(self, name: str, ours: Callable[[int], object], plain: Callable[[int], object]) -> None:
        """Both get the number of the round, so that each writes to a fresh place. The order alternates."""
        wall, cpu = {"ours": math.inf, "plain": math.inf}, {"ours": math.inf, "plain": math.inf}
        for number in range(self.rounds):
            sides = [("ours", ours), ("plain", plain)]
            for side, work in sides if number % 2 else reversed(sides):
                started, used = time.perf_counter(), self._cpu()
                work(number)
                wall[side] = min(wall[side], time.perf_counter() - started)
                cpu[side] = min(cpu[side], self._cpu() - used)
        row = {"what": name}
        for kind, times in (("wall", wall), ("cpu", cpu)):
            row |= {f"{kind}_ours_s": times["ours"], f"{kind}_plain_s": times["plain"]}
            row |= {f"{kind}_ratio": times["plain"] / max(times["ours"], 0.001)}
        self.rows.append(row)
        print(LINE.format(name, *(f"{value:.2f}" for value in list(row.values())[1:])), flush=True)

    def _cpu(self) -> float:
        """Processor seconds of this process and the server (Linux: fields 14 and 15 of /proc/PID/stat)."""
        fields = Path(f"/proc/{self.server.pid}/stat").read_text().rpartition(")")[2].split()
        return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def make_model(folder: Path, megabytes: int) -> Path:
    """A model directory as Transformers saves it: a few large shards and small JSON files."""
    folder.mkdir(parents=True)
    block = os.urandom(1 << 20)
    for shard in range(SHARDS):
        with (folder / f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors").open("wb") as file:
            for number in range(megabytes // SHARDS):
                file.write(number.to_bytes(8, "little") + block[8:])
    for name in ("config.json", "generation_config.json", "tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps({"name": name}) * 50)
    return folder


def make_samples(folder: Path, count: int, kilobytes: int) -> list[dict[str, Any]]:
    """Rows like those of `synthesize-captions`; every image is a file too, for the loop that uploads files."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(count):
        image = os.urandom(kilobytes << 10)
        (folder / f"{number:06d}.png").write_bytes(image)
        caption = f"A red square left of a blue circle on grey, number {number}. " * 6
        rows.append(
            {
                "id": f"{number:064x}",
                "caption": caption,
                "image": image,
                "accepted": True,
                "reason": "",
                "number": number,
            }
        )
    return rows


def stage(store: ObjectStore, prefix: str, work: Path) -> StageContext:
    """A stage that only writes and reads parts: of the frozen iteration it needs the key prefix."""
    return StageContext(frozen=cast(Any, SimpleNamespace(prefix=prefix)), store=store, stage="samples", work_dir=work)


def models(bench: Bench, store: ObjectStore, client: Minio, model: Path) -> None:
    bucket, work = bench.server.bucket, bench.work

    def fput(number: int) -> None:
        for path in sorted(model.iterdir()):
            client.fput_object(bucket, f"plain/model-{number}/{path.name}", str(path))

    def fget(number: int) -> None:
        for path in sorted(model.iterdir()):
            target = work / f"plain-{number}" / path.name
            client.fget_object(bucket, f"plain/model-{number}/{path.name}", str(target))

    directory = DirectoryStore(work / "directory")
    bench.pair("MinIO: write the model", lambda n: upload_directory(store, f"model-{n}", model), fput)
    bench.pair("MinIO: read the model", lambda n: download_directory(store, f"model-{n}", work / f"ours-{n}"), fget)
    for number in range(bench.rounds):
        shutil.rmtree(work / f"plain-{number}")
        shutil.rmtree(work / f"ours-{number}")
    bench.pair(
        "directory: write the model, copytree",
        lambda n: upload_directory(directory, f"model-{n}", model),
        lambda n: shutil.copytree(model, work / f"copy-{n}"),
    )
    for number in range(bench.rounds):
        shutil.rmtree(work / f"copy-{number}")


def samples(bench: Bench, store: ObjectStore, client: Minio, rows: list[dict[str, Any]], images: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as _  # noqa: F401 (imported before anything is timed)

    bucket, work = bench.server.bucket, bench.work
    kinds = {str: pa.string(), bytes: pa.binary(), bool: pa.bool_(), int: pa.int64()}
    schema = pa.schema([(name, kinds[type(value)]) for name, value in rows[0].items()])
    parts = [rows[start : start + PART_ROWS] for start in range(0, len(rows), PART_ROWS)]

    def write(number: int) -> None:
        context = stage(store, f"it-{number}", work)
        for index in context.pending(len(parts)):
            context.write_part(index, parts[index], schema)

    def read(number: int) -> None:
        context = stage(store, f"it-{number}", work)
        count = 0
        for index in range(len(parts)):
            record = context.part(index)
            assert record is not None
            count += sum(len(row["image"]) > 0 for row in context.table("samples", record).to_pylist())
        assert count == len(rows)

    def fput(number: int) -> None:
        for path in sorted(images.iterdir()):
            client.fput_object(bucket, f"plain/samples-{number}/{path.name}", str(path))
        lines = work / "rows.jsonl"
        lines.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "image"}) + "\n" for row in rows))
        client.fput_object(bucket, f"plain/samples-{number}/rows.jsonl", str(lines))

    def fget(number: int) -> None:
        target = work / f"plain-samples-{number}"
        for name in [path.name for path in images.iterdir()] + ["rows.jsonl"]:
            client.fget_object(bucket, f"plain/samples-{number}/{name}", str(target / name))
        count = sum(
            len((target / f"{json.loads(line)['number']:06d}.png").read_bytes()) > 0
            for line in (target / "rows.jsonl").open()
        )
        assert count == len(rows)

    bench.pair(f"MinIO: write {len(rows):,} samples", write, fput)
    bench.pair(f"MinIO: read {len(rows):,} samples", read, fget)


def registering(bench: Bench, store: ObjectStore, model: Path) -> None:
    import mlflow

    registry = Registry(sqlite_uri(bench.work))
    digest = directory_digest(model)
    registry.experiment("bench")
    registry.register("warm-up", store.uri, digest)
    mlflow.set_tracking_uri(registry.uri)
    mlflow.set_experiment("bench")

    def log(_: int) -> None:
        with mlflow.start_run():
            mlflow.log_artifacts(str(model), "model")

    bench.pair("register the model, log_artifacts", lambda n: registry.register(f"model-{n}", store.uri, digest), log)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=2048, help="size of the model directory (default 2048)")
    parser.add_argument("--samples", type=int, default=10_000, help="number of samples (default 10000)")
    parser.add_argument("--image-kilobytes", type=int, default=8, help="size of a sample's image (default 8)")
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many rounds counts (default 1)")
    parser.add_argument("--work", type=Path, help="where to work (default: a temporary directory)")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        work = Path(folder)
        server = MinioServer(work / "minio")
        server.start()
        try:
            bench = Bench(arguments.rounds, server, work)
            store = open_store(server.uri("ours"))
            credentials = list(CREDENTIALS.values())
            client = Minio(urlsplit(server.url).netloc, *credentials, secure=False)
            model = make_model(work / "model", arguments.megabytes)
            rows = make_samples(work / "images", arguments.samples, arguments.image_kilobytes)
            print(LINE.format("seconds", "ours", "plain", "ratio", "ours", "plain", "ratio"))
            print(LINE.format("", "wall", "wall", "wall", "cpu", "cpu", "cpu"))
            samples(bench, store, client, rows, work / "images")
            models(bench, store, client, model)
            registering(bench, store, model)
        finally:
            server.kill()
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.rows, indent=1))


if __name__ == "__main__":
    main()
