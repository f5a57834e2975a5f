#!/usr/bin/env python3
"""How often a request of each way through the engine asks for memory: the difference of a long and a short run.

    bench/allocations.py --directory /var/tmp/bench --program .build/qed-ublk
"""

import argparse
import os
import re
import shutil

from ratios import completed, run, write_table

HERE = os.path.dirname(os.path.abspath(__file__))
SHORT, LONG = 4000, 12000
# More is not "none": what a new L2 table takes for its directory is once for each table.
BAR = 0.1

# What is done to the image before, what a request is, and the arguments of the bench for it.
WAYS = [
    ("full", "read in memory's reach", "-d 32 -S 65536 -t none"),
    ("full", "overwrite", "-w -d 32 -S 65536 -t none"),
    ("new", "first write", "-w -d 32 -S 65536"),
    ("base", "first write over a base", "-w -d 32 -S 65536"),
    ("tables", "read whose L2 page is not in memory, depth 1", "-d 1 -S 2097152"),
    ("tables", "read whose L2 page is not in memory, depth 32", "-d 32 -S 2097152"),
    ("full", "overwrite and flush, one at a time", "-w -d 1 -S 65536 --flush-interval 1 -t none"),
    ("new", "first write and flush, one at a time", "-w -d 1 -S 65536 --flush-interval 1"),
    ("new", "first write, a flush after every fourth", "-w -d 32 -S 65536 --flush-interval 4 --no-drain"),
]


class Allocations:
    def __init__(self, arguments):
        self.program = os.path.abspath(arguments.program)
        self.directory = arguments.directory
        os.makedirs(self.directory, exist_ok=True)
        self.counter = os.path.join(self.directory, "count-allocations.so")
        run("cc", "-O2", "-shared", "-fPIC", os.path.join(HERE, "count-allocations.c"), "-o", self.counter)
        self.image = os.path.join(self.directory, "allocations.qed")
        self.base = os.path.join(self.directory, "allocations.raw")

    def make(self, kind):
        for path in (self.image, self.base):
            if os.path.exists(path):
                os.remove(path)
        if kind == "tables":
            # One cluster of each L2 page, and more pages than the cache has.
            run(self.program, "create", "--cluster-size", "4k", "--table-size", "16", self.image, "32G")
            run(self.program, "bench", "-w", "-c", "16384", "-s", "4096", "-S", "2097152", self.image)
        elif kind == "base":
            with open(self.base, "wb") as file:
                for _ in range(1024):
                    file.write(os.urandom(1 << 20))
            run(self.program, "create", "-b", self.base, "-F", "raw", self.image)
        else:
            run(self.program, "create", self.image, "1G")
            if kind == "full":
                run(self.program, "bench", "-w", "-c", "1024", "-s", "1048576", "-S", "1048576", self.image)

    def count(self, kind, arguments, requests):
        self.make(kind)
        result = completed(self.program, "bench", "-c", str(requests), "-s", "4096", *arguments.split(), self.image,
                           LD_PRELOAD=self.counter)
        return int(re.search(r"^allocations: (\d+)$", result.stderr, re.MULTILINE).group(1))

    def row(self, kind, name, arguments):
        short, long = (self.count(kind, arguments, requests) for requests in (SHORT, LONG))
        each = (long - short) / (LONG - SHORT)
        return f"| {name} | {max(each, 0):.3f}{'' if each < BAR else ', **not reached**'} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", default="/var/tmp/qed-ublk-bench")
    parser.add_argument("--program", default=".build/qed-ublk")
    parser.add_argument("--out", default="bench/results/allocations.md")
    arguments = parser.parse_args()
    allocations = Allocations(arguments)
    header = f"| request of 4 KiB | allocations for each (bar: less than {BAR}) |\n|---|---|"
    write_table(header, (allocations.row(*way) for way in WAYS), arguments.out)
    shutil.rmtree(arguments.directory)


if __name__ == "__main__":
    main()
