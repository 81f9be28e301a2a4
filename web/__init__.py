"""The HTTP door: routes, schemas, handlers, middlewares and pages. It decides nothing; `scheduler` does.

Inside this package write `from aiohttp import web` and `from web.keys import …`, never `import web`, which
would hide aiohttp's.
"""
