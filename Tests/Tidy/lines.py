"""How long lines and files are. What `swift format` breaks by itself it checks itself; this is also for comments, for texts,
and for what is no Swift."""

from repository import Finding, lines

LONGEST_LINE = 130
LONGEST_FILE = 400

# Results, and what others decide the form of.
_EXEMPT = ("bench/results/",)


def _is_script(path, text):
    return text.startswith("#!") or path.endswith((".sh", ".bash", ".py", ".awk"))


def check(files):
    for path, text in files.items():
        is_code = path.endswith((".swift", ".c", ".h"))
        if path.startswith(_EXEMPT) or not (is_code or _is_script(path, text)):
            continue
        for number, line in lines(text):
            if len(line) > LONGEST_LINE:
                yield Finding(path, number, f"the line has {len(line)} characters, more than {LONGEST_LINE}")
            if line != line.rstrip():
                yield Finding(path, number, "the line ends with white space")
            if "\t" in line:
                yield Finding(path, number, "a tabulator; indent with spaces")
        if not text.endswith("\n"):
            yield Finding(path, len(text.split("\n")), "the last line has no end")
        count = text.count("\n")
        if count > LONGEST_FILE:
            yield Finding(path, count, f"the file has {count} lines, more than {LONGEST_FILE}: it holds more than one idea")
