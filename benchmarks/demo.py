"""Record the main job, `learners demo`, and draw it as an animated picture of a terminal.

    python benchmarks/demo.py

The words and figures are those of the run, results/demo.json; the waits of the picture,
docs/pictures/demo.svg, are shortened: no line is waited for longer than a second. It takes minutes,
and goes on from what is in runs/demo.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from common import RESULTS, write_result

PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "demo.svg"
FOLDER = Path("runs") / "demo"
COLUMNS, ADVANCE, HEIGHT = 108, 7.25, 18  # of the terminal; of a letter and a line in pixels
LONGEST, REST = 1.0, 6.0  # seconds: the longest wait for a line, and the look at the end
STYLE = """.line { white-space: pre; animation-timing-function: step-end;
 animation-iteration-count: infinite; }
@media (prefers-reduced-motion: reduce) { .line { animation: none !important; } }
"""


def record(arguments: Sequence[str]) -> list[tuple[float, str]]:
    """What the command prints, with the seconds after which each line came."""
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "secondary_learners", *arguments],
        env={**os.environ, "COLUMNS": str(COLUMNS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    assert process.stdout
    lines = [(round(time.monotonic() - begun, 2), raw.rstrip()) for raw in process.stdout]
    if process.wait():
        raise SystemExit("\n".join(text for _, text in lines))
    return lines


def plot(result: dict[str, Any], path: Path) -> None:
    """An SVG in which each line appears at its time, for ever again; at rest all are there."""
    shown, now, before = [(0.0, f"$ learners {' '.join(result['arguments'])}")], 0.8, 0.0
    for came, raw in result["recording"]:
        now, before = now + min(LONGEST, came - before), came
        shown += [(now, text) for text in textwrap.wrap(raw, COLUMNS) or [""]]
    whole = now + REST
    width, height = round(COLUMNS * ADVANCE + 32), len(shown) * HEIGHT + 48
    frames, texts = [], []
    for number, (begin, text) in enumerate(shown):
        if not text:
            continue
        frames.append(
            f"@keyframes l{number} {{ 0% {{ opacity: 0 }} "
            f"{100 * begin / whole:.2f}% {{ opacity: 1 }} }}"
            if begin
            else ""
        )
        style = f"animation-name:l{number};animation-duration:{whole:.1f}s"
        texts.append(
            f'<text class="line" style="{style}" x="16" y="{48 + number * HEIGHT}"'
            f' fill="{"#e6e6e6" if number else "#7ee0a1"}">{escape(text)}</text>'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"
 font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="12">
<title>Recording of a terminal: {escape(shown[0][1])}</title>
<style>{STYLE}{"".join(frames)}</style>
<rect width="{width}" height="{height}" rx="8" fill="#1e1e24"/>
<circle cx="20" cy="18" r="5" fill="#e0645c"/><circle cx="38" cy="18" r="5" fill="#e5b54a"/>
<circle cx="56" cy="18" r="5" fill="#63bf6a"/>
{chr(10).join(texts)}
</svg>
"""
    path.write_text(picture, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Record `learners demo`.")
    parser.add_argument("--out", type=Path, help="a folder for both, in place of where they are")
    out = parser.parse_args(arguments).out
    recording = record(["demo", "--out", FOLDER.as_posix()])
    comparison = json.loads((FOLDER / "comparison.json").read_text(encoding="utf-8"))
    figures = {"arguments": ["demo"], "recording": recording, "rows": comparison["rows"]}
    write_result((out or RESULTS) / "demo.json", figures, seeds=comparison["seeds"])
    picture = out / "demo.svg" if out else PICTURE
    plot(figures, picture)
    print(json.dumps({"picture": str(picture), "bytes": picture.stat().st_size}))


if __name__ == "__main__":
    main()
