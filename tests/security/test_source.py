"""What must nowhere stand in the source, read as Python reads it."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = ("web", "jobs", "scheduler", "models", "migrations")

NOT_SECRET = {"scheduler/database.py", "scheduler/runs/backoff.py", "scheduler/runs/dispatch.py"}
"""Pauses of random length, and whose turn it is."""
EVALUATES = {"eval", "exec", "compile", "__import__"}
DESERIALIZES = {"pickle", "marshal", "shelve", "yaml", "dill", "xml", "lxml"}
STARTS_A_SHELL = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
BROKEN = {"md5", "sha1", "MD5", "SHA1", "DES", "ARC4", "ECB"}


@cache
def modules() -> list[tuple[str, list[ast.AST]]]:
    """Each file of the service, and all there is in it."""
    files = [PROJECT / "punctual.py", *(path for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py"))]
    assert len(files) > 150
    return [(str(path.relative_to(PROJECT)), list(ast.walk(ast.parse(path.read_text())))) for path in files]


def imported(nodes: list[ast.AST]) -> set[str]:
    """The packages that a file imports."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_no_shell_and_nothing_that_is_evaluated() -> None:
    for path, nodes in modules():
        assert not imported(nodes) & DESERIALIZES, path
        for node in nodes:
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in EVALUATES | STARTS_A_SHELL, (path, node.lineno)
                shell = [each for each in node.keywords if each.arg == "shell"]
                assert not shell, (path, node.lineno)


def test_random_numbers_that_matter_come_from_the_system() -> None:
    """`secrets` and `os.urandom` do; `random` can be foretold."""
    assert {path for path, nodes in modules() if "random" in imported(nodes)} == NOT_SECRET
    makers = {path for path, nodes in modules() if "secrets" in imported(nodes)}
    assert {"scheduler/accounts/api_tokens.py", "scheduler/accounts/one_time_tokens.py"} <= makers, makers


def test_no_broken_hashes() -> None:
    """TOTP has SHA-1 in it (RFC 6238, 1.2: as authenticators know it), which pyotp brings along."""
    for path, nodes in modules():
        names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        names |= {node.id for node in nodes if isinstance(node, ast.Name)}
        names |= {each.name for node in nodes if isinstance(node, ast.ImportFrom) for each in node.names}
        assert not names & BROKEN, (path, names & BROKEN)
