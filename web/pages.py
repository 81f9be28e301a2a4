"""HTML pages: small, accessible, without script; what people see behind the links of their e-mails."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from aiohttp import web
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from web.problems import Problem

PAGES_PREFIX = "/act/"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("web", "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(template: str, *, status: int = 200, **values: Any) -> web.Response:
    """A page made from a template in web/templates."""
    return web.Response(
        text=_templates().get_template(template).render(**values),
        status=status,
        content_type="text/html",
        # What a link shows is for who has the link: no cache keeps it.
        headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-store"},
    )


def problem_page(problem: Problem) -> web.Response:
    """A problem as a page, with the problem's status and headers."""
    response = page("problem.html", status=problem.status, title=problem.title, detail=problem.detail)
    response.headers.extend(problem.headers)
    return response
