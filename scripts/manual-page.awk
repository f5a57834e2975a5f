# One page of the manual, from what ArgumentParser's generator has made of one command: in the form `qed-ublk-add`, by which man
# finds `man qed-ublk add`; with paragraphs, and with sections for the options, the examples and the exit statuses that the help
# has in its text. `commands` is a file with the list that the program's own page shows.

# A line of text: none of roff's.
function text(line) {
    gsub(/\\/, "\\e", line)
    if (line ~ /^[.']/) line = "\\&" line
    return line
}
function literal(title, lines, count,    i) {
    if (!count) return
    print ".Sh " title
    print ".Bd -literal -offset indent"
    for (i = 1; i <= count; i++) { gsub(/-/, "\\-", lines[i]); print lines[i] }
    print ".Ed"
}
function end_of_description() {
    if (program) {
        print ".Sh COMMANDS\n.Bl -tag -width \"qed-ublk-snapshots(1)\""
        while ((getline line <commands) > 0) print line
        print ".El"
    }
}

# The generator has the arguments of macros in quotes, and escapes what it takes over.
/^\.\\"/ { print ".\\\" Made of the program's help."; next }
/^\.Dt / { program = $2 == "QED-UBLK"; gsub(/\./, "-", $2); print; next }
/^\.Sh NAME/ { section = "name" }
/^\.Sh SYNOPSIS/ { section = "synopsis" }
/^\.Sh DESCRIPTION/ { section = "description" }
/^\.Bl / && section == "description" {
    end_of_description()
    print ".Sh OPTIONS"
    section = "options"
}
section == "name" && /^\.Nm / {
    name = $0
    sub(/^\.Nm /, "", name)
    file = name
    gsub(/"/, "", file)
    gsub(/ /, "-", file)
    print ".Nm " file
    next
}
section == "name" && /^\.Nd / { sub(/\."$/, "\""); print; next }
section == "synopsis" && /^\.Nm$/ { print ".Nm " name; next }
# Every command has these.
section == "synopsis" && /^\.Op Fl -(version|help)$/ { next }

section == "description" && !/^\.Sh/ {
    if ($0 == "") { part = ""; paragraph = 1; next }
    if ($0 == "Exit status:") { part = "statuses"; next }
    if ($0 ~ /^Examples?: /) { part = "examples"; sub(/^Examples?: /, "") }
    if (part == "statuses") {
        status = $1
        $1 = ""
        sub(/^ +/, "")
        statuses = statuses ".It " status "\n" text($0) "\n"
        next
    }
    if (part == "examples") {
        sub(/^ +/, "")
        examples[++example_count] = text($0)
        next
    }
    if (paragraph && described) print ".Pp"
    else if (described) print ".br"
    paragraph = 0
    described = 1
    print text($0)
    next
}
section == "options" && /^\.Pp$/ { next }
# The name of a value can end in dots already, and the generator adds its own.
{ sub(/,\.\.\.\.+$/, ",...") }
/^\.Sh "EXIT STATUS"/ { exit }
{ print }

END {
    print ".Sh EXIT STATUS\n.Bl -tag -width \"64\" -compact"
    printf "%s", statuses
    print ".El"
    literal("EXAMPLES", examples, example_count)
    print ".Sh SEE ALSO"
    if (!program) print ".Xr qed-ublk 1 ,"
    print ".Xr qed 5 ,\n.Xr qed-ublk 7"
}
