"""A list of flaws that says that there is none is empty; a flaw that begins with "no" is a flaw."""

from __future__ import annotations

import json

import pytest

from viper.tasks.captions.flawless import says_none
from viper.tasks.operations.synthesis import weakness
from viper.tasks.structured import Critique, parse

NONE = [
    *("N/A.", "n/a", "N / A", "N.A.", "NA", "None", "NONE!", "none.", "(none)", "[None]", "**None**", "“None.”", "nil"),
    *("null", "Nothing.", "No.", "", "-", "…", "✓", "Not applicable", "Not applicable.", "empty", "Ｎｏｎｅ"),
    *("No flaws", "No flaws.", "no flaw", "NO FLAWS FOUND!", "0 flaws", "Zero errors", "free of errors", "No issues."),
    *("There are no flaws in the caption.", "There is no flaw.", "no flaws were found", "There are not any errors."),
    *("No significant errors or omissions.", "No major flaws.", "No factual inaccuracies were identified."),
    *("I could not find any flaws.", "I couldn't find any errors in the description.", "I don’t see any issues."),
    *("The caption is perfect.", "Perfect.", "The caption is already perfect", "The caption is accurate."),
    *("The caption has no flaws and accurately describes the image.", "The caption accurately describes the image."),
    *("The caption matches the image perfectly.", "No discrepancies between the caption and the image."),
    *("Nothing to report.", "nothing is missing from the caption", "Nothing wrong.", "None found.", "None identified"),
    *(
        "No corrections needed.",
        "No changes are necessary.",
        "None, the caption is perfect.",
        "No flaws: it is perfect.",
    ),
    *("Flaws: none", "Flaw 1: None", "Refinements: N/A"),
    *("1. None", "1) No flaws.", "(1) N/A", "[1] None", "None ✅", "Not needed.", "Not required", "OK", "Looks good."),
    *("Correct.", "All correct.", "Everything is correct.", "Error-free", "no flaws whatsoever", "undefined"),
    *("Nothing to change", "Nothing needs to be changed.", "The caption accurately captures the scene."),
    "There are no discrepancies between the original image and the reconstructed image.",
    *(
        "无",
        "无。",
        "没有",
        "没有缺陷",
        "无明显缺陷。",
        "没有发现任何错误。",
        "沒有任何問題",
        "なし",
        "特になし。",
        "없음",
        "нет",
    ),
    *("Aucun.", "Ninguna", "nessuno", "Nenhum", "Keine.", "Nada", "Không có"),
]
FLAWS = [
    *("None of the windows is open.", "none of the people smile", "No dog is in the image.", "No text is visible."),
    *("No person wears a hat.", "No. 7 is on the shirt.", "No, the ball is blue.", "no longer red", "Zero cats"),
    *("Nothing is on the table.", "At top left is nothing.", "There is nothing in the image.", "The cup is empty."),
    *("The caption is not perfect.", "There are flaws.", "The caption misses the dog.", "No flaws except the colour."),
    *("There are no errors on the screen.", "The error message is red.", "The issue is the color.", "No image."),
    *("No major flaws but minor issues.", "The sign says None.", "The N/A field is blank", "There is no caption."),
    *(
        "The glass is without cracks.",
        "Missing: the dog.",
        "The caption is wrong.",
        "Not a dog but a cat.",
        "None left.",
    ),
    *(
        "No visible scratches are on the car.",
        "Nobody is there.",
        "The picture has no frame.",
        "-5 degrees",
        "0",
        "∅ x",
    ),
    *(
        "1. No dog is there.",
        "2. The sign says none.",
        "没有狗",
        "没有人在房间里。",
        "图中没有红色的球",
        "无人机在天上",
    ),
    *("The scene needs a dog.", "Nothing in the scene is red.", "The wall is a correct blue.", "Correct the colour."),
    *("5. Zero", "Nada is written on the wall.", "Rien ne va plus"),
    "None. " * 100,
    "No flaws. " + "A dog is missing. " * 30,
]


@pytest.mark.parametrize("item", NONE)
def test_it_says_that_there_is_none(item: str) -> None:
    assert says_none(item)
    assert parse(Critique, json.dumps({"refinement": [item]})).refinement == []


@pytest.mark.parametrize("item", FLAWS)
def test_it_is_a_flaw(item: str) -> None:
    assert not says_none(item)
    assert parse(Critique, json.dumps({"refinement": [item]})).refinement == [item.strip()]


@pytest.mark.parametrize(
    ("text", "flaws"),
    [
        ('{"refinement": ["None", "The ball is red."]}', ["The ball is red."]),
        ('{"refinement": ["None", "N/A"]}', []),
        ('{"refinement": "None"}', []),
        ("没有发现任何缺陷。", []),
        ('{"refinement": "No flaws."}', []),
        ('```json\n{"refinement": ["There are no flaws in the caption."]}\n```', []),
        ("<think>hm</think>No flaws.", []),
        ("None", []),
        ('{"refinement": []} {"refinement": ["None"]}', []),
    ],
)
def test_the_list_is_what_is_left(text: str, flaws: list[str]) -> None:
    assert parse(Critique, text).refinement == flaws


@pytest.mark.parametrize("said", ["N/A", "None.", "nothing", "...", ""])
def test_an_instruction_that_says_none_is_empty(said: str) -> None:
    assert weakness(said) == "empty-instruction"
    assert weakness("Remove the ring.") == ""
