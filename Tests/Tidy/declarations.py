"""What is declared and never mentioned again, not even by a test."""

import re

from repository import Finding, line_of
from swift_source import code_of

_DECLARATION = re.compile(
    r"\b(?:func|struct|class|enum|actor|protocol|typealias|associatedtype|var|let)[ \t]+`?([A-Za-z_]\w*)")
# Cases are declared in lines of their own; those of a switch end with a colon.
_CASES = re.compile(r"^[ \t]*(?:indirect[ \t]+)?case[ \t]+(`?[a-z_][^\n:{}]*(?:\([^\n{}]*\))?)$", re.MULTILINE)
_CASE = re.compile(r"(?:^|,)\s*`?([a-z_]\w*)")
_INNER = re.compile(r"\([^()]*\)")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_C_FUNCTION = re.compile(r"^(?:[\w*]+[ \t]+)+\*?(cs_\w+)\(", re.MULTILINE)

# Mentioned by Swift or by the packages alone: requirements of their protocols.
MENTIONED_ELSEWHERE = {
    # ArgumentParser
    "configuration", "main", "run", "validate",
    # Swift's library
    "description", "debugDescription", "hash", "enqueue", "next", "makeIterator", "rawValue",
    # Swift Log
    "log", "metadataProvider",
}

# Declares what the kernel's driver knows, all of it.
_INTERFACES = ("Sources/Ublk/UblkFeatures.swift", "Sources/Ublk/UblkParameters.swift", "Sources/Ublk/RequestDescriptor.swift")


def _declarations(code):
    for match in _DECLARATION.finditer(code):
        # The program itself, which nobody calls.
        if not code[:match.start()].rstrip().endswith("@main"):
            yield match.group(1), match.start(1)
    for match in _CASES.finditer(code):
        cases = match.group(1)
        while (shorter := _INNER.sub("", cases)) != cases:
            cases = shorter
        for name in _CASE.findall(cases):
            yield name, match.start(1)


def check(files):
    code = {path: code_of(text) for path, text in files.items() if path.endswith(".swift")}
    others = [text for path, text in files.items() if path.endswith(".c")]
    mentions = {}
    for text in (*code.values(), *others):
        for name in _IDENTIFIER.findall(text):
            mentions[name] = mentions.get(name, 0) + 1
    declared = {}
    for path, text in code.items():
        if not path.startswith(("Sources/", "Fuzz/", "Tests/TestSupport/")) or path in _INTERFACES:
            continue
        for name, position in _declarations(text):
            declared.setdefault(name, []).append((path, line_of(text, position)))
    for name, places in sorted(declared.items()):
        if name not in MENTIONED_ELSEWHERE and name != "_" and mentions[name] <= len(places):
            for path, line in places:
                yield Finding(path, line, f"nothing mentions {name}")
    for path, text in files.items():
        if path.startswith(("CSupport/", "CProgramStart/")) and path.endswith(".h"):
            # Other functions of the headers mention it too.
            within = _IDENTIFIER.findall(text)
            for match in _C_FUNCTION.finditer(text):
                name = match.group(1)
                defined = sum(len(re.findall(rf"^[\w*][\w* ]*\b{name}\(", other, re.MULTILINE)) for other in others)
                if mentions.get(name, 0) <= defined and within.count(name) == 1:
                    yield Finding(path, line_of(text, match.start(1)), f"nothing mentions {name}")
