#!/usr/bin/env python3
"""Makes a table of what bench/zero-copy-guest.sh has measured: medians, and the ratios of runs of the same round."""
import re
import statistics
import sys

runs = {}
for line in open(sys.argv[1]):
    place, work, zero_copy, rate, cost = re.fullmatch(r"(\w+) (.*) (on|off) (\S+) (\S+)\n", line).groups()
    runs.setdefault((place, work), {}).setdefault(zero_copy, []).append((float(rate), float(cost)))


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


print("| image in | work | requests/s, copied | zero copy, to that | server's µs per request, copied | zero copy, to that |")
print("|---|---|---|---|---|---|")
for (place, work), modes in runs.items():
    pairs = list(zip(modes["off"], modes["on"]))
    rate = statistics.median(off[0] for off, _ in pairs)
    cost = statistics.median(off[1] for off, _ in pairs)
    print(
        f"| {place} | {work} | {rate:.0f} | {spread([on[0] / off[0] for off, on in pairs])} "
        f"| {cost:.1f} | {spread([on[1] / off[1] for off, on in pairs])} |"
    )
