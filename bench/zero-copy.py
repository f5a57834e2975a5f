#!/usr/bin/env python3
"""Makes a table of what bench/zero-copy-guest.sh has measured: medians, and the ratios of runs of the same round."""
import re
import statistics
import sys

from ratios import median_text

runs = {}
for line in open(sys.argv[1]):
    place, work, zero_copy, rate, cost = re.fullmatch(r"(\S+) (.*) (on|off) (\S+) (\S+)\n", line).groups()
    runs.setdefault((place, work), {}).setdefault(zero_copy, []).append((float(rate), float(cost)))

print("| image in | work | requests/s, copied | zero copy, to that | server's µs per request, copied | zero copy, to that |")
print("|---|---|---|---|---|---|")
for (place, work), modes in runs.items():
    pairs = list(zip(modes["off"], modes["on"]))
    rate = statistics.median(off[0] for off, _ in pairs)
    cost = statistics.median(off[1] for off, _ in pairs)
    rates = f"{rate:.0f} | {median_text([on[0] / off[0] for off, on in pairs])}"
    # How fast the host's disk is says nothing of the two, and an instruction clock jumps while it is waited for.
    if place == "virtual-disk":
        rates = "|"
    print(
        f"| {place.replace('-', ' ')} | {work} | {rates} "
        f"| {cost:.1f} | {median_text([on[1] / off[1] for off, on in pairs])} |"
    )
