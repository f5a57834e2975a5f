# Sourced by what fetches from Debian: the machine's own apt sources, at another suite.
# shellcheck shell=bash disable=SC2034,SC2154

# Puts into `entries` those of the machine's apt sources that carry Debian itself, as stanzas with SUITE@ where the suite goes.
find_debian_sources() {
    local codename configuration=() file
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    for file in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        if [[ -r $file ]]; then configuration+=("$file"); fi
    done
    ((${#configuration[@]})) || die "no apt sources found in /etc/apt; add the entry for Debian itself"
    mapfile -d '' -t entries < <(awk -v codename="$codename" -f "$here/apt-sources.awk" "${configuration[@]}" \
        | sed 's/^%%$/\x00/' | sed 's/^\n//')
}
