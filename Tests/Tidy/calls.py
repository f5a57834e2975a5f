"""What is not written: words that make a program end, or trust, where it should say what is wrong; and those that belong
into one place."""

import re

from repository import Finding, line_of
from swift_source import code_of

_FUZZ = ("Fuzz/Targets/",)
_PROGRAMS = (*_FUZZ, "Sources/qed-ublk-sim/", "Sources/qed-ublk-linearize/", "Sources/qed-ublk-power-cuts/",
             "Sources/qed-ublk-lifecycle/")

# What is looked for in code, where it may stand nevertheless, and what to do.
BANNED = [
    (r"\btry!", (), "an error ends the program; use do and catch, or let it through"),
    (r"\bas!", (), "a wrong type ends the program; use as? and say what is wrong"),
    # After a name, a closing bracket or a call: x!, x[i]!, f()!; not a != b, and not the operator in !x.
    (r"(?<=[\w\])>?])(?<!\btry)(?<!\bas)!(?!=)", (),
     "nil ends the program without a word; use guard let, or a precondition that says what must hold"),
    (r"\bfatalError\(", (), "state what must hold with precondition, or throw"),
    (r"\b(?:assert|assertionFailure)\(", (), "not there in release; use precondition"),
    (r"(?<![\w.])print\(", _PROGRAMS, "use printOutput, which notices that nobody reads"),
    (r"(?<![\w.])(?:exit|_exit)\(", (*_PROGRAMS, "Sources/qed-ublk/"), "only the program ends itself"),
    (r"\bgetenv\(|\bProcessInfo\b", (
        *_FUZZ, "Sources/qed-ublk/", "Sources/DeviceServer/Registry/Registry.swift",
        "Sources/DeviceServer/Life/Detachment.swift", "Sources/DeviceServer/Confinement/Confinement.swift",
        "Sources/DeviceServer/Background/ServiceNotification.swift", "Sources/NBDStorage/CertificateFolder.swift",
        "Sources/DeviceServer/Disk/UsersService.swift"),
        "the environment is read where it is documented; pass what it says"),
    (r"\bunsafeBitCast\(", ("Sources/IOURing/CompletionToken.swift",), "find another way, or give it its place in calls.py"),
    (r"\bunowned\(unsafe\)", (), "use unowned"),
    (r"\bDispatchQueue\b|\bThread\.sleep", (), "threads are pthreads with a name, which wait in the kernel"),
]


def check(files):
    for path, text in files.items():
        if "-Ounchecked" in text and not path.startswith("Tests/Tidy/") and path != "CONTRIBUTING.md":
            yield Finding(path, line_of(text, text.index("-Ounchecked")), "-Ounchecked takes preconditions out")
        if not path.startswith(("Sources/", "Fuzz/")) or not path.endswith(".swift"):
            continue
        code = code_of(text)
        for pattern, places, advice in BANNED:
            if path.startswith(places or ("\0",)):
                continue
            for match in re.finditer(pattern, code):
                yield Finding(path, line_of(code, match.start()), f"`{match.group().strip()}`: {advice}")
