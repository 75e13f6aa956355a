"""OmniGen2 behind `Editor`: the adapter against a real HTTP server with vLLM-Omni's API, before a fake of the model."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from engines import edits_server
from engines.contracts import EditorContract, drawn, same
from engines.edits_server import EditsServer, answer, says, serving
from viper.engines.base import Editor
from viper.engines.omni_server import environment, serve_command
from viper.engines.omnigen2 import OmniGen2Editor
from viper.errors import EngineError, InputError, SpecError, UnfitEngineError
from viper.retries import ONCE, Policy
from viper.spec.engines import EditingSettings

pytestmark = pytest.mark.server

IMAGE = drawn((61, 40), "teal")
PROGRAM = (sys.executable, edits_server.__file__)


@pytest.fixture(scope="module")
def running() -> Iterator[EditsServer]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: EditsServer) -> EditsServer:
    running.faults.clear()
    running.forms.clear()
    running.keys.clear()
    return running


def editor(server: EditsServer, **changes: Any) -> OmniGen2Editor:
    return OmniGen2Editor(server.place, settings=EditingSettings(**changes), patience=Policy(tries=3))


def edit(engine: OmniGen2Editor, image: Image.Image = IMAGE, seed: int = 1) -> Any:
    (result,) = engine.edit([image], ["Make it blue."], [seed])
    return result


class TestOmniGen2(EditorContract):
    @pytest.fixture
    def engine(self, server: EditsServer) -> Editor:
        return editor(server, batch=2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the published model, with a few numbers for weights."""
    place = tmp_path_factory.mktemp("omnigen2")
    parts = {"transformer": "OmniGen2Transformer2DModel", "vae": "AutoencoderKL"}
    parts |= {"mllm": "Qwen2_5_VLForConditionalGeneration", "scheduler": "FlowMatchEulerDiscreteScheduler"}
    parts |= {"processor": "Qwen2_5_VLProcessor"}
    for part, kind in parts.items():
        (place / part).mkdir()
        (place / part / "config.json").write_text("{}", "utf-8")
        if part in ("transformer", "vae", "mllm"):
            save_file({f"{kind}.weight": np.zeros((5, 2), np.float32)}, place / part / "model.safetensors")
    index = {"_class_name": "OmniGen2Pipeline", **{part: ["library", kind] for part, kind in parts.items()}}
    (place / "model_index.json").write_text(json.dumps(index), "utf-8")
    return place


def test_the_server_is_told_all_settings(server: EditsServer) -> None:
    engine = editor(server, steps=28, guidance=5.0, image_guidance=1.5, negative_prompt="blurry")
    assert edit(engine, seed=2**40 + 7).note == ""
    (form,) = server.forms
    sent = Image.open(io.BytesIO(form.pop("image")))
    assert same(sent.convert("RGB"), IMAGE)
    assert form == {
        "model": edits_server.MODEL,
        "prompt": "Make it blue.",
        "negative_prompt": "blurry",
        "num_inference_steps": "28",
        "guidance_scale": "5.0",
        "guidance_scale_2": "1.5",
        "seed": "7",
        "generator_device": "cpu",
        "n": "1",
        "size": "auto",
        "response_format": "b64_json",
        "output_format": "png",
    }


@pytest.mark.parametrize(
    "change", [{"steps": 9}, {"guidance": 1.0}, {"image_guidance": 1.0}, {"negative_prompt": "x"}, {"max_pixels": 1024}]
)
def test_what_changes_the_edit_changes_the_engine_id(server: EditsServer, change: dict[str, Any]) -> None:
    plain, changed = editor(server), editor(server, **change)
    assert plain.engine_id != changed.engine_id
    assert not same(edit(plain).image, edit(changed).image)


def test_a_large_original_is_sent_smaller_and_comes_back_in_its_size(server: EditsServer) -> None:
    large = drawn((900, 300), "teal")
    assert edit(editor(server, max_pixels=90_000), large).image.size == (900, 300)
    sent = Image.open(io.BytesIO(server.forms[-1]["image"]))
    assert sent.width * sent.height <= 90_000
    assert sent.width / sent.height == pytest.approx(3, rel=0.02)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_overload_is_waited_out(server: EditsServer, status: int) -> None:
    server.faults += [says(status, {"detail": "busy"}, Retry_After="0")] * 2
    assert edit(editor(server)).note == ""
    assert len(server.forms) == 3


def test_lasting_overload_and_a_refused_key_are_errors_with_a_remedy(
    server: EditsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults += [says(503, {"detail": "still loading"})] * 3
    with pytest.raises(EngineError, match="503: still loading"):
        edit(editor(server))
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-test")
    server.faults.append(says(401, {"error": {"message": "Unauthorized"}}))
    with pytest.raises(UnfitEngineError, match="set OPENAI_API_KEY"):
        edit(editor(server))
    assert server.keys[-1] == "Bearer of-the-test"


@pytest.mark.parametrize("status", [400, 422, 500])
def test_what_the_server_will_not_edit_is_a_note_and_the_rest_is_edited(server: EditsServer, status: int) -> None:
    server.faults += [says(status, {"detail": "Image edit failed: no such thing"})] * (3 if status == 500 else 1)
    refused, fine = editor(server).edit([IMAGE, IMAGE], ["a", "b"], [0, 1])
    assert f"({status}): Image edit failed: no such thing" in refused.note
    assert same(refused.image, IMAGE)
    assert fine.note == ""


def test_short_memory_at_the_server_names_the_settings(server: EditsServer) -> None:
    server.faults += [says(500, {"detail": "Image edit failed: CUDA out of memory. Tried to allocate 2 GiB"})] * 3
    with pytest.raises(EngineError, match=r"set spec\.engines\.editing\.maxPixels"):
        edit(editor(server))


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (b"<html>", "no image: JSONDecodeError"),
        ({"data": []}, "no image: IndexError"),
        ({"data": [{"b64_json": "AAAA"}]}, "no image: unreadable-image"),
        (answer(drawn((64, 640), "red")), "another aspect (64×640 for 61×40)"),
    ],
)
def test_an_answer_that_is_no_edit_is_a_note(server: EditsServer, content: Any, note: str) -> None:
    server.faults.append(says(200, content))
    result = edit(editor(server))
    assert note in result.note
    assert same(result.image, IMAGE)


def test_a_server_without_the_model_and_none_at_all_are_errors(server: EditsServer) -> None:
    other = server.place.replace("OmniGen2/OmniGen2", "other")
    with pytest.raises(UnfitEngineError, match=r"does not offer the model 'other'(.|\n)*OmniGen2/OmniGen2"):
        edit(OmniGen2Editor(other, patience=ONCE))
    with serving() as gone:
        place = gone.place
    with pytest.raises(EngineError, match="no answer"):
        edit(OmniGen2Editor(place, patience=ONCE))


def test_settings_that_a_running_server_cannot_be_told_are_refused(server: EditsServer) -> None:
    for change in ({"offload": "model"}, {"lora": "/x"}, {"tiled_decoding": True}, {"cache": "firstBlock"}):
        with pytest.raises(SpecError, match=r"spec\.engines\.editing\."):
            editor(server, **change)


def test_for_a_directory_a_server_is_started_and_ended_with_the_engine(directory: Path) -> None:
    engine = OmniGen2Editor(directory, "cpu", EditingSettings(), program=PROGRAM)
    assert engine._server is None
    result = edit(engine)
    assert result.note == ""
    assert result.image.size == IMAGE.size
    assert engine._server is not None
    process = engine._server._process
    assert process.poll() is None
    engine.close()
    assert process.poll() is not None
    assert not same(edit(engine).image, IMAGE)  # closed engines may be used again: a new server
    engine.close()


def test_a_server_that_does_not_start_says_why(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.symlink_to(directory)
    with pytest.raises(EngineError, match=r"ended with code 1 while it started(.|\n)*no weights here"):
        edit(OmniGen2Editor(broken, "cpu", program=PROGRAM))
    monkeypatch.setenv("VIPER_VLLM_OMNI", str(tmp_path / "no-vllm"))
    with pytest.raises(EngineError, match=r"cannot be started.*no-vllm(.|\n)*set VIPER_VLLM_OMNI"):
        edit(OmniGen2Editor(directory, "cpu"))


def test_the_directory_has_to_be_omnigen2s(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "QwenImageEditPipeline"}', "utf-8")
    with pytest.raises(InputError, match="this is a QwenImageEditPipeline, and not a OmniGen2Pipeline"):
        OmniGen2Editor(tmp_path)
    assert OmniGen2Editor(directory).engine_id.startswith("omnigen2/")


def test_the_server_gets_the_settings_of_the_start_on_its_command_line(directory: Path) -> None:
    chosen = EditingSettings(offload="sequential", tiled_decoding=True, dtype="float16")
    assert serve_command(["vllm-omni"], directory, chosen, 8123) == [
        *(
            "vllm-omni",
            "serve",
            str(directory),
            "--omni",
            "--host",
            "127.0.0.1",
            "--port",
            "8123",
            "--dtype",
            "float16",
        ),
        *("--enable-layerwise-offload", "--vae-use-tiling", "--enforce-eager"),
    ]


def test_the_server_sees_the_gpu_that_is_set() -> None:
    assert environment("cuda:1", {})["CUDA_VISIBLE_DEVICES"] == "1"
    assert environment("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,6"})["CUDA_VISIBLE_DEVICES"] == "6"
    assert environment("cuda", dict(os.environ)) == dict(os.environ)


def test_memory_is_planned_for_a_server_of_ones_own_only(directory: Path, server: EditsServer) -> None:
    chosen = EditingSettings(max_pixels=512 * 512)
    assert OmniGen2Editor.memory_needed(server.place, chosen) == 0
    assert OmniGen2Editor.memory_needed(directory, chosen) == 3 * 10 * 2 + 2 * 512 * 512 * 4096
