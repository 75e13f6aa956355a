"""Holds what viper gives to vLLM against the classes of an installed vLLM; run by the interpreter of its environment.

    PYTHONPATH=. …/bin/python tests/engines/vllm_check.py MODEL_DIRECTORY

Prints a JSON object of what vLLM made of it. Every name that an upgrade of vLLM drops ends it with an error.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from pathlib import Path
from typing import Any

import xgrammar
from PIL import Image
from vllm import LLM, EngineArgs, SamplingParams
from vllm.config import StructuredOutputsConfig
from vllm.exceptions import VLLMClientError, VLLMError
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.renderers.chat_utils import MM_PARSER_MAP
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine.core_client import EngineCoreClient
from vllm.v1.engine.llm_engine import LLMEngine
from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar
from vllm.version import __version__

from viper.engines.base import Sampling, VlmRequest
from viper.engines.vllm_offline import conversation, engine_arguments, sampling_arguments
from viper.spec.engines import GenerationSettings
from viper.tasks.structured import MAX_FLAWS, MAX_TEXT, CategoryChoice, Critique, Instruction, Verdict
from viper.tasks.structured import request_schema as schema_of


def engine(directory: Path) -> dict[str, Any]:
    """The engine's arguments: names that `LLM` takes, and a configuration of the model that vLLM validates."""
    settings = GenerationSettings(max_model_tokens=512, min_pixels=784, max_pixels=9216, batch=7, memory_share=0.5)
    arguments = engine_arguments(directory, settings)
    inspect.signature(LLM.__init__).bind(None, **arguments)
    unknown = arguments.keys() - {field.name for field in dataclasses.fields(EngineArgs)}
    assert not unknown, f"EngineArgs has no {unknown}"
    structured = StructuredOutputsConfig(**arguments["structured_outputs_config"])
    args = EngineArgs(**{**arguments, "structured_outputs_config": structured})
    model = args.create_model_config()
    limits = model.multimodal_config
    return {
        "architecture": model.architectures,
        "max_model_len": model.max_model_len,
        "images": limits.get_limit_per_prompt("image"),
        "videos": limits.get_limit_per_prompt("video"),
        "pixels": limits.mm_processor_kwargs,
        "load_format": args.create_load_config().load_format,
        "whitespace": not structured.disable_any_whitespace,
        "sequences": args.max_num_seqs,
        "share": args.gpu_memory_utilization,
        "prefix_caching": args.enable_prefix_caching,
    }


def sampling(schema: dict[str, Any] | None) -> SamplingParams:
    """As the engine makes it, validated as vLLM validates a request."""
    arguments = sampling_arguments(VlmRequest((), "x", schema), Sampling(0.7, 0.9, 33, seed=5), 3)
    structured = None if schema is None else StructuredOutputsParams(**arguments["structured_outputs"])
    made = SamplingParams(**{**arguments, "structured_outputs": structured})
    validate_xgrammar_grammar(made)
    return made


def accepted(schema: dict[str, Any], *texts: str) -> list[bool]:
    """Whether decoding by the grammar that vLLM compiles (`XgrammarBackend.compile_grammar`) can give these texts."""
    from xgrammar.testing import _is_grammar_accept_string

    grammar = xgrammar.Grammar.from_json_schema(json.dumps(schema), any_whitespace=False, separators=(",", ":"))
    return [_is_grammar_accept_string(grammar, text) for text in texts]


def main(directory: Path) -> dict[str, Any]:
    part = conversation(VlmRequest((Image.new("RGB", (8, 8)),), "x"))[0]["content"][0]
    assert part["type"] in MM_PARSER_MAP
    assert part[part["type"]] is MM_PARSER_MAP[part["type"]](part)
    inspect.signature(LLM.chat).bind(None, [], [], use_tqdm=False)
    assert {"text", "finish_reason", "token_ids"} <= {field.name for field in dataclasses.fields(CompletionOutput)}
    assert "outputs" in inspect.signature(RequestOutput.__init__).parameters
    assert callable(EngineCoreClient.shutdown)
    assert "self.engine_core" in inspect.getsource(LLMEngine.__init__)
    assert issubclass(VLLMClientError, VLLMError)
    forms = [schema_of(form) for form in (Critique, CategoryChoice, Instruction, Verdict)]
    made = [sampling(schema) for schema in (None, *forms)]
    flaw = '"a"'
    return {
        "version": __version__,
        "engine": engine(directory),
        "sampling": [[s.temperature, s.top_p, s.max_tokens, s.top_k, s.repetition_penalty] for s in made],
        "seeds": sorted({s.seed for s in made}),
        "critique": accepted(forms[0], '{"refinement":["a","b"]}', '{"refinement":[]}'),
        "whitespace": accepted(forms[0], '{"refinement":[' + " " * 9, '{ "refinement":[]}', '{"refinement":\n[]}'),
        "flaws": accepted(
            forms[0],
            '{"refinement":[' + ",".join([flaw] * MAX_FLAWS) + "]}",
            '{"refinement":[' + ",".join([flaw] * (MAX_FLAWS + 1)) + "]}",
        ),
        "length": accepted(
            forms[2],
            json.dumps({"entity_to_edit": "x" * MAX_TEXT, "editing_instruction": "y"}, separators=(",", ":")),
            json.dumps({"entity_to_edit": "x" * (MAX_TEXT + 1), "editing_instruction": "y"}, separators=(",", ":")),
        ),
        "verdict": accepted(forms[3], '{"is_valid":true,"reason":null}', '{"is_valid":"yes"}'),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
