"""Jobs that the workers know, for operators."""

from datetime import datetime
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from web.schemas.fields import Body, Line, PageQuery, Total, optional
from web.schemas.runs import Run

Cron = Annotated[
    str,
    Line(
        1,
        200,
        {
            "description": "Minute, hour, day of the month, month, day of the week; names, ranges, steps, `L` and `#`",
            "examples": ["0 9 * * MON-FRI"],
        },
    ),
]


class JobQuery(PageQuery):
    """A page of jobs."""


class JobChange(Body):
    """What is to change: what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"cron": "17 3 * * *", "enabled": True}]})

    cron: Annotated[Cron, Field(description="Five fields; or six, with the second first")] = optional()
    enabled: Annotated[bool, Field(description="Whether it runs by itself; asked for, it runs all the same")] = (
        optional()
    )


class JobRun(Body):
    """With what the job is to run."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"args": {}}]})

    args: Annotated[dict[str, Any], Field(description="As the job's `args_schema` has it")] = optional()


class JobStats(TypedDict):
    """How the job has been doing for 24 hours."""

    runs_24h: Annotated[int, Field(description="Runs asked for; a million at the most are counted")]
    failures_24h: Annotated[int, Field(description="Those that failed or were lost")]
    p50_ms: Annotated[int | None, Field(description="Of the newest 1,000 that ended; null where none did")]
    p99_ms: int | None


class Job(TypedDict):
    """A job that the workers know."""

    name: str
    description: str
    cron: Annotated[str | None, Field(description="When it runs by itself; null: only when something asks for it")]
    timezone: str
    enabled: bool
    next_run_at: datetime | None
    last_run: Run | None
    stats: JobStats
    queue: str
    timeout_s: Annotated[float, Field(description="Seconds that an attempt may take")]
    attempts: Annotated[int, Field(description="How often a run is tried")]
    args_schema: Annotated[dict[str, Any], Field(description="JSON Schema of what it can be run with")]


class JobList(TypedDict):
    """A page of jobs, by name."""

    items: list[Job]
    next_cursor: str | None
    total: NotRequired[Total]
