# Sourced by the scripts of the VM rig: where things are kept between runs, and how to say that something went wrong.
# shellcheck shell=bash

# Ends the script with one sentence on standard error.
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

# Progress, for work that takes long enough to wonder about.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# No script of the rig ends without a word. Status 2 is that of `die`, which has had its say.
trap '(($? == 2)) || say "failed at line $LINENO: $BASH_COMMAND"' ERR

[[ -n ${QED_UBLK_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-} ]] || die "set QED_UBLK_CACHE or HOME: there is nowhere to cache"
vm_cache=${QED_UBLK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qed-ublk}/vm
mkdir -p "$vm_cache" || die "cannot create $vm_cache; set QED_UBLK_CACHE to a folder that can be written"

# Holds the named lock of the cache until the script ends, so that two runs do not fetch or build the same at once.
lock_cache() {
    exec {cache_lock}>"$vm_cache/$1.lock"
    flock "$cache_lock"
}

# The two kernels everything is tried on: the oldest one supported by Debian with ublk, and the current one.
# shellcheck disable=SC2034
vm_kernels=(6.12 7)
