"""The four edit categories of the paper's toolkit; `tasks.json` of a prompt set has the text behind `$task` for each.

Each category aims at one kind of perception error: omission, confused relations, an ignored background, or a
misjudged attribute.
"""

from __future__ import annotations

from typing import Final

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
