"""CPU time of the imports and commands that must feel instant, against a bare interpreter.

    python benchmarks/imports.py

Each is run in its own process, ROUNDS times, in turn. User and system time, so that other work on
the machine matters little; bytecode is compiled beforehand.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import subprocess
import sys
import sysconfig
from pathlib import Path

from secondary_learners.files import write_json

ROUNDS = 10
RESULT = Path(__file__).parent / "results" / "imports.json"
BARE = "bare python"
LEARNERS = str(Path(sysconfig.get_path("scripts")) / "learners")
COMMANDS = {
    BARE: [sys.executable, "-c", "pass"],
    "import secondary_learners": [sys.executable, "-c", "import secondary_learners"],
    "learners --help": [LEARNERS, "--help"],
    "learners list": [LEARNERS, "list"],
}


def cpu_ms(command: list[str]) -> float:
    """User and system time of `command` in milliseconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def main() -> None:
    for command in COMMANDS.values():
        cpu_ms(command)
    rounds = [{name: cpu_ms(command) for name, command in COMMANDS.items()} for _ in range(ROUNDS)]
    medians = {name: statistics.median(times[name] for times in rounds) for name in COMMANDS}
    above = {name: medians[name] - medians[BARE] for name in COMMANDS}
    print(f"{'median CPU ms of ' + str(ROUNDS):28} {'total':>8} {'above bare':>11}")
    for name in COMMANDS:
        print(f"{name:28} {medians[name]:8.1f} {above[name]:11.1f}")
    result = {
        "command": "python benchmarks/imports.py",
        "rounds": ROUNDS,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        "unit": "ms of CPU, median",
        "total": {name: round(value, 2) for name, value in medians.items()},
        "above_bare_python": {name: round(value, 2) for name, value in above.items()},
    }
    write_json(RESULT, result)


if __name__ == "__main__":
    main()
