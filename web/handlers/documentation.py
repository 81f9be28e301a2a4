"""The OpenAPI document and Swagger UI, whose files come from the installed package and are served by us."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

from aiohttp import web

from web.keys import DOCUMENT
from web.responses import hash_of
from web.routing import RouteTable

STATIC = Path(__file__).parent.parent / "static"
# Swagger UI styles elements with `style` attributes that it sets by script, which CSP allows; its icons are
# data: URLs.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

route = RouteTable("Service", prefix="")


@route("GET", "/openapi.json", summary="This document", answers={200: dict}, auth=None, documented=False)
async def get_document(request: web.Request) -> web.StreamResponse:
    """OpenAPI 3.1."""
    document = request.app[DOCUMENT]
    response = web.Response(body=document, content_type="application/json", headers={"Cache-Control": "no-cache"})
    response.etag = hash_of(document)
    if any(tag.value in ("*", hash_of(document)) for tag in request.if_none_match or ()):
        return web.Response(status=304, headers={"ETag": response.headers["ETag"]})
    return response


api_route = RouteTable("Service")
api_route("GET", "/openapi.json", summary="This document", answers={200: dict}, auth=None, documented=False)(
    get_document
)


@route("GET", "/docs", summary="Swagger UI", answers={200: None}, auth=None, documented=False)
async def get_docs() -> web.StreamResponse:
    """The page; all that it loads is ours."""
    return _file(STATIC / "docs.html")


def _assets() -> dict[str, Path]:
    swagger = Path(str(distribution("swagger-ui-py").locate_file("swagger_ui/static")))
    return {
        "swagger-ui.css": swagger / "swagger-ui.css",
        "swagger-ui-bundle.js": swagger / "swagger-ui-bundle.js",
        "favicon.png": swagger / "favicon-32x32.png",
        "docs.css": STATIC / "docs.css",
        "docs.js": STATIC / "docs.js",
    }


def add_assets(app: web.Application) -> None:
    """Register the files of the page, one by one: nothing else of those folders is served."""
    for name, path in _assets().items():
        app.router.add_get(f"/docs/{name}", _serve(path))


def _serve(path: Path):  # type: ignore[no-untyped-def]
    async def serve(_: web.Request) -> web.StreamResponse:
        return _file(path)

    return serve


def _file(path: Path) -> web.FileResponse:
    return web.FileResponse(
        path, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
    )
