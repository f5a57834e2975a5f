"""Tables of what was measured, with the bars."""

from device_records import OURS
from ratios import format_row, median_text, median_with_spread

MIB = 1 << 20
NAMES = {
    "c-server": "C server, raw", "loop": "loop, raw", "nbd-qed": "qemu-nbd, QED", "nbd-qcow2": "qemu-nbd, qcow2",
}
WORKS = {
    "randread-d1": "random read 4 KiB, depth 1",
    "randread-d32": "random read 4 KiB, depth 32",
    "overwrite-d1": "overwrite 4 KiB, depth 1",
    "overwrite-d32": "overwrite 4 KiB, depth 32",
    "empty-allocate-d1": "allocating random write, depth 1",
    "empty-allocate-d32": "allocating random write, depth 32",
    "seqread-d1": "read 1 MiB, depth 1",
    "seqread-d32": "read 1 MiB, depth 32",
    "empty-seqwrite-d1": "write 1 MiB, empty image, depth 1",
    "empty-seqwrite-d32": "write 1 MiB, empty image, depth 32",
    "empty-fsync-d1": "32 jobs, fdatasync after each write",
    "mkfs": "mkfs.ext4",
    "untar": "tar -x of 1500 small files, sync",
}
BARS = {
    "randread": {"c-server": 0.95, "nbd-qed": 5, "nbd-qcow2": 5},
    "overwrite": {"c-server": 0.95, "nbd-qed": 5, "nbd-qcow2": 5},
    "empty-allocate": {"nbd-qed": 30, "nbd-qcow2": 15},
}
OWN_BAR = 0.7
FLUSHES_PER_SYNC_BAR, ADD_BAR_MS, MEMORY_BAR_MIB = 8, 50, 8

SETS = {
    "memory": "Images on a RAM disk",
    "disk": "Images on a virtual disk",
    "counted": "Images on a RAM disk, in instructions: of kernel, server and fio together, on one processor",
}
SPEED_HEADER = """| work | against | median | smallest | largest | bar | | the C server | server time |
|---|---|---|---|---|---|---|---|---|"""


def bar_of(work, against):
    return BARS.get(work.rpartition("-")[0], {}).get(against)


def speed_rows(records, kind):
    """Rows for the table and, without its last columns, for the plot."""
    for work, name in WORKS.items():
        for against, against_name in NAMES.items():
            values = records.ratios(kind, work, against)
            if not values:
                continue
            limit = "" if against == "c-server" else median_text(records.ratios(kind, work, against, of="c-server"))
            cost = "" if against == "loop" else median_text(records.server_cost_ratios(kind, work, against))
            yield (name, against_name, *median_with_spread(values), bar_of(work, against)), limit, cost
        again = work.replace("empty", "again")
        if again != work and (kind, again) in records.runs:
            runs = records.runs[kind, work][OURS], records.runs[kind, again][OURS]
            values = [runs[0][number].rate / runs[1][number].rate for number in sorted(runs[0])]
            yield (name, "our own overwrites of the same", *median_with_spread(values), OWN_BAR), "", ""


def speed_table(records, kind, plotted):
    lines = [SPEED_HEADER]
    for row, limit, cost in speed_rows(records, kind):
        plotted.append(row)
        text = format_row(row).replace("the limit |", "|")
        lines.append(f"{text} {limit} | {cost} |")
    return lines


def verdict(reached):
    return "reached" if reached else "**not reached**"


def syncs_table(records):
    lines = ["| 32 jobs, fdatasync after each write | flushes | syncs of the image | flushes for one sync | bar | |",
             "|---|---|---|---|---|---|"]
    for contender in (OURS, *NAMES):
        if contender in records.syncs:
            flushes, syncs = records.syncs[contender]
            each = flushes / max(syncs, 1)
            bar = f"{FLUSHES_PER_SYNC_BAR} | {verdict(each >= FLUSHES_PER_SYNC_BAR)}" if contender == OURS else " |"
            lines.append(f"| {NAMES.get(contender, OURS)} | {flushes} | {syncs} | {each:.1f} | {bar} |")
    return lines


def standing_table(records):
    contenders = [OURS, *NAMES]
    lines = ["| | " + " | ".join(NAMES.get(contender, OURS) for contender in contenders) + " | bar | |",
             "|---|" + "---|" * (len(contenders) + 2)]

    def add(name, values, bar, reached):
        last = "" if reached is None else verdict(reached)
        lines.append(f"| {name} | " + " | ".join(values) + f" | {bar} | {last} |")

    attach = records.runs["standing", "attach"]
    # The machine's clock counts 2 ns for each; a machine that takes 1 ns is a slow one.
    milliseconds = {contender: [500 / run.rate for run in attach[contender].values()] for contender in contenders}
    add("from the command to a disk that can be used, ms at 1 ns for an instruction", [
        median_text(milliseconds[contender]) for contender in contenders], ADD_BAR_MS,
        median_with_spread(milliseconds[OURS])[0] <= ADD_BAR_MS)

    def mebibytes(name, of, bar="", reached=None):
        add(name, [f"{of(records.memory[contender]) / MIB:.1f}" if contender in records.memory else ""
                   for contender in contenders], bar, reached)

    own = records.memory[OURS].own / MIB
    everything = own + records.memory[OURS].programs / MIB
    mebibytes("memory of the server's own beside I/O buffers, MiB", lambda memory: memory.own, MEMORY_BAR_MIB,
              own <= MEMORY_BAR_MIB)
    mebibytes("the same with the pages of its program and libraries, MiB", lambda memory: memory.own + memory.programs,
              MEMORY_BAR_MIB, everything <= MEMORY_BAR_MIB)
    mebibytes("I/O buffers, as far as they were used, MiB", lambda memory: memory.buffers)
    add("processor time in 30 idle seconds, ms", [
        f"{records.idle[contender][0] * 10}" if contender in records.idle else "" for contender in contenders], 0,
        records.idle[OURS][0] == 0)
    add("how often its threads woke up in them", [
        f"{records.idle[contender][1]}" if contender in records.idle else "" for contender in contenders], "", None)
    return lines


def report(records):
    """The section of a kernel, as lines, and the rows to plot."""
    schedulers = ", ".join(f"{NAMES.get(name, OURS)} {value}" for name, value in records.schedulers.items())
    lines = [
        f"## Linux {records.kernel}", "",
        "*median*: how many times as fast we are; *the C server*: how many times as fast that one is, which is what",
        "the driver allows; *server time*: how many times our server's processor time theirs takes for a request.",
        f"I/O schedulers, as the kernel chose them: {schedulers}.", "",
    ]
    for (contender, work, words), count in records.deaths.items():
        name = WORKS.get(work, "mkfs.ext4 and tar")
        lines += [f"{NAMES[contender]} died {count} times of {name}: `{words}`. It was tried twice in each round.", ""]
    plotted = []
    for kind, title in SETS.items():
        rows = []
        table = speed_table(records, kind, rows)
        if rows:
            lines += [f"### {title}", "", *table, ""]
            plotted = plotted or rows
    if records.syncs:
        lines += ["### Flushes", "", *syncs_table(records), ""]
    if records.idle:
        lines += ["### A disk that stands", "", *standing_table(records), ""]
    return lines, plotted
