"""The one function through which arq carries runs: ids and numbers, many in a message."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from jobs.work import Work
from scheduler.runs.dispatch import Dispatched

FUNCTION = "perform"
LONGEST_MESSAGE = 250
"""Runs of one message: so that a large dispatch is shared by several workers."""


def to_message(dispatched: list[Dispatched]) -> list[list[Any]]:
    """As JSON carries them."""
    return [[each.id.hex, each.seq] for each in dispatched]


def message_id(dispatched: list[Dispatched]) -> str:
    """arq's job id. A number is dispatched once, so no two messages begin with the same run and number."""
    return f"{dispatched[0].id}:{dispatched[0].seq}"


async def perform(context: dict[str, Any], message: list[list[Any]]) -> None:
    """Begin these runs, as this worker has room. arq is done with them then: their rows know the rest."""
    work: Work = context["work"]
    await work.executor.begin([Dispatched(UUID(hex=run_id), seq) for run_id, seq in message])
