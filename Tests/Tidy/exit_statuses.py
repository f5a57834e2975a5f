"""Exit statuses and what they mean are written once, in ExitStatus.swift: help shows them from there, and commands end with
their names."""

import re

from repository import Finding, line_of, lines

TABLE = "Sources/qed-ublk/Output/ExitStatus.swift"

_HEADING = re.compile(r"Exit status:(?:\\n|\n\s*)(.*)")
_FROM_THE_TABLE = re.compile(r"\\\((?:ExitStatus\.tableOfTool\(|\w+\.table\)|statuses\))")


def check(files):
    for path, text in files.items():
        if not path.startswith("Sources/qed-ublk/") or not path.endswith(".swift") or path == TABLE:
            continue
        for match in _HEADING.finditer(text):
            if not _FROM_THE_TABLE.match(match.group(1)):
                yield Finding(path, line_of(text, match.start()), "exit statuses written by hand; show those of ExitStatus.swift")
        for number, line in lines(text):
            if re.search(r"\bExitCode\(-?\d", line):
                yield Finding(path, number, "an exit status as a number; name it in ExitStatus.swift")
