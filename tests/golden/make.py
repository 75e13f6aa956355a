"""Writes a golden set: what the release that runs this leaves behind. Run it once, from a checkout of that release.

    python tests/golden/make.py FOLDER     # a folder like /tmp/viper-0.1.0: URIs of that release hold it

`whole`: an iteration of the small world from the first image to the promoted version. `half`: one that was stopped
after `validate-captions`. `begun`: the same of the tests' fakes. `others`: forms that those do not have. Weights are
left out, and tokenizers: those of the starter are assets of the package, those of what was trained are not read again.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
LEFT_OUT = ("*.safetensors", "tokenizer.json", "README.md", "*.db", "*.lock", "report", "logs", "work", "mlartifacts")
LEFT_OUT += (".lock", ".processes", ".viper-tmp")


def spec(**recipe: Any) -> dict[str, Any]:
    """Eight images, four samples, one step."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.small_runs import small_demo

    made = small_demo(recipe, images=8)
    made["evaluation"]["limit"] = 4
    made["recipe"]["captions"]["samples"] = 4
    made["recipe"]["operations"] |= {"samples": 8, "editsPerImage": 2}
    return made


def run(folder: Path, name: str, fields: dict[str, Any], until: str = "") -> None:
    """`viper run`, interrupted when the manifest of the stage `until` is there."""
    file, target = folder / f"{name}.yaml", folder / name
    resource = {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperIteration",
        "metadata": {"name": name},
        "spec": fields,
    }
    file.write_text(yaml.safe_dump(resource), "utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "viper", "run", file, "--dir", target], env=environment)
    pause = threading.Event()
    while process.poll() is None:
        if until and (target / f"store/iterations/{name}/stages/{until}/manifest.json").exists():
            process.send_signal(signal.SIGINT)
            process.wait()
        for path in (target / "work").rglob("*.json"):  # checkpoints are gone when their stage is done
            if path.parent.name.startswith("step-") or path.name == "outcome.json":
                kept = folder / "others" / "checkpoints" / path.relative_to(target / "work")
                kept.parent.mkdir(parents=True, exist_ok=True)
                try:
                    shutil.copyfile(path, kept)
                except OSError:
                    continue
        pause.wait(0.05)
    connection = sqlite3.connect(target / "mlflow.db")
    dump = "\n".join(connection.iterdump()).encode()
    (target / "mlflow.sql.gz").write_bytes(gzip.compress(dump, 9, mtime=0))


def others(folder: Path) -> None:
    """Forms that need no model."""
    from PIL import Image

    from fakes import world
    from viper.ingest.stage import ingest
    from viper.iteration.freeze import load_frozen
    from viper.iteration.observe import StoreObserver
    from viper.modelcache.cache import CachedModel, ModelCache
    from viper.plan import plan
    from viper.spec.status import IterationStatus
    from viper.stage import StageContext
    from viper.stage.termination import leave_message
    from viper.store import open_store, upload_directory
    from viper.tasks.external.ingest import ingest_samples
    from viper_operator.status import Facts, iteration_status

    target = folder / "others"
    pictures = folder / "pictures"
    pictures.mkdir()
    for i in range(2):
        Image.new("RGB", (40, 40), (60 * i, 9, 9)).save(pictures / f"{i}.png")
    rows = [{"prompt": f"q{i}", "answer": ["one.", "two."], "images": [f"{i}.png"]} for i in range(2)]
    (pictures / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    store = open_store(target / "store")
    external = {"uri": (pictures / "rows.jsonl").as_uri(), "columns": {"groundTruth": "answer"}}
    one = world.frozen("it", images={"uri": pictures.as_uri()}, recipe={"external": external})
    world.write(store, one)
    for stage, work in (("ingest-images", ingest), ("ingest-samples", ingest_samples)):
        work(StageContext(one, store, stage, folder / "scratch"))
    model = world.model(folder / "model")
    digests = upload_directory(store, "models/m", model)
    cache = ModelCache(target / "cache")
    uri = "s3://bucket/models/m"
    cache._write_ref(CachedModel(uri, uri, digests.digest, digests.size, target))
    leave_message(target / "termination.json", "InputError", "samples.jsonl: row 7 has no image")
    whole = open_store(folder / "whole" / "store")
    frozen = load_frozen(whole, "whole")
    made = plan(frozen.iteration.spec, StoreObserver(whole, frozen).observe(), 0.0)
    facts = Facts(generation=1, retries=0, now=1767225600.0, store=f"{whole.uri}/iterations/whole", frozen=frozen)
    status = iteration_status(made, facts, IterationStatus())
    (target / "status.json").write_text(json.dumps(status.dump(), indent=1, sort_keys=True), "utf-8")


def begun(target: Path) -> None:
    """The first three stages of an iteration of the fakes, which an executor of any release can go on with."""
    from fakes import world
    from fakes.program import FakeStage
    from viper.stage import StageContext
    from viper.store import open_store

    store = open_store(target / "store")
    one = world.frozen("it", profile={"defaults": {"retries": 2, "backoffSeconds": 0}, "stages": {}})
    world.write(store, one)
    for stage in ("ingest-images", "synthesize-captions", "validate-captions"):
        FakeStage()(StageContext(one, store, stage, target))
    shutil.rmtree(target / "store" / "made")


def specs(target: Path) -> None:
    """Every example as it would be frozen."""
    from viper.spec import Profile, ViperLoop, ViperProfile, load_resource

    target.mkdir()
    for file in sorted((ROOT / "examples").rglob("*.yaml")):
        resource = load_resource(file)
        if isinstance(resource, ViperProfile):
            continue
        one = resource.iteration(1) if isinstance(resource, ViperLoop) else resource
        if one.spec.profile_ref is not None:
            one = one.model_copy(update={"spec": one.spec.with_profile(Profile())})
        text = json.dumps(one.dump(), sort_keys=True, separators=(",", ":"))
        (target / f"{file.stem}.json").write_text(text, "utf-8")


def main(folder: Path) -> None:
    """Everything."""
    folder.mkdir()
    os.environ["VIPER_CACHE"] = str(folder / "machine")
    (folder / "others").mkdir()
    run(folder, "whole", spec())
    run(folder, "half", spec(stages="captions"), until="validate-captions")
    others(folder)
    begun(folder / "begun")
    specs(folder / "specs")
    kept = folder / "golden"
    for name in ("whole", "half", "others", "begun", "specs"):
        shutil.copytree(folder / name, kept / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for path in kept.glob("half/**/*.parquet"):  # `half` has the same rows: a reader takes those of `whole`
        twin = kept / str(path.relative_to(kept)).replace("half", "whole")
        if twin.is_file() and twin.read_bytes() == path.read_bytes():
            path.unlink()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main(Path(sys.argv[1]))
