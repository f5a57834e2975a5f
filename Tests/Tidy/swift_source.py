"""Swift as far as the rules need it: what of a file is code, and what is comment or text."""

import re

_START = re.compile(r'//|/\*|(#*)("""|")')
_PLAIN = re.compile(r'[^\n]')
_COMMENT_EDGE = re.compile(r'/\*|\*/')


def code_of(text):
    """The file with its comments and the texts of its literals blanked out, in the same lines and columns. What a literal
    interpolates is code."""
    out = []
    position = _code(text, 0, out, None)
    assert position == len(text)
    return "".join(out)


def _blank(text):
    return _PLAIN.sub(" ", text)


def _code(text, position, out, closing):
    """Copies code until `closing`, a bracket that belongs to no pair inside, or the end. Returns where that is."""
    depth = 0
    while position < len(text):
        match = _START.search(text, position)
        end = match.start() if match else len(text)
        if closing:
            for index in range(position, end):
                if text[index] == "(":
                    depth += 1
                elif text[index] == ")":
                    if depth == 0:
                        out.append(text[position:index])
                        return index
                    depth -= 1
        out.append(text[position:end])
        if not match:
            return end
        position = _comment(text, end, out) if match.group(2) is None else _literal(text, match, out)
    return position


def _comment(text, start, out):
    if text.startswith("//", start):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
    else:
        depth, end = 1, start + 2
        while depth:
            edge = _COMMENT_EDGE.search(text, end)
            if not edge:
                end = len(text)
                break
            depth += 1 if edge.group() == "/*" else -1
            end = edge.end()
    out.append(_blank(text[start:end]))
    return end


def _literal(text, match, out):
    pounds, quote = match.group(1), match.group(2)
    ending, escape = quote + pounds, "\\" + pounds
    out.append(match.group())
    position = match.end()
    while position < len(text):
        if text.startswith(ending, position):
            out.append(ending)
            return position + len(ending)
        if text.startswith(escape, position):
            if text.startswith("(", position + len(escape)):
                start = position + len(escape) + 1
                out.append(" " * len(escape) + "(")
                position = _code(text, start, out, ")")
                out.append(text[position:position + 1])
                position += 1
            else:
                step = len(escape) + 1
                out.append(_blank(text[position:position + step]))
                position += step
            continue
        out.append(_blank(text[position]))
        position += 1
    return position
