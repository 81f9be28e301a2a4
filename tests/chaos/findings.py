"""What was found in a round: violations and numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MOST_NAMED = 5
"""Examples in the text of a violation."""


@dataclass
class Verdict:
    """What was found. Nobody should trust a round with a violation."""

    violations: list[str] = field(default_factory=list)
    numbers: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    """By group and name, in the order in which they are printed."""

    def count(self, group: str, name: str, number: object) -> None:
        """Note a number."""
        self.numbers[group][name] = number

    def hold(self, what: str, guilty: Iterable[object]) -> None:
        """A violation, if there is anything guilty of it: `what` is said with how many there are, and some of them."""
        found = list(guilty)
        if found:
            named = ", ".join(map(str, found[:MOST_NAMED]))
            self.violations.append(f"{what}: {len(found)} ({named}{', …' if len(found) > MOST_NAMED else ''})")
