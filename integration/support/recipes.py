"""The lines that the recipes have their readers paste."""

from __future__ import annotations

import re

from integration.images import ROOT

RECIPES = ROOT / "docs/recipes"


def pasted(page: str, heading: str) -> list[str]:
    """Give the indented lines under a heading, up to the next section."""
    text = (RECIPES / page).read_text()
    under = rf"^#+ {re.escape(heading)}\n(.*?)(?=^## |\Z)"
    (body,) = re.findall(under, text, re.DOTALL | re.MULTILINE)
    return re.findall("^    (.*)", body, re.MULTILINE)
