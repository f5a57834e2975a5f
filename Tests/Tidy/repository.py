"""The files that the rules judge, and what a rule says of one."""

import pathlib
import subprocess
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Finding(NamedTuple):
    """A place where a rule is broken. Lines count from 1."""

    path: str
    line: int
    sentence: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.sentence}"


def files():
    """Every text file of the repository, with what is not committed yet: its path there, and its content."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    content = {}
    for name in sorted(set(names)):
        path = ROOT / name
        # What is only staged for removal is not there any more; findings of the fuzzer are bytes.
        if not name or name.startswith("Fuzz/corpus/") or not path.is_file():
            continue
        content[name] = path.read_text(encoding="utf-8")
    return content


def lines(text):
    """Its lines with their numbers."""
    return enumerate(text.split("\n"), start=1)


def line_of(text, position):
    return text.count("\n", 0, position) + 1
