"""docs/architecture.md names every package and module at the top of the three import packages."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def tops(package: Path) -> list[str]:
    """Packages and modules directly below `package`."""
    folders = [init.parent.name for init in package.glob("*/__init__.py")]
    return sorted([*folders, *(module.stem for module in package.glob("*.py") if module.name != "__init__.py")])


@pytest.mark.parametrize("package", ["viper", "jobs/viper_jobs", "operator/viper_operator"])
def test_every_package_is_on_the_map(package: str) -> None:
    page = PAGE.read_text("utf-8")
    if package == "viper":
        forms = {name: (f"`viper/{name}/`", f"`viper/{name}.py`") for name in tops(ROOT / package)}
    else:
        page = page.split(f"### `{package}/`", 1)[1].split("\n#", 1)[0]
        forms = {name: (f"`{name}`",) for name in tops(ROOT / package)}
    assert forms
    missing = [name for name, written in forms.items() if not any(form in page for form in written)]
    assert not missing, f"docs/architecture.md does not say what these are for: {missing}"
