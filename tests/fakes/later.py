"""A release to come: a copy of this one with a higher version, and one more field in what it stores and is asked.

python -m fakes.later STORE begin|end [--patient]      # in an environment where `viper` is the copy
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from viper.store import DirectoryStore

ROOT = Path(__file__).parents[2]
VERSION = "0.3.0"
#: Class with its first lines → field that is added after them.
_ADDED = {
    "viper/stage/manifest.py": (
        (
            '    WHAT: ClassVar[str] = "the record of a part"\n',
            '    device: str = setting("cpu", description="New.")\n',
        ),
        ('    WHAT: ClassVar[str] = "a manifest"\n', '    device: str = setting("cpu", description="New.")\n'),
    ),
    "viper/stage/frozen.py": (
        ('    WHAT: ClassVar[str] = "a frozen iteration"\n', '    site: str = setting("here", description="New.")\n'),
    ),
    "viper/spec/recipe.py": (
        (
            'sizes, prompts, thresholds, reward, optimiser numbers."""\n\n',
            f'    patience: int = setting(1, since="{VERSION}", description="New.")\n',
        ),
    ),
}
_BEGINNING = ("ingest-images", "synthesize-captions", "validate-captions")


def build(target: Path) -> Path:
    """Makes the copy; returns the folder that `PYTHONPATH` has to begin with."""
    ignored = shutil.ignore_patterns("__pycache__", "assets", "*.safetensors")
    shutil.copytree(ROOT / "viper", target / "viper", ignore=ignored)
    shutil.copytree(ROOT / "jobs" / "viper_jobs", target / "viper_jobs", ignore=ignored)
    changes: dict[str, Any] = {"viper/__init__.py": ((re.search(r'__version__ = ".*"\n', _text(target))[0], ""),)}  # type: ignore[index]
    for name, added in {**_ADDED, **changes}.items():
        file = target / name
        text = file.read_text("utf-8")
        for before, more in added:
            assert text.count(before) == 1, before
            text = text.replace(before, before + more if more else f'__version__ = "{VERSION}"\n')
        file.write_text(text, "utf-8")
    return target


def _text(target: Path) -> str:
    return (target / "viper" / "__init__.py").read_text("utf-8")


def carry_out(copy: Path, store: DirectoryStore, act: str, *options: str) -> dict[str, Any]:
    """What the later release does with a store; returns what it says: identity, digests, its version."""
    path = os.pathsep.join([str(copy), str(ROOT / "tests")])
    command = [sys.executable, "-m", "fakes.later", str(store.root), act, *options]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False, cwd=copy
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main(argv: list[str]) -> None:
    """In the copy: begins the iteration `it` of the fakes, or brings it to its end."""
    import viper
    from fakes import world
    from fakes.program import FakeStage
    from viper.iteration.observe import StoreObserver
    from viper.methods.stages import stage_graph
    from viper.plan import plan
    from viper.stage import StageContext, load_frozen
    from viper.stored import least_version

    assert viper.__version__ == VERSION
    store, act = DirectoryStore(Path(argv[0])), argv[1]
    if act == "begin":
        recipe = {"patience": 2} if "--patient" in argv else {}
        one = world.frozen("it", profile={"defaults": {"retries": 2, "backoffSeconds": 0}, "stages": {}}, recipe=recipe)
        world.write(store, one.model_copy(update={"min_version": least_version(one.iteration)}))
    frozen = load_frozen(store, "it")
    assert frozen is not None
    for node in stage_graph(frozen.iteration.spec.recipe):
        if act == "end" or node.name in _BEGINNING:
            FakeStage()(StageContext(frozen, store, node.name, store.root))
    made = plan(frozen.iteration.spec, StoreObserver(store, frozen).observe(), 0.0)
    said = {"identity": frozen.identity, "outcome": made.outcome, "digests": world.manifests(store, frozen)}
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1:])
