# Prints the apt sources, one after the other, that carry Debian itself at a wanted suite (-v codename=...), each as a
# deb822 stanza with SUITE@ in place of the suite, and a line with "%%" after it. Reads both forms of apt's
# configuration: .sources files (stanzas) and .list files (one line each).

function carries(suites, components,    i, n, list) {
    if (components !~ /(^|[ \t])main([ \t]|$)/) return 0
    n = split(suites, list)
    for (i = 1; i <= n; i++)
        if (list[i] == codename || list[i] ~ /^(stable|oldstable|oldoldstable|testing|unstable)$/) return 1
    return 0
}

# A stanza of a .sources file has ended.
function end_stanza() {
    if (types ~ /(^|[ \t])deb([ \t]|$)/ && tolower(enabled) !~ /^(no|false|without|off|disable)/ &&
        carries(suites, components))
        printf "Types: deb\nURIs: %s\nSuites: SUITE@\nComponents: main\n%s%%%%\n", uris, options
    types = uris = suites = components = enabled = options = field = ""
}

FNR == 1 { end_stanza() }
/^[ \t]*#/ { next }

FILENAME ~ /\.sources$/ {
    if ($0 ~ /^[ \t]*$/) { end_stanza(); next }
    if ($0 ~ /^[ \t]/) value = $0
    else {
        field = tolower($0); sub(/:.*/, "", field)
        value = $0; sub(/^[^:]*:[ \t]*/, "", value)
    }
    if (field == "types") types = types " " value
    else if (field == "uris") uris = uris " " value
    else if (field == "suites") suites = suites " " value
    else if (field == "components") components = components " " value
    else if (field == "enabled") enabled = value
    else options = options $0 "\n"
    next
}

# One line: deb [option=value ...] URI SUITE COMPONENT...
$1 == "deb" {
    line = $0; sub(/#.*/, "", line); sub(/^[ \t]*deb[ \t]+/, "", line)
    options_here = ""
    if (line ~ /^\[/) {
        list = line; sub(/\].*/, "", list); sub(/^\[[ \t]*/, "", list); sub(/^[^]]*\][ \t]*/, "", line)
        n = split(list, pair)
        for (i = 1; i <= n; i++) {
            name = pair[i]; sub(/=.*/, "", name)
            value = pair[i]; sub(/^[^=]*=/, "", value); gsub(/,/, " ", value)
            name = toupper(substr(name, 1, 1)) substr(name, 2)
            if (name == "Arch") name = "Architectures"
            if (name == "Signed-by") name = "Signed-By"
            if (name == "Lang") continue
            options_here = options_here name ": " value "\n"
        }
    }
    n = split(line, word)
    if (word[1] ~ /^cdrom:/ || n < 3) next
    rest = ""
    for (i = 3; i <= n; i++) rest = rest " " word[i]
    if (carries(word[2], rest))
        printf "Types: deb\nURIs: %s\nSuites: SUITE@\nComponents: main\n%s%%%%\n", word[1], options_here
}

END { end_stanza() }
