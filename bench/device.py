#!/usr/bin/env python3
"""Compares a device of qed-ublk with what else makes a disk of a file: speeds as ratios, never as times.

All run in turn in one virtual machine: a ublk server in C on a raw file (device/ublk-file.c: what
the driver allows), the kernel's loop device on a raw file, and qemu-nbd on QED and on qcow2. The rounds are short and
many, another one goes first each time, allocating work gets a fresh image; a ratio is taken inside its round, and the
median over the rounds is shown with the smallest and the largest. A second machine, whose clock counts instructions, measures
what a request costs in all, and what a disk costs before and between its requests.

    bench/device.py --kernel 7 --rounds 5 --out bench/results/device
"""

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile

from device_records import Records
from device_report import report
from ratios import plot, run

HERE = os.path.dirname(os.path.abspath(__file__))
WORK = os.path.join(HERE, "..", ".build", "bench-device")
# Options of `vm run`, what guest.sh measures there, and in how many rounds at most: what is counted repeats.
MACHINES = {
    "counted": (["--instruction-clock"], ["counted", "standing"], 1),
    "timed": ([], ["syncs", "memory", "disk"], 1000),
}


def make_tree():
    """1500 files of the sizes of source files, the same on each machine."""
    source = random.Random(1)
    with tarfile.open(os.path.join(WORK, "tree.tar"), "w") as archive:
        for number in range(1500):
            member = tarfile.TarInfo(f"tree/{number % 12:02}/{number % 96:02}/{number:05}.c")
            member.size = min(int(source.lognormvariate(8.3, 1.2)), 300_000)
            archive.addfile(member, io.BytesIO(source.randbytes(member.size)))


def boot(arguments, kernel, name, options, sets, most_rounds):
    """Measures the sets in a machine; its results are in the folder that is returned."""
    folder = os.path.join(WORK, kernel, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    files = [os.path.abspath(arguments.program), os.path.join(WORK, "ublk-file"), os.path.join(WORK, "tree.tar"),
             os.path.join(HERE, "device", "contenders.bash"), os.path.join(HERE, "device", "disks.bash")]
    # The kernel complains of what waits for a qemu-nbd that has stopped answering.
    command = [os.path.join(HERE, "..", "Tests", "VM", "vm"), "run", "--allow-kernel-warnings",
               "--kernel", kernel, "--memory", "5120",
               "--disk", "16G", "--timeout", "3600", "--results", folder, *options]
    for file in files:
        command += ["--file", file]
    command += [os.path.join(HERE, "device", "guest.sh"), str(min(arguments.rounds, most_rounds)),
                str(arguments.milliseconds), *sets]
    if subprocess.run(command).returncode != 0:
        sys.exit(f"the measurements {name} on kernel {kernel} failed; see above")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--milliseconds", type=int, default=400, help="how long fio reads or overwrites")
    parser.add_argument("--kernel", action="append", help="6.12 or 7; may be given again (default: both)")
    parser.add_argument("--machine", action="append", choices=MACHINES,
                        help="measure in this one only, and keep the other's records; may be given again")
    parser.add_argument("--program", default=".build/qed-ublk")
    parser.add_argument("--out", default="bench/results/device")
    parser.add_argument("--report-only", action="store_true", help="make the table again of what was measured last")
    arguments = parser.parse_args()
    kernels = arguments.kernel or ["6.12", "7"]
    os.makedirs(WORK, exist_ok=True)
    if not arguments.report_only:
        run(os.path.join(HERE, "device", "build-server"), os.path.join(WORK, "ublk-file"))
        make_tree()
        for kernel in kernels:
            for machine in arguments.machine or MACHINES:
                boot(arguments, kernel, machine, *MACHINES[machine])
    lines, rows = [], []
    for kernel in kernels:
        folders = [os.path.join(WORK, kernel, machine) for machine in MACHINES]
        folders = [folder for folder in folders if os.path.exists(os.path.join(folder, "records"))]
        section, plotted = report(Records(folders))
        lines += section
        rows = rows or plotted
    print("\n".join(lines))
    with open(arguments.out + ".md", "w") as file:
        file.write("\n".join(lines) + "\n")
    plot(rows, arguments.out + ".svg")


if __name__ == "__main__":
    main()
