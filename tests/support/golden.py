"""What releases before this one left behind (tests/golden), put where a test can work on it."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import viper.smallworld

GOLDEN = Path(__file__).parents[1] / "golden"
STARTER = Path(viper.smallworld.__file__).parent / "assets" / "starter"


def expected(release: str) -> dict[str, Any]:
    """What the release itself says of its set, by folder: identity, digests, outcome, states."""
    return json.loads((GOLDEN / release / "expected.json").read_text("utf-8"))  # type: ignore[no-any-return]


def restored(release: str, name: str, target: Path) -> Path:
    """The run directory `name` as it was, at another place: rows, the starter's weights and the database are put back.

    Where the set was made is written in full in `iteration.json` and in manifests, which stay as they are: those URIs
    lead nowhere any more. The database, and what names it, are of the new place, as after a move of the server.
    """
    source, made = GOLDEN / release, f"/tmp/viper-{release}/{name}"
    shutil.copytree(source / name, target)
    for rows in (source / "whole" / "store").rglob("parts/*.parquet"):
        twin = target / str(rows.relative_to(source / "whole")).replace("whole", name)
        if twin.with_suffix(".json").is_file() and not twin.exists():
            shutil.copyfile(rows, twin)
    for record in target.glob("store/models/*/digests.json"):
        for file in json.loads(record.read_text("utf-8"))["files"]:
            if not (record.parent / file).exists() and (STARTER / file).is_file():
                shutil.copyfile(STARTER / file, record.parent / file)
    if (dump := target / "mlflow.sql.gz").is_file():
        with sqlite3.connect(target / "mlflow.db") as database:
            database.executescript(gzip.decompress(dump.read_bytes()).decode().replace(made, str(target)))
        database.close()
        dump.unlink()
        for file in (target / "run.json", target / f"store/iterations/{name}/iteration.json"):
            content = json.loads(file.read_text("utf-8"))
            place = f"sqlite:///{target}/mlflow.db"
            if file.name == "run.json":
                content |= {"tracking": place, "store": (target / "store").as_uri()}
            else:
                content["tracking"]["uri"] = place
            file.write_text(json.dumps(content, indent=1), "utf-8")
    return target
