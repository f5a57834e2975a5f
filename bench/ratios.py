"""What the measurements share: running programs, and tables and plots of ratios with their bars."""

import math
import os
import statistics
import subprocess
import sys


def completed(*command, timeout=600, **environment):
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment})
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")
    return result


def run(*command, timeout=600):
    return completed(*command, timeout=timeout).stdout


def write_table(header, rows, path):
    """Prints each line when it is there, and writes all of them to a file."""
    lines = [header]
    print(header)
    for row in rows:
        lines.append(row)
        print(row, flush=True)
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


def median_with_spread(values):
    return statistics.median(values), min(values), max(values)


def median_text(values):
    """For a cell of a table; empty where nothing was measured."""
    if not values:
        return ""
    median, low, high = median_with_spread(values)
    return f"{median:.2f} ({low:.2f}-{high:.2f})"


def plot(rows, path):
    """A bar for each comparison, on a logarithmic scale, with its bar to reach as a tick: plain SVG, no library."""
    left, width, height = 380, 460, 26
    largest = max(high for *_, high, _ in rows)
    scale = width / math.log10(max(largest, 10) * 10)
    x = lambda value: left + scale * math.log10(max(value, 0.1) * 10)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 80}" height="{height * len(rows) + 50}" '
             'font-family="sans-serif" font-size="12">']
    for tick in (0.1, 1, 10, 100):
        if x(tick) <= left + width:
            lines.append(f'<line x1="{x(tick)}" x2="{x(tick)}" y1="10" y2="{height * len(rows) + 20}" stroke="#ccc"/>'
                         f'<text x="{x(tick)}" y="{height * len(rows) + 38}" text-anchor="middle">{tick}x</text>')
    for index, (name, contender, median, low, high, bar) in enumerate(rows):
        y = 14 + index * height
        color = "#999" if bar is None else "#2a7" if median >= bar else "#c63"
        lines.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{name} / {contender}</text>')
        lines.append(f'<rect x="{left}" y="{y}" width="{max(x(median) - left, 1)}" height="16" fill="{color}"/>')
        lines.append(f'<line x1="{x(low)}" x2="{x(high)}" y1="{y + 8}" y2="{y + 8}" stroke="#333"/>')
        if bar is not None:
            lines.append(
                f'<line x1="{x(bar)}" x2="{x(bar)}" y1="{y - 2}" y2="{y + 18}" stroke="#000" stroke-width="2"/>')
        lines.append(f'<text x="{x(high) + 6}" y="{y + 13}">{median:.2f}</text>')
    lines.append("</svg>")
    with open(path, "w") as file:
        file.write("\n".join(lines) + "\n")


HEADER = "| work | against | median | smallest | largest | bar | |\n|---|---|---|---|---|---|---|"


def format_row(row):
    name, contender, median, low, high, bar = row
    if bar is None:
        return f"| {name} | {contender} | {median:.2f} | {low:.2f} | {high:.2f} | | the limit |"
    verdict = "reached" if median >= bar else "**not reached**"
    return f"| {name} | {contender} | {median:.2f} | {low:.2f} | {high:.2f} | {bar} | {verdict} |"
