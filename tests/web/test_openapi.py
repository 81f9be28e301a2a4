"""The OpenAPI document: valid, stable, and kept by the service (schemathesis tries to find a request that
breaks it)."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.web.conftest import Service
from web.app import openapi_document
from web.handlers import ROUTE_TABLES

HERE = Path(__file__).parent


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(openapi_document()).validate()


def test_each_operation_is_told_in_full() -> None:
    document = openapi_document()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert len(names) == sum(route.documented for table in ROUTE_TABLES for route in table.routes)
    for operation in operations:
        assert operation["summary"] and operation["tags"]
        assert any(status.startswith("2") for status in operation["responses"])
        assert all("X-Request-ID" in response["headers"] for response in operation["responses"].values())
    tags = {tag["name"] for tag in document["tags"]}
    assert tags == {tag for operation in operations for tag in operation["tags"]}


def test_the_names_of_components_do_not_depend_on_how_they_are_used() -> None:
    names = list(openapi_document()["components"]["schemas"])
    assert {"Task", "TaskCreate", "TaskChange", "User", "Problem", "Reminder"} <= set(names)
    assert all(name.isidentifier() for name in names)
    assert json.dumps(openapi_document()) == json.dumps(json.loads(json.dumps(openapi_document())))


async def test_where_it_is_served(service: Service) -> None:
    first, second = (
        await service.nobody("GET", "//openapi.json"),
        await service.nobody("GET", "/openapi.json"),
    )
    assert first.status == second.status == 200
    assert first.json == second.json == openapi_document()
    again = await service.nobody("GET", "//openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status == 304


async def test_swagger_ui_is_served_by_us(service: Service) -> None:
    import re

    page = await service.nobody("GET", "//docs")
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy and "unsafe" not in policy and "http" not in policy
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|<style|style=", page.text)
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) >= 5
    for link in links:
        assert link.startswith("/")
        assert (await service.nobody("GET", "/" + link)).status == 200, link
    for gone in ("//docs/", "//docs/index.html", "//docs/..%2fapp.py", "//docs/swagger-ui.js.map"):
        assert (await service.nobody("GET", gone)).status == 404


PARTS = {
    "accounts and admin": "--include-path-regex=^/api/v1/(auth|users|admin/)",
    "the rest": "--exclude-path-regex=^/api/v1/(auth|users|admin/)",
}


EFFORT: dict[bool, tuple[str, ...]] = {
    True: ("--phases=examples,fuzzing", "--max-examples=4"),
    # What the document says is the same; what the database makes of it is tried with fewer.
    False: ("--phases=examples,fuzzing", "--max-examples=3"),
}
if "SCHEMATHESIS_EXAMPLES" in os.environ:  # a thorough run: every phase, for as long as it takes
    EFFORT = dict.fromkeys((True, False), (f"--max-examples={os.environ['SCHEMATHESIS_EXAMPLES']}",))


@pytest.mark.slow
@pytest.mark.heavy(on="mariadb")
@pytest.mark.timeout(1800 if "SCHEMATHESIS_EXAMPLES" in os.environ else 300)
@pytest.mark.parametrize("part", PARTS)
async def test_schemathesis_finds_nothing(service: Service, tmp_path: Path, part: str) -> None:
    admin = await service.admin()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        str(HERE / "schemathesis.toml"),
        "run",
        f"{service.base}/openapi.json",
        PARTS[part],
        "--checks=all",
        # A deleted task is in the bin, where those who may restore it still see it (contract, section 5).
        "--exclude-checks=use_after_free",
        *EFFORT[service.database.is_mysql],
        "--seed=1",
        "--no-color",
        f"--header=Authorization: Bearer {admin.token}",
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": "tests.web.schemathesis_hooks",
            "PYTHONPATH": str(HERE.parent.parent),
        },
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, _readable(output)


def _readable(output: bytes) -> str:
    return output.decode(errors="replace")[-20_000:]
