#!/usr/bin/env python3
"""Measures how long an image with many tables takes to be opened for writing after a power cut, which reads all of them.

The image has a size of 1 TiB, and half of it is allocated: a table for each 2 GiB, each of them half full. Beside it fio reads
the same bytes, in pieces of a table each, at depth 32; and an empty image shows what everything else takes.

    bench/opening.py --rounds 5 --directory /var/tmp/bench --program .build/qed-ublk
"""

import argparse
import array
import json
import os
import statistics
import struct
import sys
import time

from ratios import run

CLUSTER = 64 << 10
TABLE = 4 * CLUSTER
TABLES = 512
ENTRIES = TABLE // 8
NEED_CHECK = 2
BAR_SECONDS = 1.0


def write_image(path, tables):
    """A sparse image whose first `tables` tables are half full, marked as one that was not closed. Returns their offsets."""
    offsets = []
    with open(path, "wb") as file:
        end = CLUSTER + TABLE
        for index in range(tables):
            offsets.append(end)
            entries = array.array("Q", bytes(TABLE))
            for entry in range(0, ENTRIES, 2):
                entries[entry] = end + TABLE + (entry // 2) * CLUSTER
            file.seek(end)
            file.write(entries.tobytes())
            end += TABLE + ENTRIES // 2 * CLUSTER
        file.truncate(end)
        file.seek(0)
        file.write(struct.pack("<4sIIIQQQQQII", b"QED\0", CLUSTER, TABLE // CLUSTER, 1, NEED_CHECK, 0, 0, CLUSTER,
                               TABLES * ENTRIES * CLUSTER, 0, 0))
        l1 = array.array("Q", bytes(TABLE))
        l1[:tables] = array.array("Q", offsets)
        file.seek(CLUSTER)
        file.write(l1.tobytes())
        os.fsync(file.fileno())
    return offsets


def seconds_to_open(program, path):
    """One write of 4 KiB to the image, past the page cache; it is closed and marked as clean after that."""
    with open(path, "r+b") as file:
        file.seek(16)
        file.write(struct.pack("<Q", NEED_CHECK))
        os.fsync(file.fileno())
    start = time.monotonic()
    run(program, "bench", "-w", "-c", "1", "-d", "1", "-s", "4096", "-t", "none", path)
    return time.monotonic() - start


def seconds_of_fio(log):
    output = run("fio", "--name=tables", "--read_iolog=" + log, "--ioengine=io_uring", "--direct=1", "--iodepth=32",
                 "--gtod_reduce=1", "--output-format=json")
    job = json.loads(output)["jobs"][0]["read"]
    return job["io_bytes"] / job["bw_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", default="/var/tmp/bench")
    parser.add_argument("--program", default=".build/qed-ublk")
    arguments = parser.parse_args()
    os.makedirs(arguments.directory, exist_ok=True)
    full, empty, log = (os.path.join(arguments.directory, name) for name in ("full.qed", "empty.qed", "tables.log"))
    offsets = write_image(full, TABLES)
    write_image(empty, 0)
    with open(log, "w") as file:
        file.write(f"fio version 2 iolog\n{full} add\n{full} open\n")
        file.writelines(f"{full} read {offset} {TABLE}\n" for offset in offsets)
        file.write(f"{full} close\n")
    rows = []
    for _ in range(arguments.rounds):
        rows.append((seconds_to_open(arguments.program, full), seconds_to_open(arguments.program, empty),
                     seconds_of_fio(log)))
    opening, nothing, disk = (statistics.median(column) for column in zip(*rows))
    beside = opening - nothing - disk
    print(f"tables of {TABLES * TABLE >> 20} MiB, half full: opened in {opening:.3f} s, an empty image in {nothing:.3f} s; "
          f"fio reads them in {disk:.3f} s")
    print(f"beside the disk's own speed: {beside:.3f} s (bar {BAR_SECONDS} s)")
    for path in (full, empty, log):
        os.remove(path)
    if beside > BAR_SECONDS:
        sys.exit("the bar is not reached")


if __name__ == "__main__":
    main()
