"""Conditions and updates in DynamoDB's words."""

from __future__ import annotations

import re
from typing import Any

Item = dict[str, dict[str, str]]


def as_number(value: float) -> dict[str, str]:
    """Write a number as DynamoDB types it."""
    return {"N": str(value) if isinstance(value, int) else f"{value:.6f}"}


def setting(changes: Item, condition: str, values: Item) -> dict[str, Any]:
    """Say which attributes to set, and on what condition."""
    new = {f"new_{name}": value for name, value in changes.items()}
    parts = expressions(condition, values | new)
    assignments = ", ".join(f"#{name} = :new_{name}" for name in changes)
    parts["UpdateExpression"] = f"SET {assignments}"
    parts["ExpressionAttributeNames"] |= {f"#{name}": name for name in changes}
    return parts


def any_item() -> dict[str, Any]:
    """Return a condition that always holds, also where there is no item."""
    return expressions("attribute_not_exists(#never)", {})


def expressions(
    condition: str, values: Item, kind: str = "ConditionExpression"
) -> dict[str, Any]:
    """Name what an expression speaks of: so many words are reserved in DynamoDB."""
    names = {f"#{name}": name for name in re.findall(r"#(\w+)", condition)}
    parts: dict[str, Any] = {kind: condition, "ExpressionAttributeNames": names}
    if values:
        parts["ExpressionAttributeValues"] = {f":{n}": v for n, v in values.items()}
    return parts
