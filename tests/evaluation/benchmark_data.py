"""The seven benchmarks' data sets in small: the schemas, splits, configurations and file layout that the hub has.

Every question has a number, `number 3?`, by which a scripted model finds its answer.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

BLINK_CONFIGS = (
    "Art_Style",
    "Counting",
    "Forensic_Detection",
    "Functional_Correspondence",
    "IQ_Test",
    "Jigsaw",
    "Multi-view_Reasoning",
    "Object_Localization",
    "Relative_Depth",
    "Relative_Reflectance",
    "Semantic_Correspondence",
    "Spatial_Relation",
    "Visual_Correspondence",
    "Visual_Similarity",
)
CHOICES = ("red", "green", "blue", "black")
MMSTAR = {
    "coarse perception": ("image emotion", "image scene and topic"),
    "fine-grained perception": ("localization", "object counting"),
    "instance reasoning": ("single-instance reasoning",),
    "logical reasoning": ("diagram reasoning",),
    "math": ("geometry", "statistical reasoning"),
    "science & technology": ("geography & earth science & agriculture",),
}
#: Name of a question (`number 3?`, part of its text) → its id in our results, and the right answer.
Key = dict[str, tuple[str, str]]


def write(root: Path) -> Key:
    """Writes all seven below `root/<org>/<name>`; returns what is right."""
    import datasets

    datasets.disable_progress_bars()
    key: Key = {}
    for make in (_mmstar, _realworldqa, _mmerealworld, _blink, _mantis, _hallusion, _crpe):
        make(root, _Numbers(key))
    return key


class _Numbers:
    """Numbers questions through all data sets and notes what is right."""

    def __init__(self, key: Key) -> None:
        self._key = key

    def question(self, question_id: str, right: str) -> str:
        name = f"number {len(self._key)}?"
        self._key[name] = (question_id, right)
        return f"Which colour has {name}"


def _picture(seed: int) -> Image.Image:
    picture = Image.new("RGB", (64, 64), (seed * 37 % 256, seed * 91 % 256, 90))
    picture.paste((250, 250, 250), (8, 8, 20 + seed % 30, 24))
    return picture


def _letter(number: int) -> str:
    return "ABCD"[number % 4]


def _mmstar(root: Path, numbers: _Numbers) -> None:
    from datasets import Features, Value
    from datasets import Image as ImageFeature

    text = Value("string")
    options = "\nOptions: " + ", ".join(f"{_letter(i)}: {c}" for i, c in enumerate(CHOICES))
    kinds = [(domain, kind) for domain, kinds in MMSTAR.items() for kind in kinds]
    rows = [
        {
            "index": i,
            "question": numbers.question(f"mmstar/{i}", _letter(i)) + options,
            "image": _picture(i),
            "answer": _letter(i),
            "category": domain,
            "l2_category": kind,
            "meta_info": {"source": "ours", "split": "val", "image_path": f"{i}.jpg"},
        }
        for i, (domain, kind) in enumerate([*kinds, *kinds[:4]])
    ]
    meta = {"source": text, "split": text, "image_path": text}
    features = {"index": Value("int64"), "question": text, "image": ImageFeature(), "answer": text}
    features |= {"category": text, "l2_category": text, "meta_info": meta}
    _snapshot(root / "Lin-Chen/MMStar", {"val": ("val", rows)}, Features(features))


def _realworldqa(root: Path, numbers: _Numbers) -> None:
    from datasets import Features, Value
    from datasets import Image as ImageFeature

    text = Value("string")
    please = "Please answer directly with only the letter of the correct option and nothing else."
    rows: list[dict[str, Any]] = []
    for i in range(6):
        right = _letter(i) if i % 2 else CHOICES[i % 4]
        question = numbers.question(f"realworldqa/{i}", right)
        if i % 2:
            question += "\n" + "\n".join(f"{_letter(k)}. {c}" for k, c in enumerate(CHOICES)) + f"\n{please}"
        rows.append({"image": _picture(i), "image_path": f"{i}.webp", "question": question, "answer": right})
    features = Features({"image": ImageFeature(), "image_path": text, "question": text, "answer": text})
    _snapshot(root / "lmms-lab-encoder/RealWorldQA", {"default": ("test", rows)}, features)


def _mmerealworld(root: Path, numbers: _Numbers) -> None:
    from datasets import Features, List, Value

    text = Value("string")
    kinds = (
        ("Perception/Remote Sensing", "position"),
        ("Reasoning/Monitoring", "calculate"),
        ("Perception/Autonomous_Driving", "Attribute/color"),
        ("Reasoning/OCR with Complex Context", "scene understanding"),
    )
    rows = []
    for i in range(6):
        data = io.BytesIO()
        _picture(i).save(data, "JPEG")
        category, finer = kinds[i % 4]
        rows.append(
            {
                "bytes": base64.b64encode(data.getvalue()).decode(),
                "path": f"{i}.jpg",
                "index": i,
                "question": numbers.question(f"mmerealworld/{i}", _letter(i)),
                "multi-choice options": [f"({_letter(k)}) {c}" for k, c in enumerate(CHOICES)] + ["(E) none of these"],
                "answer": _letter(i),
                "category": category,
                "l2-category": finer,
            }
        )
    names = ("bytes", "path", "question", "answer", "category", "l2-category")
    features = Features({**dict.fromkeys(names, text), "index": Value("int64"), "multi-choice options": List(text)})
    _snapshot(root / "yifanzhang114/MME-RealWorld-Lmms-eval", {"default": ("train", rows)}, features)


def _blink(root: Path, numbers: _Numbers) -> None:
    from datasets import Features, List, Value
    from datasets import Image as ImageFeature

    text = Value("string")
    names = ("idx", "question", "sub_task", "answer", "prompt", "explanation")
    images = {f"image_{n}": ImageFeature() for n in range(1, 5)}
    features = Features({**dict.fromkeys(names, text), **images, "choices": List(text)})
    splits = {}
    for number, config in enumerate(BLINK_CONFIGS):
        rows = []
        for i in range(2):
            letter = "AB"[(number + i) % 2]
            question = numbers.question(f"blink_{config.lower().replace('-', '_')}/{i}", letter)
            pictures = {f"image_{n}": _picture(n + i) if n <= 1 + number % 4 else None for n in range(1, 5)}
            rows.append(
                {
                    "idx": f"val_{config}_{i + 1}",
                    "question": question,
                    "sub_task": config,
                    "answer": f"({letter})",
                    "prompt": f"{question} Select from the following choices.\n(A) red\n(B) green",
                    "explanation": "",
                    "choices": ["red", "green"],
                    **pictures,
                }
            )
        splits[config] = ("val", rows)
    _snapshot(root / "BLINK-Benchmark/BLINK", splits, features)


def _mantis(root: Path, numbers: _Numbers) -> None:
    from datasets import Features, List, Value
    from datasets import Image as ImageFeature

    text = Value("string")
    rows: list[dict[str, Any]] = []
    for i in range(6):
        several = i % 3 != 2
        right = _letter(i) if several else CHOICES[i % 4]
        rows.append(
            {
                "id": f"mantis_eval_{i}",
                "question_type": "multi-choice" if several else "short-answer",
                "question": numbers.question(f"mantis/{i}", right),
                "images": [_picture(k) for k in range(2 + i % 2)],
                "options": [f"({_letter(k)}) {c}" for k, c in enumerate(CHOICES)] if several else [],
                "answer": right,
                "data_source": "ours",
                "category": "comparison",
            }
        )
    names = ("id", "question_type", "question", "answer", "data_source", "category")
    features = Features({**dict.fromkeys(names, text), "images": List(ImageFeature()), "options": List(text)})
    _snapshot(root / "TIGER-Lab/Mantis-Eval", {"mantis_eval": ("test", rows)}, features)


def _hallusion(root: Path, numbers: _Numbers) -> None:
    """Three sets of two figures with two questions each: four pairs' worth of consistency in each set."""
    from datasets import Features, Value
    from datasets import Image as ImageFeature

    text = Value("string")
    rows: list[dict[str, Any]] = []
    for which, (category, sub) in enumerate((("VD", "illusion"), ("VD", "figure"), ("VS", "chart"))):
        for figure in (0, 1) if category == "VD" else (1, 2):
            for question in (0, 1):
                truth = str((which + figure + question) % 2)
                asked = numbers.question(f"hallusion_bench_image/{len(rows)}", "Yes" if truth == "1" else "No")
                rows.append(
                    {
                        "category": category,
                        "subcategory": sub,
                        "visual_input": "1",
                        "set_id": str(which),
                        "figure_id": str(figure),
                        "sample_note": sub,
                        "question_id": str(question),
                        "question": asked,
                        "gt_answer_details": "It is red." if truth == "1" else "It is not red.",
                        "gt_answer": truth,
                        "filename": f"./hallusion_bench/{category}/{sub}/{which}_{figure}.png",
                        "image": _picture(which * 4 + figure),
                    }
                )
    features = Features({**{name: text for name in rows[0] if name != "image"}, "image": ImageFeature()})
    _snapshot(root / "lmms-lab-encoder/HallusionBench", {"default": ("image", rows)}, features)


def _crpe(root: Path, numbers: _Numbers) -> None:
    from datasets import Features, Value
    from datasets import Image as ImageFeature

    text = Value("string")
    rows = [
        {
            "image": _picture(i),
            "text": numbers.question(f"crpe_relation/{i}", _letter(i))
            + "\n"
            + "\n".join(f"{_letter(k)}. {c}" for k, c in enumerate(CHOICES)),
            "correct_option": _letter(i),
            "category": ("subject", "predicate", "object")[i % 3],
        }
        for i in range(6)
    ]
    features = Features({"image": ImageFeature(), "text": text, "correct_option": text, "category": text})
    _snapshot(root / "nv-njb/CRPE", {"default": ("test", rows)}, features)


def _snapshot(folder: Path, splits: Mapping[str, tuple[str, Sequence[dict[str, Any]]]], features: Any) -> None:
    """Parquet files by configuration, and the README that says which is which."""
    from datasets import Dataset

    configs = []
    for config, (split, rows) in splits.items():
        place = "data" if config == "default" else config
        path = folder / place / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(list(rows), features=features).to_parquet(path)
        configs.append(f"- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {place}/{split}-*\n")
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n", "utf-8")


def answers(key: Key, wrong: Callable[[int], bool]) -> Iterable[tuple[str, str]]:
    """Question name → what a model says that errs where `wrong` holds for the question's number."""
    for number, (name, (_, right)) in enumerate(key.items()):
        other = {"Yes": "No", "No": "Yes"}.get(right, "C" if right in ("A", "B") else "A")
        yield name, other if wrong(number) else right
