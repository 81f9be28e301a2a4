"""The alerts and the dashboard ask for numbers that there are, with labels and values that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from models.run import RunState
from scheduler.metrics import process, service
from scheduler.metrics.definitions import REQUEST_DURATION, REQUESTS, STORED, Counter, Histogram

FOLDER = Path(__file__).parent.parent.parent / "monitoring"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
PANELS: list[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text())["panels"]


def names() -> set[str]:
    """Of every series that a scrape may hold."""
    known = {"up"}
    for definition in (*STORED, REQUESTS, REQUEST_DURATION):
        if isinstance(definition, Counter):
            known.add(f"{definition.name}_total")
        else:
            assert isinstance(definition, Histogram)
            known |= {f"{definition.name}_{suffix}" for suffix in ("bucket", "count", "sum")}
    for module in (process, service):
        source = Path(str(module.__file__)).read_text()
        known |= set(re.findall(r'"(punctual_\w+)"', source))
    return known | {"punctual_up", "process_resident_memory_bytes"}


def labels_of(series: str) -> set[str]:
    """Of a counter or a histogram."""
    for definition in (*STORED, REQUESTS, REQUEST_DURATION):
        if re.fullmatch(rf"{definition.name}_(?:total|bucket|count|sum)", series):
            return {*definition.labels, "le", "instance"}
    return {"queue", "state", "pid", "instance"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts(rule: dict[str, Any]) -> None:
    asked = set(re.findall(r"\b(?:punctual_\w+|up)\b", rule["expr"]))
    assert asked and asked <= names()
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    kept = set(re.findall(r"by \(([\w, ]+)\)", rule["expr"]))
    assert all(any(label in each for each in kept) for label in labels) or "by (" not in rule["expr"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_the_dashboard(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        asked = set(re.findall(r"\b(?:punctual|process)_\w+", target["expr"]))
        assert asked and asked <= names()
        by = {label.strip() for each in re.findall(r"by \(([\w, ]+)\)", target["expr"]) for label in each.split(",")}
        assert all(by <= labels_of(series) for series in asked)
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= by


def test_what_is_asked_for_by_value_is_a_value_that_there_is() -> None:
    for label, known in (("outcome", {"sent", "deferred", "dead"}), ("state", {state.value for state in RunState})):
        values = {value for rule in RULES for value in re.findall(rf'\b{label}="(\w+)"', rule["expr"])}
        assert values and values <= known
