#!/usr/bin/python3
"""Draws what eviction_simulation --csv prints: hits over the size of the cache, a panel for each trace.

    build/release/tools/bench/eviction_simulation --csv | tools/bench/eviction_plot.py docs/eviction.svg
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from plot import Panel, Points, write_svg


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    traces: dict[str, dict[str, Points]] = {}
    for row in csv.reader(sys.stdin):
        *trace, cache, policy, percent = row  # there are commas in the names of traces
        traces.setdefault(",".join(trace), {}).setdefault(policy, []).append((float(cache), float(percent)))
    write_svg(Path(sys.argv[1]), "Hits in % of the bytes read, over the size of the cache in % of what is read",
              [Panel(name, lines) for name, lines in traces.items()], "%")
    return 0


if __name__ == "__main__":
    sys.exit(main())
