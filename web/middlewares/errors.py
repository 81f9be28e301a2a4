"""Whatever goes wrong inside becomes a problem document here (or, behind the links of e-mails, a page) and
nothing gets past."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from scheduler.database import is_unavailable
from scheduler.errors import PunctualError
from scheduler.logs import get_logger
from web import problems
from web.keys import REQUEST_ID
from web.pages import PAGES_PREFIX, problem_page

log = get_logger("web")


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run the handler; answer with the problem when it raises."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        problem = problems.of_http(error.status, allow)
    except Exception as error:
        problem = problem_of(error)
    return _answer(request, problem)


def problem_of(error: Exception) -> problems.Problem:
    """The problem for any exception; those that nobody foresaw are logged with their traceback and told as a
    bare 500."""
    if isinstance(error, PunctualError):
        return problems.of_domain(error)
    if isinstance(error, problems.HTTPProblem):
        return problems.of_request(error)
    if is_unavailable(error) or isinstance(error, PoolTimeoutError | RedisConnectionError | RedisTimeoutError):
        log.warning(
            "http.unavailable",
            error=type(error).__name__,
            reason=str(error).splitlines()[0][:300] if str(error) else "",
        )
        return problems.unavailable()
    log.error("http.failed", exc_info=error)
    return problems.of_http(500)


def _answer(request: web.Request, problem: problems.Problem) -> web.Response:
    if request.path.startswith(PAGES_PREFIX):
        return problem_page(problem)
    return problem.response(request[REQUEST_ID])
