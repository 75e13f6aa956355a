"""Synthesis and validation with engines as slow as the paper's: how busy the GPU is, and what a data set costs.

    python benchmarks/synthesis.py                   # about ten minutes
    python benchmarks/synthesis.py --images 32 --scale 400

The stages are the real ones, on real images in a real store; only the engines are fakes that take as long as the
paper's models on an A100 with 80 GB (`Latencies`), all times and all picture areas divided by `--scale`, so that
reading, decoding, encoding and storing keep their share. Beside them, in the same run, a plain script as one would
write it first: each sample goes through all steps, one model after the other has to come back to the GPU, nothing
overlaps, and every image of the pool is used.

The share of time in which the GPU computes counts loading as idle. GPU-hours are the time for which the GPU is held.
The second table asks for a quota of edits of which the judge accepts 20 to 80 %.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.synthesis import FakeVlm, context, frozen, half_inverted
from viper.engines.base import EditResult, Reconstruction, Sampling, VlmOutput, VlmRequest
from viper.images import decode, encode_png
from viper.ingest.stage import ingest
from viper.modelcache.engines import StageEngines
from viper.prompts import PromptSet
from viper.stage import Manifest, StageContext
from viper.tasks.captions.synthesis import synthesize_captions
from viper.tasks.captions.validation import validate_captions
from viper.tasks.operations.synthesis import synthesize_operations
from viper.tasks.operations.validation import validate_operations

SIDE = 1024


@dataclass(frozen=True)
class Latencies:
    """Seconds on an A100 with 80 GB, and gibibytes.

    Diffusion: viper/costs/rates.yaml, in the middle of the published ranges. Text: a 7B model by vLLM writes about
    2,500 tokens a second when it is busy and 75 when it is alone; 300 tokens each. Loading: weights at 1.5 GB/s from a
    volume, and 30 s until vLLM is warm; moving weights that are in host memory: 20 GB/s.
    """

    text_alone: float = 4.0
    text_each: float = 0.12
    reconstruct: float = 50.0
    edit: float = 60.0
    clip_each: float = 0.01
    gib: tuple[tuple[str, int], ...] = (
        ("generator", 72),
        ("critic", 72),
        ("judge", 72),
        ("reconstructor", 62),
        ("editor", 22),
        ("image_similarity", 2),
    )

    def load(self, role: str) -> float:
        """From a volume to the GPU."""
        text = role in ("generator", "critic", "judge")
        return 16 / 1.5 + 30 if text else dict(self.gib)[role] / 1.5

    def move(self, role: str) -> float:
        """From host memory to the GPU."""
        return (16 if role in ("generator", "critic", "judge") else dict(self.gib)[role]) / 20


LATENCIES = Latencies()


@dataclass
class Gpu:
    """Time passes on it, `scale` times as fast as in earnest."""

    scale: float
    busy: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def compute(self, seconds: float) -> None:
        """Works for so long."""
        self._pass(seconds)
        self.busy += seconds

    def load(self, seconds: float) -> None:
        """Waits for weights."""
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        time.sleep(seconds / self.scale)

    @property
    def held(self) -> float:
        """Seconds since it was taken, in earnest."""
        return (time.monotonic() - self.started) * self.scale


class SlowVlm(FakeVlm):
    """Writes as fast as a 7B model does; as a judge it accepts a share of the edits."""

    def __init__(self, gpu: Gpu, accepted: float) -> None:
        def verdict(request: VlmRequest, seed: int, place: int) -> str:
            drawn = int.from_bytes(hashlib.sha256(request.prompt.encode()).digest()[:4], "big") / 2**32
            return json.dumps({"is_valid": drawn < accepted})

        super().__init__({"judge": verdict})
        self._gpu = gpu

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        if requests:
            self._gpu.compute(LATENCIES.text_alone + LATENCIES.text_each * len(requests))
        said: list[VlmOutput] = super().generate(requests, sampling)
        return said


class SlowReconstructor:
    engine_id = "slow-reconstructor/1"

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def reconstruct(self, captions: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> list[Reconstruction]:
        made = []
        for seed in seeds:
            self._gpu.compute(LATENCIES.reconstruct)
            made.append(Reconstruction(photograph(seed, size)))
        return made


class SlowEditor:
    engine_id = "slow-editor/1"

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[EditResult]:
        made = []
        for image in images:
            self._gpu.compute(LATENCIES.edit)
            made.append(EditResult(half_inverted(image)))
        return made


class SlowClip:
    engine_id = "slow-clip/1"

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        self._gpu.compute(LATENCIES.clip_each * len(images))
        return np.tile(np.array([1.0, 0.0], np.float32), (len(images), 1))


def photograph(seed: int, size: tuple[int, int]) -> Image.Image:
    """Something that takes as much work to encode as a photograph: smooth colours and some noise."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = rng.integers(-6, 7, (size[1], size[0], 3), np.int16)
    return Image.fromarray(np.clip(np.asarray(coarse, np.int16) + grain, 0, 255).astype(np.uint8))


class SlowEngines(StageEngines):
    """The engines of a stage, on one GPU of 80 GB."""

    def __init__(self, ctx: StageContext, gpu: Gpu, accepted: float) -> None:
        super().__init__(ctx)
        self._gpu, self._accepted = gpu, accepted

    def _needed(self, role: str) -> int:
        self._needs[self._key(role)] = dict(LATENCIES.gib)[role] * 2**30
        return self._needs[self._key(role)]

    def _load(self, role: str) -> Any:
        self._gpu.load(LATENCIES.load(role))
        return engine(role, self._gpu, self._accepted)


def engine(role: str, gpu: Gpu, accepted: float) -> Any:
    """The engine behind a role."""
    makers: dict[str, Callable[[], Any]] = {
        "reconstructor": lambda: SlowReconstructor(gpu),
        "editor": lambda: SlowEditor(gpu),
        "image_similarity": lambda: SlowClip(gpu),
    }
    return makers.get(role, lambda: SlowVlm(gpu, accepted))()


@dataclass(frozen=True)
class Outcome:
    """What a run made, and what it cost."""

    captions: int
    edits: int
    busy: float
    held: float

    @property
    def share(self) -> float:
        return self.busy / self.held


def pool(root: Path, images: int, side: int) -> Path:
    """A folder of pictures."""
    folder = root / "pool"
    folder.mkdir(parents=True)
    for i in range(images):
        photograph(10_000 + i, (side, side)).save(folder / f"{i:05d}.png")
    return folder


def stages(root: Path, folder: Path, *, side: int, scale: float, accepted: float, samples: int) -> Outcome:
    """The stages of the product, as one shard runs them, for so many samples of both tasks."""
    recipe = {
        # A quota is reached to a part: of 3,000 edits 64 are little, of the few here they are not.
        "partSize": min(64, max(8, samples // 6)),
        "captions": {"samples": samples, "expectedAcceptance": 1.0, "reconstructionSize": side},
        "operations": {"samples": samples, "expectedAcceptance": accepted},
        "validation": {"nearDuplicateDistance": -1, "judge": {"controls": 0.05}},
    }
    profile = {"defaults": {"gpuMemory": "80Gi"}}
    it = frozen(str(folder), recipe | {"schedule": "upfront"}, profile=profile)
    assert ingest(context(root, "ingest-images", it)) is not None
    gpu = Gpu(scale)
    found: dict[str, Manifest | None] = {}
    for name, run in (
        ("synthesize-captions", synthesize_captions),
        ("validate-captions", lambda ctx, _: validate_captions(ctx)),
        ("synthesize-operations", synthesize_operations),
        ("validate-operations", validate_operations),
    ):
        ctx = context(root, name, it)
        found[name] = run(ctx, SlowEngines(ctx, gpu, accepted))
    captions, edits = found["validate-captions"], found["validate-operations"]
    assert captions is not None
    assert edits is not None
    return Outcome(captions.accepted, edits.accepted, gpu.busy, gpu.held)


def plain(root: Path, folder: Path, *, side: int, scale: float, accepted: float) -> Outcome:
    """Each sample through all steps, weights coming and going, files written one by one."""
    out = root / "plain"
    out.mkdir()
    gpu = Gpu(scale)
    vlm, clip = SlowVlm(gpu, accepted), SlowClip(gpu)
    reconstructor, editor = SlowReconstructor(gpu), SlowEditor(gpu)
    for role in ("generator", "reconstructor", "editor", "image_similarity"):
        gpu.load(LATENCIES.load(role))
    rows, edits = [], 0
    prompts = PromptSet.load("smallworld")
    words = {"caption": "c", "refinement": "r", "category": "Attribute Tuning", "task": "t"}

    def say(name: str, *images: Image.Image, **more: str) -> str:
        return vlm.generate([VlmRequest(images, prompts.render(name, **words, **more))], Sampling())[0].text

    for number, path in enumerate(sorted(folder.iterdir())):
        original = decode(path.read_bytes())
        gpu.load(LATENCIES.move("generator"))
        caption = say("caption", original)
        gpu.load(LATENCIES.move("reconstructor"))
        drawn = reconstructor.reconstruct([caption], [number], (side, side))[0].image
        assert drawn is not None
        (out / f"{number}-reconstruction.png").write_bytes(encode_png(drawn))
        gpu.load(LATENCIES.move("critic"))
        flaws, refined = say("critique", original, drawn), say("refine", original)
        category, instruction = say("category", original), say("instruction", original)
        gpu.load(LATENCIES.move("editor"))
        edited = editor.edit([original], [instruction], [number])[0].image
        (out / f"{number}-edit.png").write_bytes(encode_png(edited))
        clip.embed_images([original, edited])
        gpu.load(LATENCIES.move("judge"))
        verdict = say("judge", original, edited, instruction=f"Make ring {number} red.")
        edits += bool(json.loads(verdict)["is_valid"])
        rows.append({"caption": caption, "flaws": flaws, "refined": refined, "category": category})
    (out / "rows.json").write_text(json.dumps(rows))
    return Outcome(len(rows), edits, gpu.busy, gpu.held)


def hours(seconds: float) -> str:
    """GPU-hours."""
    return f"{seconds / 3600:.2f}"


def main() -> None:
    """Runs both and prints the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=96, help="images of the first table's pool")
    parser.add_argument("--scale", type=float, default=100.0, help="how many times faster than in earnest")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        side = max(32, round(SIDE / args.scale**0.5 / 32) * 32)
        folder = pool(root, args.images, side)
        print(f"{args.images} images of {side}² px, {args.scale:g} times as fast as in earnest, one GPU\n")
        head = f"{'':24}{'GPU-hours':>12}{'computing':>12}{'captions':>10}{'edits':>8}"
        print(head)
        ours = stages(root / "ours", folder, side=side, scale=args.scale, accepted=1.0, samples=args.images)
        theirs = plain(root, folder, side=side, scale=args.scale, accepted=1.0)
        for label, one in (("stages", ours), ("plain script", theirs)):
            print(f"{label:24}{hours(one.held):>12}{one.share:>12.1%}{one.captions:>10}{one.edits:>8}")
        print(f"\nthe plain script takes {theirs.held / ours.held:.2f} times the GPU-hours\n")
        scale, wanted = args.scale * 4, args.images // 2
        side = max(32, round(SIDE / scale**0.5 / 32) * 32)
        wide = pool(root / "wide", wanted * 6, side)
        print(f"a quota of {wanted} edits, by the share that the judge accepts; {scale:g} times as fast\n")
        print(f"{'accepted':>10}{'stages':>12}{'plain script':>14}{'ratio':>8}{'per edit':>10}{'edits':>8}")
        for accepted in (0.2, 0.4, 0.6, 0.8):
            here = root / f"ours-{accepted}"
            one = stages(here, wide, side=side, scale=scale, accepted=accepted, samples=wanted)
            # The plain script has no quota: it works off the pool that is expected to be enough.
            needed = round(wanted / accepted)
            part = root / f"part-{accepted}"
            part.mkdir()
            for path in sorted(wide.iterdir())[:needed]:
                (part / path.name).symlink_to(path)
            (root / f"script-{accepted}").mkdir()
            other = plain(root / f"script-{accepted}", part, side=side, scale=scale, accepted=accepted)
            print(
                f"{accepted:>10.0%}{hours(one.held):>12}{hours(other.held):>14}{other.held / one.held:>8.2f}"
                f"{hours(one.held / max(one.edits, 1)):>10}{one.edits:>8}"
            )


if __name__ == "__main__":
    main()
