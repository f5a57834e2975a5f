"""Which module may import which. The modules are in the order of their layers: one imports only those above it here, so
there is no cycle. Package.swift declares of each what it imports, and no more."""

import re

from repository import Finding, line_of
from swift_source import code_of

# What our own modules may import of each other.
LAYERS = {
    "CSupport": "",
    "CProgramStart": "",
    "CConfinement": "",
    "CNBD": "",
    "Platform": "CSupport",
    "IOURing": "CSupport Platform",
    "BlockStorage": "CSupport Platform IOURing",
    # Bytes to values that are checked, and back: nothing else.
    "QEDFormat": "",
    # Knows no device: it serves tools, fuzzers and the simulation as well.
    "NBDStorage": "CSupport CNBD Platform IOURing BlockStorage",
    "QEDEngine": "CSupport Platform IOURing BlockStorage QEDFormat",
    # Images by their paths, and what they name.
    "QEDChain": "CSupport Platform IOURing BlockStorage NBDStorage QEDFormat QEDEngine",
    "ImageTools": "CSupport Platform IOURing BlockStorage QEDFormat QEDEngine QEDChain",
    # Knows no image: what it serves is a `BlockTarget`.
    "Ublk": "CSupport Platform IOURing",
    "DeviceServer":
        "CSupport CConfinement Platform IOURing BlockStorage NBDStorage QEDFormat QEDEngine QEDChain ImageTools Ublk",
    "qed-ublk":
        "CSupport Platform CProgramStart IOURing BlockStorage NBDStorage QEDFormat QEDEngine QEDChain ImageTools Ublk "
        "DeviceServer",
    # Of Ublk it has the ledger of a queue's tags.
    "Simulation": "Platform IOURing BlockStorage QEDFormat QEDEngine Ublk",
    "RealDisk": "CSupport",
    "qed-ublk-sim": "QEDEngine Simulation",
    "qed-ublk-null": "Platform CSupport Ublk",
    "qed-ublk-linearize": "CSupport Platform Simulation RealDisk",
    "qed-ublk-power-cuts": "Platform Simulation RealDisk",
    "qed-ublk-lifecycle": "Platform CSupport BlockStorage Ublk DeviceServer Simulation RealDisk",
}

# What comes with Swift, or from others, and who may import it. Foundation is for tests.
OTHERS = {
    "Glibc": None,
    "Synchronization": None,
    "SystemPackage": None,
    "ArgumentParser": "qed-ublk qed-ublk-sim qed-ublk-null qed-ublk-linearize qed-ublk-power-cuts qed-ublk-lifecycle",
    "Histogram": "qed-ublk Ublk",
    "Logging": "DeviceServer qed-ublk",
}

# Part of the toolchain, and not declared.
_TOOLCHAIN = {"Glibc", "Synchronization"}

_IMPORT = re.compile(
    r"^[ \t]*(?:@\w+[ \t]+)*(?:(?:public|package|internal)[ \t]+)?import[ \t]+(?:(?:struct|class|enum|func|var|let)[ \t]+)?(\w+)",
    re.MULTILINE)


def check(files):
    yield from _table_is_layered()
    imports = {}
    for path, text in files.items():
        parts = path.split("/")
        if parts[0] != "Sources" or not path.endswith(".swift"):
            continue
        module = parts[1]
        if module not in LAYERS:
            yield Finding(path, 1, f"{module} is in no layer; give it its place in Tests/Tidy/layers.py")
            continue
        for match in _IMPORT.finditer(code_of(text)):
            imported = match.group(1)
            imports.setdefault(module, set()).add(imported)
            if imported in LAYERS:
                allowed = imported in LAYERS[module].split()
            else:
                allowed = imported in OTHERS and (OTHERS[imported] is None or module in OTHERS[imported].split())
            # Nothing at all for what says so.
            if not allowed or module == "QEDFormat":
                yield Finding(path, line_of(text, match.start(1)), f"{module} may not import {imported}")
    yield from _declared(files, imports)


def _table_is_layered(layers=LAYERS):
    above = set()
    for module, imported in layers.items():
        for name in imported.split():
            if name not in above:
                yield Finding("Tests/Tidy/layers.py", 1, f"{module} imports {name}, which is in no layer above it")
        above.add(module)


def _declared(files, imports):
    text = files.get("Package.swift")
    if text is None:
        return
    for match in re.finditer(r'\.(?:executableTarget|target)\(\s*name: "([^"]+)"', text):
        module = match.group(1)
        if module not in imports:
            continue
        end = text.find("swiftSettings", match.end())
        block = re.search(r"dependencies: \[(.*?)\],?\s*(?:path|exclude|linkerSettings|$)", text[match.end():end], re.DOTALL)
        declared = set(re.findall(r'(?:name: )?"([A-Za-z-]+)"(?!\s*\))', block.group(1))) if block else set()
        declared |= set(re.findall(r'\.product\(name: "([A-Za-z]+)"', block.group(1))) if block else set()
        declared -= {"swift-argument-parser", "swift-log", "swift-system", "hdrhistogram-swift"}
        needed = imports[module] - _TOOLCHAIN
        for name in sorted(needed - declared):
            yield Finding("Package.swift", line_of(text, match.start()), f"{module} imports {name}, which is not declared")
        for name in sorted(declared - needed):
            yield Finding("Package.swift", line_of(text, match.start()), f"{module} declares {name} and never imports it")
