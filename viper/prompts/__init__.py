"""Prompt templates, one file each, in named sets: a folder here, or one of an extension.

Templates use `string.Template` placeholders (`$caption`), so JSON braces in them need no escaping. `tasks.json` has the
text behind `$task` for each category of edits.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

from viper.errors import SpecError, nearest
from viper.extensions import extensions
from viper.prompts.categories import CATEGORIES

NAMES = (
    "caption",  # image → caption C_g
    "critique",  # original, reconstruction + $caption → {"refinement": [...]}
    "refine",  # image + $caption, $refinement → refined caption
    "category",  # image + $caption → {"analysis", "chosen_category", "reasoning"}
    "instruction",  # image + $caption, $category, $task → {"entity_to_edit", "editing_instruction"}
    "judge",  # original, edited + $instruction → {"is_valid", "reason"?}
    "caption_refining",  # RL task 1: image + $caption → <think>…</think> flaws
    "operation_predicting",  # RL task 2: two images → <think>…</think> operation
    "question",  # image + $question → <think>…</think> answer
)

#: What a chat template, a processor or verl's dataset takes for an image or for the end of a message: marks of Qwen,
#: Phi, GLM, Llama, DeepSeek, Gemma, Idefics, SmolVLM, InternVL and Mistral. Those that are words of HTML as well
#: (`<s>`, `<img>`) are not among them.
_CHAT_MARKS = re.compile(
    r"<[|｜][^<>|｜\s]+[|｜]>|<(?:video|audio)>|<(?:start|end)_of_(?:turn|image|audio|utterance)>|<image_soft_token>"
    r"|<IMG_CONTEXT>|<fake_token_around_image>|<global-img>|\[/?INST\]|\[IMG(?:_BREAK|_END)?\]|<</?SYS>>"
)
#: As above, with those of images, up to where a blank undoes them.
_MARKS = re.compile(rf"(?={_CHAT_MARKS.pattern}|<image>)[<\[]")


def chat_mark(text: str) -> str:
    """The first mark in a text that a chat template or a processor takes for more than text; empty without any."""
    found = _CHAT_MARKS.search(text)
    return found[0] if found else ""


def without_marks(text: str) -> str:
    """The text with a blank in each mark that a model's tokens or a data set's images are written as.

    What a model or a stranger wrote is text: it must neither stand for an image that is not there nor end the message.
    """
    return _MARKS.sub(r"\g<0> ", text)


def check_set(name: str) -> None:
    """Raises `SpecError` for a prompt set that there is not; a path is none."""
    _folder(name)


def _folder(name: str) -> Path:
    added = {name: e.prompts for name, e in extensions().items() if e.prompts is not None}
    known = added | {file.parent.name: file.parent for file in Path(__file__).parent.glob(f"*/{NAMES[0]}.txt")}
    if name not in known:
        raise SpecError(f"there is no prompt set {name!r}", where="spec.recipe.prompts", fix=nearest(name, known))
    return known[name]


@dataclass(frozen=True)
class PromptSet:
    """A named set of templates; `digest(name)` goes into every sample passport. `tasks`: category → text of `$task`."""

    name: str
    templates: dict[str, str]
    tasks: dict[str, str]

    @classmethod
    def load(cls, name: str) -> PromptSet:
        """Reads a set; raises `SpecError` when it does not exist or is incomplete."""
        folder = _folder(name)
        missing = [n for n in NAMES if not (folder / f"{n}.txt").is_file()]
        try:
            tasks = json.loads((folder / "tasks.json").read_text("utf-8"))
            missing += [c for c in CATEGORIES if not isinstance(tasks[c], str)]
        except (OSError, ValueError, LookupError, TypeError):
            missing += [f"tasks.json with a text for each of {list(CATEGORIES)}"]
        if missing:
            raise SpecError(f"prompt set {name!r} lacks {missing}", where="spec.recipe.prompts")
        return cls(name, {n: (folder / f"{n}.txt").read_text("utf-8").strip() for n in NAMES}, tasks)

    def render(self, template: str, **values: str) -> str:
        """Fills a template, with nothing but text; raises `KeyError` when a placeholder has no value."""
        plain = {name: without_marks(value) for name, value in values.items()}
        return Template(self.templates[template]).substitute(plain)

    def digest(self, template: str) -> str:
        """sha256 of the template text, hexadecimal."""
        return hashlib.sha256(self.templates[template].encode()).hexdigest()
