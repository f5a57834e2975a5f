#!/usr/bin/env python3
"""Compares the engine with QEMU's block layer on raw, qcow2 and QED images: speeds as ratios, never as times.

Each round runs every contender once, in turn, on a fresh image of the same file system; a ratio is taken inside its round
and the median over the rounds is shown, with the smallest and the largest. Writes a table and a plot beside it.

"fio" is the limit: fio with io_uring and direct I/O, the same pattern, on a raw file without any format; where clusters are
allocated, into space that fallocate has reserved, which is the best that the file system offers.

    bench/engine.py --rounds 5 --directory /var/tmp/bench --program .build/qed-ublk --out bench/results/engine
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys

from ratios import format_row, HEADER, median_with_spread, plot, run

GIB = 1 << 30


class Workload:
    """What is measured: options that both bench programs take, on which images, and the bars: ratio to whom, at least."""

    def __init__(self, name, options, bars, base=False, prefill=False, image_bytes=4 * GIB):
        self.name = name
        self.options = options
        self.bars = bars
        self.base = base
        self.prefill = prefill
        self.image_bytes = image_bytes


ALLOCATE = ["-w", "-c", "20000", "-d", "32", "-s", "4096", "-S", "65536", "-t", "none"]
READ = ["-c", "40000", "-d", "32", "-s", "4096", "-S", "65536", "-t", "none"]
PREFILL = ["-w", "-c", "2500", "-d", "16", "-s", "1048576", "-S", "1048576", "-t", "none"]
WORKLOADS = [
    Workload("allocate 4 KiB, 64 KiB apart, depth 32", ALLOCATE, {"qed": 18, "qcow2": 7, "raw": 1.2, "fio": None}),
    Workload("the same on an overlay of a full base", ALLOCATE, {"qed": 8, "qcow2": 1.5}, base=True, image_bytes=2 * GIB),
    Workload(
        "allocate, flush every 32, no drain",
        ["-w", "-c", "4000", "-d", "32", "-s", "4096", "-S", "65536", "-t", "none", "--flush-interval", "32", "--no-drain"],
        {"qed": 15, "raw": 0.9}),
    Workload(
        "allocate 64 KiB, sequential, depth 16",
        ["-w", "-c", "20000", "-d", "16", "-s", "65536", "-S", "65536", "-t", "none"], {"qed": 7, "raw": 1.0, "fio": None}),
    Workload("overwrite 4 KiB, depth 32", ALLOCATE, {"raw": 1.0, "fio": 0.97}, prefill=True),
    Workload("overwrite 4 KiB, depth 1", ["-w", "-c", "5000", "-d", "1", *ALLOCATE[5:]], {"raw": 1.0, "fio": 0.97},
             prefill=True),
    Workload("read 4 KiB, depth 32", READ, {"raw": 1.0, "fio": 0.97}, prefill=True),
    Workload("read 4 KiB, depth 1", ["-c", "5000", "-d", "1", *READ[4:]], {"raw": 1.0, "fio": 0.97}, prefill=True),
]


class Bench:
    def __init__(self, arguments):
        self.program = os.path.abspath(arguments.program)
        self.directory = arguments.directory
        self.rounds = arguments.rounds
        os.makedirs(self.directory, exist_ok=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def make(self, contender, workload):
        """A fresh image for a contender; its path."""
        if contender == "fio":
            return self.make_plain_file(workload)
        image = self.path("image." + contender)
        if os.path.exists(image):
            os.remove(image)
        size = str(workload.image_bytes)
        base = self.path("base.raw")
        if contender == "ours":
            options = ["--backing", base, "--backing-format", "raw"] if workload.base else []
            run(self.program, "create", *options, image, size)
        else:
            options = ["-b", base, "-F", "raw"] if workload.base else []
            run("qemu-img", "create", "-q", "-f", contender, *options, image, size)
        if workload.prefill:
            # As a guest would have: every cluster that is touched later has been written before.
            self.time(contender, image, PREFILL)
        os.sync()
        return image

    def make_plain_file(self, workload):
        image = self.path("image.fio")
        if os.path.exists(image):
            os.remove(image)
        run("fallocate", "-l", str(workload.image_bytes), image)
        if workload.prefill:
            self.time("raw", image, PREFILL)
        os.sync()
        return image

    def time_fio(self, image, options):
        """The same requests as fio makes them; seconds."""
        values = dict(zip(options, options[1:]))
        count, size, step = (int(values[name]) for name in ("-c", "-s", "-S"))
        kind = "write" if "-w" in options else "read"
        report = json.loads(run(
            "fio", "--name=limit", f"--filename={image}", "--ioengine=io_uring", "--direct=1", "--output-format=json",
            f"--rw={kind}:{step - size}" if step > size else f"--rw={kind}", f"--bs={size}", f"--iodepth={values['-d']}",
            f"--size={count * step}", f"--io_size={count * size}"))
        return report["jobs"][0][kind]["runtime"] / 1000

    def time(self, contender, image, options):
        if contender == "fio":
            return self.time_fio(image, options)
        if contender == "ours":
            output = run(self.program, "bench", *options, image)
        else:
            output = run("qemu-img", "bench", "-f", contender, *options, image)
        return float(re.search(r"Run completed in ([0-9.]+) seconds", output).group(1))

    def make_base(self):
        with open(self.path("base.raw"), "wb") as base:
            block = os.urandom(1 << 20)
            for _ in range(2048):
                base.write(block)
            os.fsync(base.fileno())

    def measure(self, workload):
        """Ratios by contender: how many times faster we are, one for each round."""
        contenders = ["ours", *workload.bars]
        ratios = {contender: [] for contender in workload.bars}
        for _ in range(self.rounds):
            times = {}
            for contender in contenders:
                image = self.make(contender, workload)
                times[contender] = self.time(contender, image, workload.options)
                os.remove(image)
            for contender in workload.bars:
                ratios[contender].append(times[contender] / times["ours"])
        return ratios

    def allocation_against_overwriting(self):
        ratios = []
        workload = Workload("", ALLOCATE, {})
        for _ in range(self.rounds):
            image = self.make("ours", workload)
            allocating = self.time("ours", image, ALLOCATE)
            overwriting = self.time("ours", image, ALLOCATE)
            ratios.append(overwriting / allocating)
        return ratios

    def cold_reads(self):
        """Random reads in a 1 TiB image with tables everywhere: bytes of tables read for each, and by how many MiB the
        peak of memory is above that of the same reads in an image of 1 GiB."""
        peaks = []
        for size, tables in (("1G", 32), ("1T", 32768)):
            image = self.path("image.cold")
            if os.path.exists(image):
                os.remove(image)
            run(self.program, "create", image, size)
            # One cluster every 32 MiB: a page of a table for each.
            run(self.program, "bench", "-w", "-c", str(tables), "-d", "32", "-s", "4096", "-S", str(32 << 20), "-t", "none",
                image)
            command = [self.program, "bench", "--random", "-c", "50000", "-d", "32", "-s", "4096", "-t", "none", "--json", image]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                report = json.loads(process.stdout.read())
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                sys.exit(f"{' '.join(command)}: status {process.returncode}")
            peaks.append(usage.ru_maxrss / 1024)
            os.remove(image)
        operations = report["storage-operations"]
        return operations["l2-page-reads"] * 4096 / report["requests"], peaks[1] - peaks[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default="/var/tmp/qed-ublk-bench")
    parser.add_argument("--program", default=".build/qed-ublk")
    parser.add_argument("--out", default="bench/results/engine")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    rows = []
    chosen = [workload for workload in WORKLOADS if arguments.only in workload.name]
    if any(workload.base for workload in chosen):
        bench.make_base()
    for workload in chosen:
        for contender, values in bench.measure(workload).items():
            rows.append((workload.name, contender, *median_with_spread(values), workload.bars[contender]))
            print(format_row(rows[-1]), flush=True)
    if not arguments.only:
        values = bench.allocation_against_overwriting()
        rows.append(("allocating, against overwriting", "ours", *median_with_spread(values), 0.7))
        print(format_row(rows[-1]), flush=True)
    lines = [HEADER, *map(format_row, rows)]
    if not arguments.only:
        cold, memory = bench.cold_reads()
        lines.append(
            f"\nCold random 4 KiB reads in a 1 TiB image: {cold:.0f} bytes of tables read for each (bar: at most 4096); "
            f"{memory:.0f} MiB more memory than for an image of 1 GiB (bar: 32, the cache's budget, and 1 for its index).")
        print(lines[-1])
    with open(arguments.out + ".md", "w") as file:
        file.write("\n".join(lines) + "\n")
    plot(rows, arguments.out + ".svg")
    shutil.rmtree(bench.directory)


if __name__ == "__main__":
    main()
