"""The four edit categories of the paper's toolkit and, per prompt set, the task text behind `$task`.

Each category aims at one kind of perception error: omission, confused relations, an ignored background, or a
misjudged attribute.
"""

from __future__ import annotations

from typing import Final

from viper.errors import SpecError

REMOVING_ADDING_DETAILS: Final = "Removing/Adding Details"
CHANGING_SPATIAL_RELATIONSHIPS: Final = "Changing Spatial Relationships"
EDITING_BACKGROUND: Final = "Editing Background"
ATTRIBUTE_TUNING: Final = "Attribute Tuning"
CATEGORIES: Final = (
    REMOVING_ADDING_DETAILS,
    CHANGING_SPATIAL_RELATIONSHIPS,
    EDITING_BACKGROUND,
    ATTRIBUTE_TUNING,
)
"""Names as the paper writes them; they are values of `chosen_category`."""

_TASKS: Final[dict[str, dict[str, str]]] = {
    "viper": {
        REMOVING_ADDING_DETAILS: (
            "Remove one small thing, or add one that fits the scene. It should be easy to overlook: an accessory, an "
            "item among many, a part of something intricate. Removing must leave a plausible place behind; adding "
            "must respect scale and light. Never touch the main subject as a whole."
        ),
        CHANGING_SPATIAL_RELATIONSHIPS: (
            "Move one entity so that a relation to its neighbours changes: left of, on top of, in front of, between, "
            "inside, facing. The new place must be physically plausible and clearly different from the old one. The "
            "entity itself keeps its look, and nothing else moves."
        ),
        EDITING_BACKGROUND: (
            "Change one definite element of the background, or what the background is, and leave every foreground "
            "subject exactly as it is. Prefer a concrete element (a sign, a tree, the sky) over a change of mood."
        ),
        ATTRIBUTE_TUNING: (
            "Change one attribute of one entity slightly but unmistakably: colour, material, texture, shape, size, "
            "count or state. Name the old value and the new one. The entity stays what it is and where it is."
        ),
    },
    "smallworld": {
        REMOVING_ADDING_DETAILS: "Remove or add one object.",
        CHANGING_SPATIAL_RELATIONSHIPS: "Move one object.",
        EDITING_BACKGROUND: "Change the background.",
        ATTRIBUTE_TUNING: "Change one attribute.",
    },
}


def task_text(prompts: str, category: str) -> str:
    """The task description of `category` in the prompt set named `prompts`.

    Raises:
        SpecError: the set or the category does not exist.
    """
    try:
        return _TASKS[prompts][category]
    except KeyError as error:
        raise SpecError(
            f"there is no task text for {category!r} in the prompt set {prompts!r}",
            where="recipe.prompts",
            fix=f"sets: {sorted(_TASKS)}; categories: {list(CATEGORIES)}",
        ) from error
