#!/usr/bin/env python3
"""Measures random reads through a chain of 1000 files against the same reads of one, and the memory that their tables take.

In the chain each cluster is in one of the files. Twice, always past the page cache: with data on the disk; and
with 64 GiB of holes, where nothing is waited for and the way to the data is all that there is, the kernel's to 1000 files
included. Each time is the difference between a long run and a short one, in which all tables have come into memory.

    bench/deep-chain.py --rounds 5 --directory /var/tmp/bench --program .build/qed-ublk
"""

import argparse
import array
import json
import os
import random
import statistics
import struct
import sys

from ratios import completed, median_text, write_table

CLUSTER = 64 << 10
TABLE = 4 * CLUSTER
ENTRIES = TABLE // 8
HAS_BACKING = 1
BAR_SPEED, BAR_MEMORY = 0.95, 1.2


def write_image(path, size, clusters, backing=None, data=None):
    """An image that has these clusters of the disk, each with `data`, or as a hole."""
    tables = {}
    tables_end = CLUSTER + TABLE
    for index in sorted({cluster // ENTRIES for cluster in clusters}):
        tables[index] = tables_end
        tables_end += TABLE
    end = tables_end
    pages = {}
    for cluster in clusters:
        offset = tables[cluster // ENTRIES] + cluster % ENTRIES * 8
        pages.setdefault(offset & ~4095, bytearray(4096))[offset & 4095:(offset & 4095) + 8] = struct.pack("<Q", end)
        end += CLUSTER
    with open(path, "wb") as file:
        file.truncate(end)
        name = backing.encode() if backing else b""
        file.write(struct.pack("<4sIIIQQQQQII", b"QED\0", CLUSTER, TABLE // CLUSTER, 1, HAS_BACKING if backing else 0, 0, 0,
                               CLUSTER, size, 64 if backing else 0, len(name)) + name)
        l1 = array.array("Q", bytes(TABLE))
        for index, offset in tables.items():
            l1[index] = offset
        file.seek(CLUSTER)
        file.write(l1.tobytes())
        for offset, page in sorted(pages.items()):
            file.seek(offset)
            file.write(page)
        for offset in range(tables_end, end if data else 0, CLUSTER):
            file.seek(offset)
            file.write(data)
        os.fsync(file.fileno())


def make(directory, size, depth, data):
    """A chain and an image with the same disk."""
    os.makedirs(directory, exist_ok=True)
    path = lambda name: os.path.join(directory, name)
    source = random.Random(1)
    clusters = [[] for _ in range(depth)]
    for cluster in range(size // CLUSTER):
        # Of each page of tables eight files have something, each of others.
        clusters[(cluster // 512 * 131 + source.randrange(8) * 17) % depth].append(cluster)
    for number, own in enumerate(clusters):
        write_image(path(f"{number}.qed"), size, own, f"{number - 1}.qed" if number else None, data)
    write_image(path("one.qed"), size, range(size // CLUSTER), None, data)
    return path(f"{depth - 1}.qed"), path("one.qed")


def read(program, path, count):
    """The seconds of so many reads all over the disk, 32 at once, and the peak of the memory in KiB."""
    result = completed(
        "/usr/bin/time", "-f", "%M", program, "bench", "-t", "none", "--backing-cache", "none", "-d", "32", "-s", "4k",
        "--random", "-c", str(count), "--output", "json", path)
    return json.loads(result.stdout)["seconds"], int(result.stderr.split()[-1])


def compare(program, images, short, long, rounds):
    """The speed of the first image against the second, for each round, and the memory of each image's tables."""
    speeds = []
    memory = {}
    for _ in range(rounds):
        times = {}
        for image in images:
            begin, _ = read(program, image, short)
            times[image], peak = read(program, image, long)
            times[image] -= begin
            memory[image] = peak - read(program, image, 1)[1]
        speeds.append(times[images[1]] / times[images[0]])
    return speeds, [memory[image] for image in images]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=".build/qed-ublk")
    parser.add_argument("--directory", required=True)
    parser.add_argument("--depth", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="bench/results/deep-chain.md")
    arguments = parser.parse_args()
    verdict = lambda reached: "reached" if reached else "**not reached**"

    disk = make(os.path.join(arguments.directory, "disk"), 2 << 30, arguments.depth, os.urandom(CLUSTER))
    holes = make(os.path.join(arguments.directory, "holes"), 64 << 30, arguments.depth, None)
    on_disk, _ = compare(arguments.program, disk, 100_000, 400_000, arguments.rounds)
    in_holes, memory = compare(arguments.program, holes, 500_000, 2_500_000, arguments.rounds)
    ratio = memory[0] / memory[1]
    write_table(
        f"| a chain of {arguments.depth} against one image | | bar | |\n|---|---|---|---|",
        [f"| random reads of 4 KiB from the disk, depth 32 | {median_text(on_disk)} | {BAR_SPEED} | "
         f"{verdict(statistics.median(on_disk) >= BAR_SPEED)} |",
         f"| the same where nothing is waited for | {median_text(in_holes)} | | |",
         f"| memory for the tables of 64 GiB | {ratio:.2f} ({memory[0]} and {memory[1]} KiB) | {BAR_MEMORY} | "
         f"{verdict(ratio <= BAR_MEMORY)} |"],
        arguments.out)


if __name__ == "__main__":
    sys.exit(main())
