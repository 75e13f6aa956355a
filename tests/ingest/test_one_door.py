"""Images come in by one door: another way is refused by the linter, and decoding shares one budget of memory."""

from __future__ import annotations

import base64
import io
import json
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from viper.engines.omnigen2 import read_image
from viper.errors import InputError
from viper.images import ImageLimits, budget, decode, encode_png, prepare, reader
from viper.images.budget import Budget
from viper.report.attention import _picture
from viper.report.gallery import thumbnail
from viper.store import DirectoryStore
from viper.training.cold_start import SuppliedSample, SuppliedSamples
from viper.training.data import EncodedSample
from viper.training.verl.parquet import rgb_bytes

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("code", "banned"),
    [
        ("from PIL import Image\nImage.open('x')\n", True),
        ("from PIL.Image import open as load\nload('x')\n", True),
        ("import PIL.Image as pictures\npictures.open('x')\n", True),
        ("from PIL import ImageFile\nImageFile.Parser()\n", True),
        ("import cv2\ncv2.imread('x')\n", True),
        ("from skimage.io import imread\nimread('x')\n", True),
        ("from viper.images import decode\ndecode(b'x')\n", False),
    ],
)
@pytest.mark.parametrize("place", ["viper/report/new.py", "jobs/viper_jobs/new.py", "operator/viper_operator/new.py"])
def test_no_other_module_opens_an_image(code: str, banned: bool, place: str) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    command = [ruff, "check", "--no-cache", "--stdin-filename", place, "-"]
    said = subprocess.run(command, input=code, text=True, capture_output=True, cwd=ROOT, check=False)
    assert ("TID251" in said.stdout) == banned, said.stdout + said.stderr


def test_ghostscript_is_never_asked_whoever_opens_the_file(tmp_path: Path) -> None:
    path = tmp_path / "drawing.jpg"
    Image.new("RGB", (40, 40)).save(path, "EPS")
    assert not EpsImagePlugin.has_ghostscript()
    with Image.open(path) as image, pytest.raises(OSError, match="Ghostscript"):
        image.load()


def test_a_budget_is_never_overdrawn_and_a_request_larger_than_it_runs_alone() -> None:
    shared, at_once, most = Budget(100), 0, 0
    lock = threading.Lock()

    def work(amount: int) -> None:
        nonlocal at_once, most
        with shared.hold(amount):
            with lock:
                at_once += min(amount, 100)
                most = max(most, at_once)
            with lock:
                at_once -= min(amount, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 70, 1000, 1, 0, 99, 100, 50] * 50))
    assert most <= 100
    assert shared.free == 100


def test_who_holds_some_and_asks_again_does_not_wait_for_itself_or_others() -> None:
    shared, both = Budget(10), threading.Barrier(2, timeout=10)

    def work(_: int) -> None:
        with shared.hold(5):
            both.wait()
            with shared.hold(10):
                pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert shared.free == 10


def test_first_come_first_served_so_that_a_large_image_is_not_passed_for_ever() -> None:
    shared, order = Budget(10), []
    first = shared.hold(5)
    first.__enter__()

    def work(amount: int) -> None:
        with shared.hold(amount):
            order.append(amount)

    large = threading.Thread(target=work, args=(10,))
    large.start()
    while not shared.waiting:
        pass
    small = threading.Thread(target=work, args=(1,))
    small.start()
    while shared.waiting < 2:
        pass
    first.__exit__(None, None, None)
    large.join(10)
    small.join(10)
    assert order == [10, 1]


def test_what_fails_gives_back_what_it_held() -> None:
    shared = Budget(10)
    with pytest.raises(ValueError, match="broken"), shared.hold(4):
        raise ValueError("broken")
    assert shared.free == 10


def grey(side: int) -> bytes:
    """A file of some kilobytes that is a large picture of 16 bits."""
    return encode_png(Image.fromarray(np.zeros((side, side), np.uint16)))


def test_four_large_greys_are_decoded_one_at_a_time_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    data, limits = grey(512), ImageLimits(32, 64, 10**6)
    alone = prepare(data, limits)
    shared = _Counting(512 * 512 * 12)
    monkeypatch.setattr(reader, "DECODING", shared)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: prepare(data, limits), range(8)))
    assert set(made) == {alone}
    assert (shared.calls, shared.most) == (8, 1)
    assert budget.DECODING.free == budget.DECODING.total


class _Counting(Budget):
    """Counts how many hold some at once, at most."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.calls = self.most = self.now = 0
        self._counting = threading.Lock()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        with super().hold(amount):
            with self._counting:
                self.calls, self.now = self.calls + 1, self.now + 1
                self.most = max(self.most, self.now)
            yield
            with self._counting:
                self.now -= 1


PEAKS = """
import io, sys
from pathlib import Path
from PIL import Image
from viper.images import ImageLimits, encode_png, prepare, reader

def kilobytes():
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM"))

limits = ImageLimits(32, 64, 10**8)
prepare(encode_png(Image.new("RGB", (64, 64))), limits)
for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    prepare(data, ImageLimits(32, 64, 10**8))  # what a decoder loads once is no pixel
    Path("/proc/self/clear_refs").write_text("5")  # begins the high-water mark anew
    before, _ = kilobytes()
    prepare(data, limits)
    image, _ = reader._open(data, limits)
    print(path.name, (kilobytes()[1] - before) * 1024, reader._memory(image))
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_format_takes_more_memory_than_it_is_reckoned_with(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 4), np.uint8)
    colour, alpha = Image.fromarray(noise[..., :3]), Image.fromarray(noise)
    palette = colour.convert("P", palette=Image.Palette.WEB)
    greys = Image.fromarray(noise[..., 0].astype(np.uint16) * 250)
    for name, image, options in [
        ("progressive.jpg", colour, {"progressive": True}),
        ("cmyk.jpg", colour.convert("CMYK"), {}),
        ("colour.png", colour, {"compress_level": 1}),
        ("alpha.png", alpha, {"compress_level": 1}),
        ("palette.png", palette, {"transparency": 3}),
        ("sixteen.png", greys, {"compress_level": 1}),
        ("float.tif", Image.fromarray(noise[..., 0].astype(np.float32)), {}),
        ("alpha.webp", alpha, {"quality": 50, "method": 0}),
        ("colour.avif", colour, {"speed": 10}),
        ("colour.jp2", colour, {}),
        ("colour.gif", palette, {}),
        ("colour.bmp", colour, {}),
    ]:
        image.save(tmp_path / name, **options)
    command = [sys.executable, "-c", PEAKS, str(tmp_path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {name: (int(took), int(reckoned)) for name, took, reckoned in map(str.split, lines)}
    assert len(found) == 12
    assert {name: both for name, both in found.items() if both[0] > both[1]} == {}


def eps() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(buffer, "EPS")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a kilobyte that says it has 3.6 billion pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")


def torn() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((200, 150), 80).save(buffer, "JPEG")
    return buffer.getvalue()[:2000]


def turned() -> bytes:
    """A photograph of a phone: 60×80 once it is upright."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.effect_noise((80, 60), 80).convert("RGB").save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def answered(data: bytes, size: tuple[int, int] = (60, 80)) -> Image.Image:
    """As an editing server's answer."""
    encoded = base64.b64encode(data).decode()
    made = read_image(json.dumps({"data": [{"b64_json": encoded}]}).encode(), size)
    if isinstance(made, str):
        raise InputError(made)
    return made


def on_the_page(data: bytes) -> Image.Image:
    """As a picture of the report."""
    uri = thumbnail(data)
    if not uri:
        raise InputError("no picture")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return image.convert("RGB")


def as_a_map(data: bytes) -> Image.Image:
    """As an attention map of the report."""
    store = DirectoryStore(Path(tempfile.mkdtemp()))
    store.put("map.png", data)
    uri = _picture(store, "map.png")
    if not uri:
        raise InputError("no picture")
    with Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
        return image.convert("RGB")


def learnt(data: bytes) -> Image.Image:
    """As a sample of the local trainer."""
    image = EncodedSample("s", "p", (data,), ("g",), "captions", "i").decoded().images[0]
    image.load()
    return image


def learnt_by_verl(data: bytes) -> Image.Image:
    """As a row that verl opens by itself."""
    with Image.open(io.BytesIO(rgb_bytes(data))) as image:
        image.load()
        return image.copy()


def supplied(data: bytes) -> Image.Image:
    """As a cold-start sample."""
    sample = SuppliedSample("s", "p", (data,), "r")
    return SuppliedSamples([sample])[0].images[0]


DOORS = [answered, on_the_page, as_a_map, learnt, learnt_by_verl, supplied, decode]


#: verl gets the bytes of plain files, which a pool or a supplied file has been decoded for before.
REFUSED = [
    (door, made) for door in DOORS for made in (eps, bomb, torn, bytes) if (door, made) != (learnt_by_verl, torn)
]


@pytest.mark.parametrize(("door", "made"), REFUSED)
def test_every_door_refuses_what_is_no_image(door: Callable[[bytes], object], made: Callable[[], bytes]) -> None:
    with pytest.raises((InputError, OSError)) as error:
        door(made())
    assert door is learnt or isinstance(error.value, InputError)


@pytest.mark.parametrize("door", DOORS)
def test_every_door_turns_a_photograph_of_a_phone_upright(door: Callable[[bytes], Image.Image]) -> None:
    image = door(turned())
    assert (image.mode, image.size) == ("RGB", (60, 80))


@pytest.mark.parametrize(("form", "alone"), [("ICO", True), ("PNG", False)])
def test_what_is_decoded_when_it_is_opened_is_opened_alone(
    monkeypatch: pytest.MonkeyPatch, form: str, alone: bool
) -> None:
    free: list[int] = []
    opened = Image.open

    def watched(*args: object, **options: object) -> Image.Image:
        free.append(budget.DECODING.free)
        return opened(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", watched)
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, form, sizes=[(64, 64)])
    prepare(buffer.getvalue(), ImageLimits(8, 512, 10_000))
    assert (free[0] == 0) is alone
    assert budget.DECODING.free == budget.DECODING.total


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_an_icon_that_is_larger_than_its_header_says_is_too_large() -> None:
    inner = encode_png(Image.new("RGB", (900, 800)))
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(reader.Unusable, match="too-large: 900×800"):
        prepare(icon, ImageLimits(8, 512, 100_000))
