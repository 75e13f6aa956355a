"""What verl's dataset class makes of a Parquet file. Runs in verl's environment, asked by `support.verl_environment`.

In: {"model": directory, "file": Parquet}. Out, per row: the chat, the images' sizes and first pixels, the number of
prompt tokens, and the ground truth as a reward function gets it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from omegaconf import OmegaConf
from transformers import AutoProcessor, AutoTokenizer
from verl.utils.dataset.rl_dataset import RLHFDataset


def read(model: str, file: str) -> list[dict[str, Any]]:
    processor = AutoProcessor.from_pretrained(model, local_files_only=True)
    config = OmegaConf.create({"max_prompt_length": 4096, "filter_overlong_prompts": False, "image_key": "images"})
    dataset = RLHFDataset([file], AutoTokenizer.from_pretrained(model, local_files_only=True), config, processor)
    return [described(dataset[number], processor) for number in range(len(dataset))]


def described(row: dict[str, Any], processor: Any) -> dict[str, Any]:
    content = row["raw_prompt"][0]["content"]
    images = [part["image"].convert("RGB") for part in content if part["type"] == "image"]
    text = processor.apply_chat_template(row["raw_prompt"], add_generation_prompt=True, tokenize=False)
    return {
        "types": [part["type"] for part in content],
        "text": "".join(part["text"] for part in content if part["type"] == "text"),
        "sizes": [image.size for image in images],
        "colours": [image.getpixel((0, 0)) for image in images],
        "tokens": len(processor(text=[text], images=images)["input_ids"][0]),
        "ground_truth": row["reward_model"]["ground_truth"],
        "data_source": row["data_source"],
        "index": row["index"],
    }


if __name__ == "__main__":
    print(json.dumps(read(**json.load(sys.stdin))))
