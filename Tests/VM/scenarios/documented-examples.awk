# The examples of a page: a line for each command, which begins with the example's number on the page and a tabulator. An example
# is a fenced block of Markdown, or a command within a sentence that names what it works on; a literal display of the manual;
# a line of --help after `Example:`. What goes on in the next line, after a backslash, | or &&, is one command.
#
#   awk -v form=markdown|manual|help -f documented-examples.awk FILE

function begin() { number++; pending = "" }
function end_block() {
    if (pending != "") print number "\t" pending
    pending = ""
}
function add(line) {
    if (line ~ /^[ \t]*$/) return
    gsub(/\t/, " ", line)
    if (pending != "") sub(/^ +/, "", line)
    line = pending line
    pending = ""
    if (line ~ /\\$/) pending = substr(line, 1, length(line) - 1)
    else if (line ~ /(\||&&) *$/) pending = line " "
    else print number "\t" line
}
# What is in backquotes, which may go on in the next line.
function end_paragraph(    parts, count, i, span) {
    count = split(paragraph, parts, "`")
    for (i = 2; i < count; i += 2) {
        span = parts[i]
        gsub(/ +/, " ", span)
        if (span ~ /^(qed-ublk|systemctl) [a-z-]+ .*[.\/@]/ && !(span in known)) {
            known[span]
            spans[++span_count] = span
        }
    }
    paragraph = ""
}

form == "markdown" && /^ *```/ {
    end_paragraph()
    fenced = !fenced
    if (fenced) begin()
    else end_block()
    next
}
form == "markdown" && fenced { add($0); next }
form == "markdown" && /^ *$/ { end_paragraph(); next }
form == "markdown" { paragraph = paragraph " " $0; next }

form == "manual" && /^\.Bd -literal/ { begin(); fenced = 1; next }
form == "manual" && /^\.Ed/ { end_block(); fenced = 0; next }
form == "manual" && fenced {
    gsub(/\\&/, "")
    gsub(/\\-/, "-")
    gsub(/\\e/, "\\")
    add($0)
    next
}

form == "help" && /^Example: / { fenced = 1; sub(/^Example: /, "") }
form == "help" && /^ *$/ { end_block(); fenced = 0 }
form == "help" && fenced {
    sub(/^ +/, "")
    if (pending == "") begin()
    add($0)
}

END {
    if (form == "markdown") end_paragraph()
    if (form != "help" && fenced) exit 1
    for (i = 1; i <= span_count; i++) {
        begin()
        add(spans[i])
    }
}
