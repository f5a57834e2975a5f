#!/usr/bin/env python3
"""What a 4 KiB request costs the engine in user space and in all, beside a C program that does the same on a plain file.

Instructions and memory allocations are counted by valgrind: the difference of a long and a short run, so that neither opening
the image nor loading its tables counts. Processor time (user and kernel) is measured in turn over several rounds, and shown
as the median of paired ratios.

    bench/cost.py --directory /var/tmp/bench --program .build/qed-ublk-symbols
"""

import argparse
import functools
import json
import os
import re
import shutil
import statistics

import ratios

HERE = os.path.dirname(os.path.abspath(__file__))
GIB = 1 << 30
SHORT, LONG = 40_000, 60_000


# Valgrind takes its time.
run = functools.partial(ratios.run, timeout=900)


class Profile:
    """Instructions of a run by function, and how often malloc was called."""

    def __init__(self, directory, command):
        path = os.path.join(directory, "callgrind.out")
        run("valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={path}", *command)
        self.instructions = {}
        self.mallocs = 0
        names = {}
        function = called = None
        skip = False
        with open(path) as lines:
            for line in lines:
                match = re.match(r"(c?fn)=\((\d+)\)(?: (.*))?$", line.rstrip("\n"))
                if match:
                    kind, number, name = match.groups()
                    if name:
                        names[number] = name
                    if kind == "fn":
                        function = names[number]
                    else:
                        called = names[number]
                elif line.startswith("calls="):
                    if called and called.split("'")[0] in ("malloc", "calloc", "realloc", "posix_memalign"):
                        self.mallocs += int(line[6:].split()[0])
                    # The line that follows is the callee's share.
                    skip = True
                elif function and re.match(r"[+*0-9-]", line):
                    if not skip:
                        self.instructions[function] = self.instructions.get(function, 0) + int(line.split()[1])
                    skip = False
        os.remove(path)

    def total(self, pattern=""):
        return sum(count for name, count in self.instructions.items() if re.search(pattern, name))


class Cost:
    def __init__(self, arguments):
        self.directory = arguments.directory
        self.program = os.path.abspath(arguments.program)
        self.rounds = arguments.rounds
        os.makedirs(self.directory, exist_ok=True)
        self.plain = os.path.join(self.directory, "plain-io")
        run("cc", "-O2", "-o", self.plain, os.path.join(HERE, "plain-io.c"), "-luring")
        self.image = os.path.join(self.directory, "cost.qed")
        self.file = os.path.join(self.directory, "cost.raw")
        for path in (self.image, self.file):
            if os.path.exists(path):
                os.remove(path)
        run(self.program, "create", self.image, str(GIB))
        run(self.program, "bench", "-w", "-c", "1024", "-d", "16", "-s", "1048576", "-S", "1048576", "-t", "none", self.image)
        with open(self.file, "wb") as file:
            for _ in range(1024):
                file.write(bytes(1 << 20))
            os.fsync(file.fileno())

    def ours(self, kind, count, depth, *more):
        write = ["-w"] if kind == "write" else []
        return [self.program, "bench", *write, "-c", str(count), "-d", str(depth), "-s", "4096", "-S", "65536", "-t", "none",
                *more, self.image]

    def theirs(self, kind, count, depth):
        return [self.plain, kind, self.file, str(count), str(depth), "65536"]

    def profiles(self, make):
        return Profile(self.directory, make(SHORT)), Profile(self.directory, make(LONG))

    def row(self, kind, depth):
        def per_request(pair, value):
            return (value(pair[1]) - value(pair[0])) / (LONG - SHORT)
        ours = self.profiles(lambda count: self.ours(kind, count, depth))
        theirs = self.profiles(lambda count: self.theirs(kind, count, depth))
        engine = per_request(ours, lambda profile: profile.total(r"QEDEngine|QEDChain|IOURing|io_uring|BlockStorage"))
        measured = []
        for _ in range(self.rounds):
            c = json.loads(run(*self.theirs(kind, LONG, depth)))["processor-seconds"]
            measured.append(json.loads(run(*self.ours(kind, LONG, depth, "--json")))["processor-seconds"] / c)
        total = per_request(ours, Profile.total)
        return (f"| {'overwrite' if kind == 'write' else 'read'} 4 KiB, depth {depth} | {engine:.0f} | {total - engine:.0f} "
                f"| {per_request(theirs, Profile.total):.0f} | {per_request(ours, lambda profile: profile.mallocs):.3f} "
                f"| {statistics.median(measured):.2f} ({min(measured):.2f}-{max(measured):.2f}) |")


HEADER = """| request | instructions: engine | its driver | the C program | mallocs | processor time, to the C program's |
|---|---|---|---|---|---|"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--directory", default="/var/tmp/qed-ublk-bench")
    parser.add_argument("--program", default=".build/qed-ublk-symbols")
    parser.add_argument("--out", default="bench/results/cost.md")
    arguments = parser.parse_args()
    cost = Cost(arguments)
    rows = (cost.row(kind, depth) for kind in ("read", "write") for depth in (32, 1))
    ratios.write_table(HEADER, rows, arguments.out)
    shutil.rmtree(arguments.directory)


if __name__ == "__main__":
    main()
