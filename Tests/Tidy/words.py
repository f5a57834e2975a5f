"""What a reader of the repository cannot look up: places of one machine, numbers of somebody's list, files that are elsewhere.
And what is left to be done."""

import posixpath
import re

from repository import Finding, line_of, lines

# Where a path may begin, outside of tests: what every system has, and what the machines of the tests have.
ROOTS = set("bin boot dev etc lib mnt proc root run sbin srv sys tmp usr var".split()) \
    | set("data images mem notes nonexistent other payload results".split())
# The hosts that it may refer to.
HOSTS = {"swift.org", "github.com", "llvm.org", "www.w3.org", "127.0.0.1", "kernel.org", "spdx.org", "www.apache.org",
         "www.debian.org"}

_URL = re.compile(r"\bhttps?://([A-Za-z0-9.-]+)")
_PATH = re.compile(r"""(?:^|[\s"'`(=:])/([a-z]\w*)(?=/\w)""", re.MULTILINE)
_NUMBER = re.compile(r"\b(?:[Ii]ssue|[Ff]inding|[Tt]icket|[Tt]ask)s?[ #]+\d+\b")
_LEFT = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
_PATH_IN_TEXT = re.compile(
    r"`((?!Fuzz/corpus/)(?:Sources|Tests|docs|scripts|bench|Fuzz|packaging|CSupport|CConfinement)/[\w./+@-]*[\w])`")


def check(files):
    folders = {parent for path in files for parent in _parents(path)}
    for path, text in files.items():
        if path.startswith("Tests/Tidy/"):
            continue
        for pattern, sentence in (
                (_NUMBER, "a number of a list that the reader does not have; say what it is about"),
                (_LEFT, "what is left to be done is done, or is no comment")):
            for match in pattern.finditer(text):
                yield Finding(path, line_of(text, match.start()), f"`{match.group()}`: {sentence}")
        if path.endswith(".md") or path.startswith(("Sources/", "CSupport/", "CProgramStart/", "scripts/", "packaging/")):
            for match in _PATH.finditer(text):
                if match.group(1) not in ROOTS:
                    yield Finding(path, line_of(text, match.start(1)), f"/{match.group(1)} is a place of one machine")
        for match in _URL.finditer(text):
            if match.group(1) not in HOSTS:
                yield Finding(path, line_of(text, match.start()), f"the host {match.group(1)} is not one to refer to")
        if path.endswith(".md"):
            yield from _references(path, text, files, folders)


def _parents(path):
    while path := posixpath.dirname(path):
        yield path


def _references(path, text, files, folders):
    for number, line in lines(text):
        for match in _LINK.finditer(line):
            if "://" in match.group(1):
                continue
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match.group(1)))
            if target not in files and target not in folders:
                yield Finding(path, number, f"{match.group(1)} is not in the repository")
        for match in _PATH_IN_TEXT.finditer(line):
            if match.group(1) not in files and match.group(1).rstrip("/") not in folders:
                yield Finding(path, number, f"{match.group(1)} is not in the repository")
