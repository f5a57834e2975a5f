#!/usr/bin/env python3
"""Makes a table of what bench/snapshot-pause-guest.sh has measured: the longest request while a snapshot is taken, as ratios of
measurements of the same round; medians with the smallest and the largest.

    bench/snapshot-pause.py FOLDER...
"""
import os
import statistics
import sys

from ratios import median_with_spread

PEERS = {
    "qsd-qcow2": "qemu-storage-daemon, qcow2",
    "qsd-qed": "qemu-storage-daemon, QED",
    "qsd-cached": "the same, qcow2, page cache",
    "dm-thin": "dm-thin",
    "reflink": "loop on XFS, `cp --reflink`",
}
NAMES = {"ours": "`qed-ublk snapshot`", "fork": "`qed-ublk fork`", **PEERS}
STATES = {"clean": "nothing", "dirty": "all"}
# Milliseconds in the machine with an instruction clock are of two nanoseconds for an instruction; a slow machine takes one.
COUNTED_FACTOR = 2


def median_text(values):
    """For a cell of a table; empty where nothing was measured."""
    if not values:
        return ""
    median, low, high = median_with_spread(values)
    return f"{median:.2f} ({low:.2f}-{high:.2f})" if len(values) > 1 else f"{median:.2f}"


class Folder:
    """The records of one machine: `pauses[contender, state][round]`, each a dictionary of milliseconds."""

    def __init__(self, path):
        self.pauses, self.deaths = {}, []
        self.figures = {name: [] for name in ("plain", "start", "idle", "back", "host", "host-start")}
        for name in ("records", "host"):
            if os.path.exists(os.path.join(path, name)):
                with open(os.path.join(path, name)) as file:
                    for line in file:
                        self._read(*line.split())

    def _read(self, kind, *words):
        if kind == "kernel":
            self.kernel, self.place, self.mib, self.clock = words
        elif kind == "pause":
            contender, state, number, *figures = words
            names = ("command", "before", "during", "at", "after", "requests", "waited", "written")
            values = {name: None if text == "-" else float(text) for name, text in zip(names, figures)}
            self.pauses.setdefault((contender, state), {})[int(number)] = values
        elif kind == "death":
            self.deaths.append(words)
        else:
            self.figures[kind].append(float(words[-1]))

    def figure(self, name):
        return statistics.median(self.figures[name])

    @property
    def write_factor(self):
        """How often longer than elsewhere requests take in the machine."""
        return COUNTED_FACTOR if self.clock == "counted" else self.figure("plain") / self.figure("host")

    @property
    def command_factor(self):
        """The same of a command, which is the processor's work."""
        return self.figure("start") / self.figure("host-start")

    def values(self, contender, state, name):
        measured = self.pauses.get((contender, state), {})
        return [measured[number][name] for number in sorted(measured) if measured[number][name] is not None]

    def ratios(self, over, under, name="during"):
        """Of two (contender, state), round by round."""
        above, below = self.pauses.get(over, {}), self.pauses.get(under, {})
        return [above[number][name] / below[number][name] for number in sorted(above.keys() & below.keys())]

    def best_peer(self, state):
        measured = [peer for peer in PEERS if (peer, state) in self.pauses]
        return min(measured, key=lambda peer: statistics.median(self.values(peer, state, "during")), default=None)


def machine(folder):
    where = "a RAM disk" if folder.place == "memory" else "the virtual disk"
    clock = ", the clock counts instructions" if folder.clock == "counted" else ""
    rounds = max(len(rounds) for rounds in folder.pauses.values())
    yield f"## Linux {folder.kernel.split('-')[0]}, {where}, {folder.mib} MiB{clock}; rounds: {rounds}"
    yield ""
    if folder.clock == "counted":
        yield "An instruction counts two nanoseconds; a native-equivalent request is one of a slow machine, which takes one."
    else:
        yield (f"A plain write of 4 KiB takes {folder.figure('plain'):.0f} µs in the machine, and "
               f"{folder.figure('host'):.0f} µs on its host: requests take {folder.write_factor:.1f} times as long.")
    yield (f"`qed-ublk --version` takes {folder.figure('start'):.0f} ms there, and {folder.figure('host-start'):.1f} ms on the "
           f"host: commands take {folder.command_factor:.1f} times as long. In milliseconds of the machine:")
    yield ""


def table(folder):
    yield "| | unflushed | before | longest during | after | of ours, nothing unflushed | of the best peer | command |"
    yield "|---|---|---|---|---|---|---|---|"
    for contender, name in NAMES.items():
        for state, text in STATES.items():
            if (contender, state) not in folder.pauses:
                continue
            cells = [name, text]
            cells += [median_text(folder.values(contender, state, window)) for window in ("before", "during", "after")]
            best = folder.best_peer(state)
            cells.append(median_text(folder.ratios((contender, state), ("ours", "clean"))))
            cells.append("the best" if contender == best else median_text(folder.ratios((contender, state), (best, state))))
            cells.append(median_text(folder.values(contender, state, "command")))
            yield "| " + " | ".join(cells) + " |"
    yield ""
    for contender, name in NAMES.items():
        written = folder.values(contender, "dirty", "written")
        if written and min(written) < int(folder.mib):
            yield f"- {name} had {min(written):.0f} MiB unflushed after a minute, and not all."
    for contender, state, number, *words in folder.deaths:
        yield f"- {NAMES[contender]}, {STATES[state]} unflushed, round {number}, gave no snapshot: {' '.join(words) or 'no word'}"
    yield ""


def bar(text, values, limit, unit=""):
    if not values:
        return f"| {text} | {limit}{unit} | not measured | |"
    verdict = "reached" if statistics.median(values) <= limit else "**not reached**"
    return f"| {text} | {limit}{unit} | {median_text(values)}{unit} | {verdict} |"


def bars(folder):
    def native(state, name):
        return [value / folder.write_factor for value in folder.values("ours", state, name)]

    best = folder.best_peer("dirty")
    yield "| bar | at most | measured | |"
    yield "|---|---|---|---|"
    yield bar("longest request, all unflushed to nothing", folder.ratios(("ours", "dirty"), ("ours", "clean")), 1.2)
    peer = NAMES.get(best, "none was measured")
    yield bar(f"the same, to the best peer's ({peer})", folder.ratios(("ours", "dirty"), (best, "dirty")), 0.1)
    for state, text in STATES.items():
        yield bar(f"longest request, {text} unflushed, native-equivalent", native(state, "during"), 10, " ms")
        yield bar(f"requests held for the switch, {text} unflushed, native-equivalent", native(state, "waited"), 10, " ms")
    yield bar("`fork` is done, while nobody uses the disk, native-equivalent",
              [value / folder.command_factor for value in folder.figures["idle"]], 5, " ms")
    yield bar("`rollback` is done, while nobody uses the disk, native-equivalent",
              [value / folder.command_factor for value in folder.figures["back"]], 5, " ms")
    yield ""


for path in sys.argv[1:]:
    records = Folder(path)
    for part in (machine, table, bars):
        print("\n".join(part(records)))
