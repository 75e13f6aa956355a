"""Editing by OmniGen2, the paper's editor, behind vLLM-Omni's `/v1/images/edits` (docs/engines.md says why)."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import urllib3
from PIL import Image

from viper import retries
from viper.engines.at_once import at_once
from viper.engines.base import EditResult
from viper.engines.chat_api import model_names, server_message
from viper.engines.diffusion_files import check_pipeline, lora_id, memory_plan
from viper.engines.endpoints import API_KEY, Endpoint, endpoint
from viper.engines.omni_server import OmniServer
from viper.engines.pixels import size_within
from viper.engines.weights import weights_id
from viper.errors import EngineError, SpecError, UnfitEngineError
from viper.images import Unusable, read
from viper.spec.engines import EditingSettings

CLASSES: Final = ("OmniGen2Pipeline",)
#: Tried again, with growing pauses or after what Retry-After says.
AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
#: Answers that are about this one request: its note. 500 is what the server says when the pipeline raised.
OF_THE_SAMPLE: Final = frozenset({400, 413, 422, 500})
#: The server's seeds are 32 bits.
_SEEDS: Final = 2**32
#: The model rounds sides down to multiples of 16; a result that is farther off is no edit of this image.
_ROUNDING: Final = 32
#: The program of an environment with vLLM-Omni, which cannot share one with diffusers 0.42.
PROGRAM: Final = "VIPER_VLLM_OMNI"
_WHERE: Final = "spec.engines.editing"


class OmniGen2Editor:
    """The `Editor` over a vLLM-Omni server: one of its own for a model directory, or one that is there.

    The model edits at most 1024² pixels and 1024 a side; originals above `max_pixels` are scaled down before they are
    sent, and each result is scaled to the original's size. `batch` requests are under way at once.

    Args:
        place: a directory of OmniGen2 in diffusers' layout, for which a server is started at the first edit; or a
            server's address with the model's name, `http://host:8000/v1#OmniGen2/OmniGen2`. The key is the
            environment's OPENAI_API_KEY.
        program: how vLLM-Omni is called to start a server; else the environment's VIPER_VLLM_OMNI, else `vllm-omni`.
        timeout: seconds for one edit.
        patience: how often a request is repeated, and after which waits.

    Raises:
        InputError: the directory is not OmniGen2's.
        SpecError: the address has another form, or a setting is not to be had this way.
    """

    def __init__(
        self,
        place: Path | str,
        device: str = "cuda",
        settings: EditingSettings | None = None,
        *,
        program: Sequence[str] | None = None,
        timeout: float = 600.0,
        patience: retries.Policy = retries.EDITS,
    ) -> None:
        self._settings = settings or EditingSettings()
        self._device = device
        self._program = tuple(program or (os.environ.get(PROGRAM) or "vllm-omni",))
        self._directory = None if _is_address(place) else Path(place)
        self._server: OmniServer | None = None
        self._named: Endpoint | None = None
        if self._directory is None:
            self._named = endpoint(str(place), "spec.engines.editor")
            self._refuse_settings_of_the_server()
        else:
            check_pipeline(self._directory, CLASSES)
        if self._settings.cache != "none":
            raise SpecError(
                "the first-block cache is diffusers', and OmniGen2 runs in vLLM-Omni",
                where=f"{_WHERE}.cache",
                fix="set it to none",
            )
        self._pool = urllib3.PoolManager(
            maxsize=self._settings.batch,
            timeout=timeout,
            retries=retries.of_requests(patience, read=1, status_forcelist=AGAIN, redirect=False),
        )
        key = os.environ.get(API_KEY, "").strip()
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def _refuse_settings_of_the_server(self) -> None:
        """A server that runs already has its own weights and memory: silence would be a lie in the passport."""
        for name in ("lora", "offload", "tiled_decoding", "compile"):
            if getattr(self._settings, name) != EditingSettings.model_fields[name].default:
                raise SpecError(
                    "a server that is running already cannot be told this",
                    where=f"{_WHERE}.{name}",
                    fix="start the server with it, or give the model's directory in spec.engines.editor",
                )

    @classmethod
    def memory_needed(cls, place: Path | str, settings: EditingSettings) -> int:
        """Bytes for a server of one's own (`diffusion_files.memory_plan`, original and edit); 0 for one elsewhere."""
        if _is_address(place):
            return 0
        return memory_plan(Path(place), settings, 2 * settings.max_pixels)

    @cached_property
    def engine_id(self) -> str:
        """Weights digest, or the server's address where its weights are its word; then what changes pixels."""
        chosen = self._settings
        what = self._named.uri.removeprefix("openai:") if self._named else weights_id(self._directory or Path())
        traits = [
            f"steps={chosen.steps} guidance={chosen.guidance:g} image={chosen.image_guidance:g}",
            f"pixels={chosen.max_pixels} dtype={chosen.dtype}",
        ]
        if chosen.negative_prompt.strip():
            traits.append(f"negative={sha256(chosen.negative_prompt.encode()).hexdigest()[:8]}")
        if chosen.lora:
            traits.append(f"lora={lora_id(Path(chosen.lora))}*{chosen.lora_scale:g}")
        return f"omnigen2/{what} {' '.join(traits)}"

    @cached_property
    def _url(self) -> str:
        """The base URL of a server that offers the model."""
        if self._directory is not None:
            self._server = OmniServer(self._directory, self._device, self._settings, self._program)
            return self._server.url
        named = self._named or Endpoint("", "")
        status, data = self._send("GET", f"{named.url}/models", {})
        if status != 200:
            raise self._broken(named.url, status, data)
        named.check_offered(model_names(data))
        return named.url

    def close(self) -> None:
        """Closes the connections and ends a server of one's own."""
        self._pool.clear()
        self.__dict__.pop("_url", None)
        if self._server is not None:
            self._server.close()
            self._server = None

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[EditResult]:
        """See `Editor.edit`.

        Raises `ValueError` when the lengths differ, `EngineError` when the server cannot be reached, is overloaded for
        long, refuses the key or has no memory for one edit.
        """
        given = list(zip(images, instructions, seeds, strict=True))
        if not given:
            return []
        url = self._url
        return at_once(lambda one: self._edit(url, *one), given, self._settings.batch)

    def _edit(self, url: str, image: Image.Image, instruction: str, seed: int) -> EditResult:
        status, data = self._send("POST", f"{url}/images/edits", {"fields": self._form(image, instruction, seed)})
        if status == 200:
            made = read_image(data, image.size)
            return EditResult(image, made) if isinstance(made, str) else EditResult(made)
        if status in OF_THE_SAMPLE and b"out of memory" not in data.lower():
            return EditResult(image, f"the server did not edit it ({status}): {server_message(data)}")
        raise self._broken(url, status, data)

    def _form(self, image: Image.Image, instruction: str, seed: int) -> dict[str, Any]:
        """The request's fields. Both guidances are always said: the server derives one from the other if it is not."""
        chosen = self._settings
        size = size_within(image.width, image.height, None, chosen.max_pixels)
        shown = image.convert("RGB")
        shown = shown if size == shown.size else shown.resize(size, Image.Resampling.LANCZOS)
        file = io.BytesIO()
        shown.save(file, "PNG")
        form: dict[str, Any] = {
            "image": ("original.png", file.getvalue(), "image/png"),
            "prompt": instruction,
            "negative_prompt": chosen.negative_prompt,
            "num_inference_steps": str(chosen.steps),
            "guidance_scale": str(chosen.guidance),
            "guidance_scale_2": str(chosen.image_guidance),
            "seed": str(seed % _SEEDS),
            "generator_device": "cpu",
            "n": "1",
            "size": "auto",
            "response_format": "b64_json",
            "output_format": "png",
        }
        return form if self._named is None else form | {"model": self._named.model}

    def _send(self, method: str, url: str, content: dict[str, Any]) -> tuple[int, bytes]:
        try:
            response = self._pool.request(method, url, headers=self._headers, redirect=False, **content)
        except urllib3.exceptions.HTTPError as error:
            raise EngineError(f"no answer: {error}", where=url, fix="see to the server, and to its address") from error
        return int(response.status), bytes(response.data)

    def _broken(self, url: str, status: int, data: bytes) -> EngineError:
        fixes = {
            401: f"set {API_KEY} to a key that the server takes",
            403: f"set {API_KEY} to a key that may use the model",
            404: "correct the address, which ends in /v1; the server has to be vLLM-Omni's (`vllm serve MODEL --omni`)",
        }
        kind = UnfitEngineError if status in fixes else EngineError
        fix = fixes.get(status, "see the server's log")
        if b"out of memory" in data.lower():
            fix = f"set {_WHERE}.maxPixels or .batch to less, or {_WHERE}.offload to model"
        return kind(f"the server answers {status}: {server_message(data)}", where=url, fix=fix)


def _is_address(place: Path | str) -> bool:
    return isinstance(place, str) and place.startswith(("http://", "https://"))


def read_image(data: bytes, size: tuple[int, int]) -> Image.Image | str:
    """The picture in the answer's first `b64_json`, scaled to `size`; or a note of what is wrong with it."""
    try:
        encoded = json.loads(data)["data"][0]["b64_json"]
        made = read(base64.b64decode(encoded, validate=True))
    except Unusable as problem:
        return f"the server's answer holds no image: {problem}"
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return f"the server's answer holds no image: {type(error).__name__}"
    width, height = size
    off = min(abs(made.width * height / width - made.height), abs(made.height * width / height - made.width))
    if off > _ROUNDING:
        return f"the server made an image of another aspect ({made.width}×{made.height} for {width}×{height})"
    return made if made.size == size else made.resize(size, Image.Resampling.LANCZOS)
