"""What `make audit` runs: bandit over our own code, pip-audit over every package that is locked.

A finding is a failure. Where nobody can be asked about the packages (no network, no index that knows of
vulnerabilities), it says so in one line and does not fail: what is locked is the same everywhere, and is asked about
where there is a network.

    .ci/audit.py                        both
    .ci/audit.py code                   bandit alone
    .ci/audit.py packages [OPTION …]    pip-audit alone, with options of its own
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
CODE = ("web", "jobs", "scheduler", "models", "migrations", "punctual.py")
LOCKED = ("requirements-dev.txt", "setup/uv.txt")
"""`requirements.txt` is part of the first."""
LONGEST_S = 300
IGNORED: dict[str, str] = {}
"""Vulnerabilities that don't concern us, by id, each with the reason."""

_NOBODY_ANSWERS = re.compile(
    r"(?m)^(requests\.exceptions\.\w+|pip_audit\._service\.interface\.(ConnectionError|ServiceError))\b"
    r"|Could not connect to .* feed"
)


def say(text: str) -> None:
    """One line for people."""
    print(f"audit: {text}", flush=True)


def audit_code() -> bool:
    """Whether bandit finds nothing in our code (pyproject.toml says what is left out, and why)."""
    command = [PROGRAMS / "bandit", "--quiet", "--configfile", "pyproject.toml", "--recursive", *CODE]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    say("bandit: " + ("nothing found" if done.returncode == 0 else "FAILED"))
    return done.returncode == 0


def audit_packages(options: Sequence[str]) -> bool:
    """Whether no locked package has a known vulnerability, as far as anybody can be asked."""
    command: list[str | Path] = [PROGRAMS / "pip-audit", "--disable-pip", "--progress-spinner=off", "--format=json"]
    if "--requirement" not in options:
        command += [f"--requirement={each}" for each in LOCKED]
    command += [f"--ignore-vuln={each}" for each in IGNORED]
    try:
        done = subprocess.run(
            [*command, *options], cwd=PROJECT, capture_output=True, text=True, check=False, timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired:
        say(f"pip-audit: NOT CHECKED, nobody answered within {LONGEST_S} s")
        return True
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        if _NOBODY_ANSWERS.search(done.stderr):
            say("pip-audit: NOT CHECKED, there is no network, or nobody who knows of vulnerabilities")
            return True
        print(done.stdout, done.stderr, sep="\n", flush=True)
        say("pip-audit: FAILED")
        return False
    asked = [each for each in packages if "skip_reason" not in each]
    found = [(each, known) for each in asked for known in each["vulns"]]
    for package, known in found:
        mended = ", ".join(known["fix_versions"]) or "nowhere yet"
        print(f"{package['name']} {package['version']}: {known['id']}, mended in {mended}\n    {known['description']}")
    unknown = len(packages) - len(asked)
    if not asked:
        say(f"pip-audit: NOT CHECKED, the index here knows nothing of any of {unknown} packages")
    else:
        rest = f"; NOT CHECKED: {unknown} that the index does not know" if unknown else ""
        say(f"pip-audit: {len(found) or 'no'} known vulnerabilities in {len(asked)} packages{rest}")
    return not found


def main(arguments: Sequence[str]) -> int:
    """The exit status; whatever the first finds, the second looks too."""
    match arguments:
        case []:
            fine = [audit_code(), audit_packages([])]
        case ["code"]:
            fine = [audit_code()]
        case ["packages", *options]:
            fine = [audit_packages(options)]
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
