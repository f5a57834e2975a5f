#!/usr/bin/env python3
"""Compares the image tools with qemu-img: speeds as ratios, never as times.

Each round runs both programs in turn on the same files, first one, then the other; a ratio is taken inside its round and the
median over the rounds is shown, with the smallest and the largest. What is read is in the page cache. What is written is on
the disk when `convert` ends; qemu-img leaves that to the page cache unless it is told otherwise, so it runs both ways: "durable"
is followed by a sync of the copy, which counts. A full disk is copied at the disk's speed, which fio tells.

    bench/tools.py --rounds 5 --directory /var/tmp/bench --program .build/qed-ublk --out bench/results/tools
"""

import argparse
import json
import os
import random
import shutil
import struct
import subprocess
import time

from ratios import HEADER, format_row, median_with_spread, plot, run

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
CLUSTER, TABLE_CLUSTERS = 64 * KIB, 4


class Bench:
    def __init__(self, arguments):
        self.program = os.path.abspath(arguments.program)
        self.directory = arguments.directory
        self.rounds = arguments.rounds
        self.only = arguments.only
        self.rows = []
        os.makedirs(self.directory, exist_ok=True)

    def path(self, name):
        return os.path.join(self.directory, name)

    def compare(self, name, against, bar, ours, theirs, creates=None, durable=False):
        """Adds a row: how many times as long `theirs` takes as `ours`."""
        if not name.startswith(self.only):
            return
        ratios = []
        for number in range(self.rounds):
            times = {}
            # Who goes first changes from round to round.
            for who in ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours"):
                times[who] = self.time(ours if who == "ours" else theirs, creates, durable and who == "theirs")
            ratios.append(times["theirs"] / times["ours"])
        self.rows.append((name, against, *median_with_spread(ratios), bar))
        print(format_row(self.rows[-1]), flush=True)

    def time(self, command, creates, syncs):
        if creates and os.path.exists(creates):
            os.remove(creates)
            os.sync()
        if callable(command):
            taken = command(creates)
            os.remove(creates)
            return taken
        start = time.perf_counter()
        # Exit status 3 of check: leaks, which qemu-img sees where there are none.
        status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if syncs:
            descriptor = os.open(creates, os.O_RDWR)
            os.fsync(descriptor)
            os.close(descriptor)
        taken = time.perf_counter() - start
        assert status == 0 or (status == 3 and "check" in command), command
        if creates:
            os.remove(creates)
        return taken

    def convert(self, name, source, source_format, target_format, bar):
        target = self.path("copy")
        ours = [self.program, "convert", "-f", source_format, "-O", target_format, source, target]
        theirs = ["qemu-img", "convert", "-f", source_format, "-O", target_format, source, target]
        warm(source)
        self.compare(name, "qemu-img convert, durable", bar, ours, theirs, creates=target, durable=True)
        self.compare(name, "qemu-img convert, in the page cache", None, ours, theirs, creates=target)
        if bar is None:
            self.compare(name, "fio, the disk's speed", 0.9, ours, self.disk_seconds, creates=target)

    def disk_seconds(self, target):
        """What fio takes to write a gibibyte with direct I/O into space that is reserved: the best this disk offers."""
        run("fallocate", "-l", "1G", target)
        report = json.loads(run(
            "fio", "--name=disk", f"--filename={target}", "--ioengine=io_uring", "--direct=1", "--output-format=json",
            "--rw=write", "--bs=1M", "--iodepth=16", "--size=1G"))
        return report["jobs"][0]["write"]["runtime"] / 1000


def warm(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(4 * MIB):
            pass


def full_raw(path):
    """A gibibyte of data that does not compress."""
    block = os.urandom(64 * MIB)
    with open(path, "wb") as file:
        for _ in range(16):
            file.write(block)
        os.fsync(file.fileno())


def scattered_raw(path):
    """A disk of 4 GiB where 4 KiB of each 64 are written, as small files on a fresh file system leave it."""
    block = os.urandom(4 * KIB)
    with open(path, "wb") as file:
        file.truncate(4 * GIB)
        for offset in range(0, 4 * GIB, 64 * KIB):
            os.pwrite(file.fileno(), block, offset)
        os.fsync(file.fileno())


def full_image(path, order):
    """An image of 1 TiB with every cluster allocated, in the order in which a guest wrote them; its data are a hole."""
    per_table = CLUSTER * TABLE_CLUSTERS // 8
    table_count = TIB // CLUSTER // per_table
    with open(path, "wb") as file:
        file.write(struct.pack("<IIIIQQQQQII", 0x00444551, CLUSTER, TABLE_CLUSTERS, 1, 0, 0, 0, CLUSTER, TIB, 0, 0))
        tables_start = CLUSTER * (1 + TABLE_CLUSTERS)
        data_start = tables_start + table_count * TABLE_CLUSTERS * CLUSTER
        table_offsets = [tables_start + index * TABLE_CLUSTERS * CLUSTER for index in range(table_count)]
        os.pwrite(file.fileno(), struct.pack(f"<{table_count}Q", *table_offsets), CLUSTER)
        clusters = list(range(table_count * per_table))
        if order == "random":
            random.Random(1).shuffle(clusters)
        for index, offset in enumerate(table_offsets):
            numbers = clusters[index * per_table:(index + 1) * per_table]
            os.pwrite(file.fileno(), struct.pack(f"<{per_table}Q", *(data_start + n * CLUSTER for n in numbers)), offset)
        file.truncate(data_start + len(clusters) * CLUSTER)
        os.fsync(file.fileno())


def measure_convert(bench):
    full, scattered = bench.path("full.raw"), bench.path("scattered.raw")
    full_raw(full)
    scattered_raw(scattered)
    bench.convert("convert raw to QED, 4 KiB of each 64 written", scattered, "raw", "qed", 1.5)
    bench.convert("convert raw to QED, 1 GiB full", full, "raw", "qed", None)
    image, scattered_image = bench.path("full.qed"), bench.path("scattered.qed")
    run(bench.program, "convert", "-f", "raw", "-O", "qed", full, image)
    run(bench.program, "convert", "-f", "raw", "-O", "qed", scattered, scattered_image)
    bench.convert("convert QED to raw, 1 GiB full", image, "qed", "raw", None)
    bench.convert("convert QED to QED, 4 KiB of each 64 written", scattered_image, "qed", "qed", 1.5)
    warm(full)
    warm(image)
    bench.compare(
        "compare QED with raw, 1 GiB full", "qemu-img compare", 1.0,
        [bench.program, "compare", "-f", "qed", "-F", "raw", image, full],
        ["qemu-img", "compare", "-f", "qed", "-F", "raw", image, full])
    bench.compare(
        "compare QED with QED, 4 KiB of each 64 written", "qemu-img compare", 1.0,
        [bench.program, "compare", scattered_image, scattered_image],
        ["qemu-img", "compare", "-f", "qed", "-F", "qed", scattered_image, scattered_image])
    for path in (full, scattered, image, scattered_image):
        os.remove(path)


def measure_check(bench):
    for order in ("in order", "random"):
        image = bench.path("full.qed")
        full_image(image, order)
        bench.compare(
            f"check 1 TiB, allocated {'in order' if order == 'in order' else 'at random'}", "qemu-img check", 4,
            [bench.program, "check", image], ["qemu-img", "check", "-f", "qed", image])
        os.remove(image)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default="/var/tmp/qed-ublk-bench")
    parser.add_argument("--program", default=".build/qed-ublk")
    parser.add_argument("--out", default="bench/results/tools")
    parser.add_argument("--only", default="", help="rows whose name begins with this")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    if not arguments.only.startswith("check"):
        measure_convert(bench)
    if not arguments.only or arguments.only.startswith("check"):
        measure_check(bench)
    shutil.rmtree(bench.directory)
    if not arguments.only:
        with open(arguments.out + ".md", "w") as file:
            file.write("\n".join([HEADER, *map(format_row, bench.rows)]) + "\n")
        plot(bench.rows, arguments.out + ".svg")


if __name__ == "__main__":
    main()
