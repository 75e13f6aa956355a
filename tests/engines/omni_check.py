"""Holds what viper gives to vLLM-Omni against an installed one; run by the interpreter of its environment.

    PYTHONPATH=. …/omni/bin/python tests/engines/omni_check.py MODEL_DIRECTORY

Prints a JSON object: what its command line makes of ours, and the form fields of its image edits.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from fastapi.params import File, Form
from vllm_omni.diffusion.registry import DiffusionModelRegistry
from vllm_omni.entrypoints.cli import serve
from vllm_omni.entrypoints.openai import api_server
from vllm_omni.utils.tracking_parser import TrackingArgumentParser
from vllm_omni.version import __version__

from viper.engines.omni_server import serve_command
from viper.engines.omnigen2 import CLASSES
from viper.spec.engines import EditingSettings


def understood(directory: Path, settings: EditingSettings) -> dict[str, Any]:
    """The options of `vllm-omni serve` as its own parser reads and checks them; an unknown one ends the program."""
    serve._ensure_vllm_platform()
    parser = TrackingArgumentParser()
    (command,) = serve.cmd_init()
    command.subparser_init(parser.add_subparsers(dest="subparser"))
    args = parser.parse_args(serve_command(["vllm-omni"], directory, settings, 8123)[1:])
    command.validate(args)
    return {
        "model": args.model_tag,
        "host": args.host,
        "port": args.port,
        "dtype": args.dtype,
        "eager": args.enforce_eager,
        "model_offload": args.enable_cpu_offload,
        "layer_offload": args.enable_layerwise_offload,
        "tiling": args.vae_use_tiling,
        "lora_path": args.lora_path,
        "lora_scale": args.lora_scale,
    }


def fields() -> list[str]:
    """The names under which `POST /v1/images/edits` reads a form."""
    (route,) = [r for r in api_server.router.routes if r.path == "/v1/images/edits"]
    assert "POST" in route.methods
    found = []
    for name, parameter in inspect.signature(route.endpoint).parameters.items():
        if name != "raw_request":
            told = parameter.default
            alias = told.alias if isinstance(told, Form | File) else None
            found.append(alias or name)
    return sorted(found)


def main(directory: Path) -> dict[str, Any]:
    """All of it."""
    lora = directory / "lora" / "weights.safetensors"
    return {
        "version": __version__,
        "known": [name for name in CLASSES if name in DiffusionModelRegistry.get_supported_archs()],
        "plain": understood(directory, EditingSettings()),
        "tuned": understood(
            directory,
            EditingSettings(offload="sequential", tiled_decoding=True, compile=True, lora=str(lora), lora_scale=0.5),
        ),
        "offloaded": understood(directory, EditingSettings(offload="model", dtype="float16")),
        "fields": fields(),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
