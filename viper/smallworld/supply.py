"""What the small world supplies an iteration with: its pool of drawn scenes, its question sets, its starter model."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from PIL import Image

from viper.errors import InputError, SpecError
from viper.evaluation.questions import Question, SetName
from viper.images import Unusable
from viper.ingest.sources import Listing, PoolEntry
from viper.smallworld import questions as world
from viper.smallworld.drawing import render
from viper.smallworld.scenes import scene_from_seed

#: Scene numbers of pool `seed` start at `seed` times this; the pools end below the held-out questions' range.
SCENES_PER_SEED = 1_000_000
_POOL_SEEDS = 500


@dataclass(frozen=True)
class SceneSource:
    """Drawn scenes of the small world: `count` of them, from scene number `seed`·1,000,000 on."""

    count: int
    seed: int
    enumerable: bool = False

    @property
    def uri(self) -> str:
        return f"smallworld:scenes?count={self.count}&seed={self.seed}"

    def listing(self) -> Listing:
        first = self.seed * SCENES_PER_SEED
        return Listing([PoolEntry(f"scene-{number:09d}") for number in range(first, first + self.count)])

    def read(self, name: str) -> Image.Image:
        number = int(name.removeprefix("scene-"))
        scene = scene_from_seed(number)
        if world.is_held_out(scene):
            raise Unusable("held-out-scene", "a held-out question is about exactly this scene")
        return render(scene, number)


def scenes(uri: str) -> SceneSource:
    """The pool `smallworld:scenes?count=N&seed=S`; raises `SpecError`."""
    parts = urlsplit(uri)
    fields = dict(parse_qsl(parts.query, keep_blank_values=True))
    numbers = all(re.fullmatch(r"\d{1,9}", value) for value in fields.values())
    count = int(fields.get("count", 0)) if numbers else 0
    seed = int(fields.get("seed", 0)) if numbers else 0
    if parts.path != "scenes" or set(fields) - {"count", "seed"} or not 0 < count <= SCENES_PER_SEED:
        raise SpecError(
            f"{uri!r} does not name scenes of the small world",
            where="spec.images.uri",
            fix=f"write smallworld:scenes?count=N&seed=S with N from 1 to {SCENES_PER_SEED:,}",
        )
    if seed >= _POOL_SEEDS:
        raise SpecError(
            f"seed {seed} is not a training pool",
            where="spec.images.uri",
            fix=f"use a seed below {_POOL_SEEDS}: the scenes above are kept for held-out questions",
        )
    return SceneSource(count, seed)


def question_set(uri: str, name: SetName) -> list[Question]:
    """The questions of one set of `smallworld:questions`, in order."""

    def convert(q: world.Question) -> Question:
        digest = hashlib.sha256(q.image.tobytes()).hexdigest()
        return Question(q.question_id, q.domain, q.kind, q.question, q.answer, digest, lambda: q.image)

    return [convert(q) for q in world.questions(name)]


def starter(uri: str) -> Path:
    """The folder of `smallworld:starter`; raises `InputError` where the package lacks its assets."""
    folder = Path(__file__).parent / "assets" / "starter"
    if not folder.is_dir():
        raise InputError(
            "the starter model is not installed", where=str(folder), fix="install the package with its assets"
        )
    return folder
