"""What guest.sh leaves in /results: one line for each run, and fio's reports."""

import collections
import json
import os

TICK_SECONDS = 0.01
OURS = "ours"


class Run:
    """One run of a work on a contender's disk. The rate is requests per second, or works where they are one request."""

    def __init__(self, rate, requests, server_seconds, machine_seconds=0):
        self.rate = rate
        self.server_seconds_each = server_seconds / requests
        self.machine_seconds_each = machine_seconds / requests


class Records:
    def __init__(self, folders):
        # (set, work) -> contender -> round -> Run
        self.runs = collections.defaultdict(lambda: collections.defaultdict(dict))
        self.schedulers = {}
        # contender -> (flushes of the guest, syncs of the server)
        self.syncs = {}
        # contender -> (clock ticks, sleeps) in half a minute
        self.idle = {}
        # contender -> Memory
        self.memory = {}
        # (contender, work, last words) -> how often its server died, and the work was done again
        self.deaths = collections.Counter()
        self.kernel = ""
        for folder in folders:
            with open(os.path.join(folder, "records")) as lines:
                for line in lines:
                    kind, *fields = line.split()
                    getattr(self, "read_" + kind)(folder, *fields)
            for name in os.listdir(folder):
                if name.startswith("smaps."):
                    self.memory[name[len("smaps."):]] = Memory(os.path.join(folder, name))

    def read_kernel(self, _, release):
        self.kernel = release

    def read_scheduler(self, _, kind, contender, *names):
        self.schedulers[contender] = next(name for name in names if name.startswith("[")).strip("[]")

    def read_fio(self, folder, kind, work, contender, number, ticks, busy, name):
        job = read_job(os.path.join(folder, name))
        requests = job["read"]["total_ios"] + job["write"]["total_ios"]
        seconds = max(job["read"]["runtime"], job["write"]["runtime"]) / 1000
        self.runs[kind, work][contender][int(number)] = Run(
            requests / seconds, requests, int(ticks) * TICK_SECONDS, int(busy) * TICK_SECONDS)

    def read_time(self, _, kind, work, contender, number, ticks, microseconds):
        self.runs[kind, work][contender][int(number)] = Run(1e6 / int(microseconds), 1, int(ticks) * TICK_SECONDS)

    def read_syncs(self, folder, _, contender, count, name):
        # One fdatasync follows each write.
        self.syncs[contender] = read_job(os.path.join(folder, name))["write"]["total_ios"], int(count)

    def read_death(self, _, contender, work, *words):
        self.deaths[contender, work, " ".join(words)] += 1

    def read_idle(self, _, contender, ticks, sleeps):
        self.idle[contender] = int(ticks), int(sleeps)

    def ratios(self, kind, work, against, of=OURS):
        """How many times as fast `of` was as `against`, in each round."""
        return self.paired(kind, work, of, against, lambda a, b: a.rate / b.rate)

    def server_cost_ratios(self, kind, work, against):
        """How many times the processor time of our server the other one took for a request."""
        return self.paired(kind, work, OURS, against, lambda a, b: (
            b.server_seconds_each / a.server_seconds_each if a.server_seconds_each and b.server_seconds_each else None))

    def paired(self, kind, work, first, second, ratio):
        runs = self.runs[kind, work]
        both = sorted(runs[first].keys() & runs[second].keys())
        pairs = ((runs[first][number], runs[second][number]) for number in both)
        return [value for value in (ratio(*pair) for pair in pairs) if value is not None]


def read_job(path):
    with open(path) as file:
        text = file.read()
    # fio may say something before.
    return json.loads(text[text.index("{"):])["jobs"][0]


class Memory:
    """What of a process is in memory, in bytes."""

    def __init__(self, path):
        # The I/O buffers: large mappings of which a quarter is in memory at least. What requests have not needed may be missing.
        self.buffers = 0
        # Of its own: changed, or shared memory that it made. The rest is programs and libraries.
        self.own = 0
        self.programs = 0
        size = rss = 0
        shared = False
        with open(path) as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key == "Size":
                    size = int(value.split()[0]) << 10
                elif key == "Rss":
                    rss = int(value.split()[0]) << 10
                elif key == "Anonymous":
                    self.add(size, rss, rss if shared else int(value.split()[0]) << 10)
                elif "-" in key.split()[0]:
                    shared = line.split()[1] == "rw-s"

    def add(self, size, rss, own):
        if size >= 8 << 20 and own == rss and own * 4 >= size:
            self.buffers += rss
        else:
            self.own += own
            self.programs += rss - own
