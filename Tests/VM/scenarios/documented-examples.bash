# Sourced by the scenario of the same name, after lib.sh and devices.bash: takes examples from pages, and runs those that its
# tables know. An example is named "PAGE: COMMAND" there, by its first command, without the comment behind it.
# shellcheck shell=bash

# What the tables say of each example, or of a command in one: run, go-on, file or elsewhere; what is done before and after,
# where a file goes or why nothing is run, and the keys for what is typed at a terminal.
declare -A how=() before=() after=() words=() typed=() matched=()
# The examples, in the order of the pages: whose each is, and its lines.
places=() texts=()
examples_run=0 commands_run=0 examples_elsewhere=0
page=''

# page NAME: whose examples the next lines of the table are.
page() { page=$1; }
# runs COMMAND [PREPARATION [CHECK]]: an example is run in an empty /srv, after the preparation; also for a later command of one
# that is in need of something, or whose output is looked at: it is in $printed.
runs() { how["$page: $1"]=run before["$page: $1"]=${2-} after["$page: $1"]=${3-}; }
# goes_on COMMAND [PREPARATION [CHECK]]: what the example before it on the page has left is there.
goes_on() { runs "$@" && how["$page: $1"]=go-on; }
# is_file COMMAND PATH [PREPARATION [CHECK]]: the example is what the file holds.
is_file() { runs "$1" "${@:3}" && how["$page: $1"]=file words["$page: $1"]=$2; }
# types COMMAND KEYS: it needs a terminal, and goes on until these are typed.
types() { runs "$1" && typed["$page: $1"]=$2; }
# elsewhere COMMAND REASON: it is not run here.
elsewhere() { how["$page: $1"]=elsewhere words["$page: $1"]=$2; }

# read_examples PAGE FORM FILE: adds those of the page, which is markdown, manual or help.
read_examples() {
    local number line last=''
    awk -v form="$2" -f /payload/documented-examples.awk "$3" >/tmp/examples
    while IFS=$'\t' read -r number line; do
        if [[ $number != "$last" ]]; then
            places+=("$1") texts+=("$line") last=$number
        else
            texts[-1]+=$'\n'$line
        fi
    done </tmp/examples
}

# name_of PAGE LINE: puts into $name what the tables call that: the command, without what stands apart from it.
name_of() {
    name=${2#"${2%%[! ]*}"}
    name=${name%%  *}
    name=${name%%[[:space:]]#[[:space:]]*}
    name="$1: ${name%"${name##*[! ]}"}"
}

# Expects that each example is in a table, and that the tables have nothing else.
expect_complete_tables() {
    local index line lines unknown=''
    matched=()
    for index in "${!places[@]}"; do
        mapfile -t lines <<<"${texts[index]}"
        for line in "${lines[@]}"; do
            name_of "${places[index]}" "$line"
            if [[ -n ${how[$name]-} ]]; then matched[$name]=yes; fi
        done
        name_of "${places[index]}" "${lines[0]}"
        if [[ -z ${how[$name]-} ]]; then unknown+="    $name"$'\n'; fi
    done
    [[ -z $unknown ]] || fail $'in no table of this scenario, so nobody runs them:\n'"$unknown"
    for name in "${!how[@]}"; do
        [[ -n ${matched[$name]-} ]] || fail "in a table of this scenario, and on no page: $name"
    done
}

# run_command PAGE LINE: as if it were pasted into a shell; each command of it must succeed, and print what the page says.
run_command() {
    example="$1: $2"
    name_of "$1" "$2"
    local called=$name
    eval "${before[$called]-}" >/dev/null
    local expectations ended=0
    expectations=$(trap -p ERR)
    # Also of a command in front of a semicolon, or of a pipe. What is said of it would go where its own output goes.
    trap 'ended=$?' ERR
    if [[ -n ${typed[$called]-} ]]; then
        (sleep 1.5 && printf %s "${typed[$called]}") | script -qec "$2" /dev/null >/tmp/printed 2>/tmp/said
    else
        eval "$2" >/tmp/printed 2>/tmp/said </dev/null
    fi
    eval "$expectations"
    ((ended == 0)) || fail "status $ended from an example: $2"
    printed=$(</tmp/printed)
    if [[ $2 =~ \#\ prints\ (/[^ ,\;]+) ]]; then expect_equal "what is printed" "${BASH_REMATCH[1]}" "$printed"; fi
    eval "${after[$called]-}" >/dev/null
    commands_run=$((commands_run + 1))
    example=''
}

nothing_is_left() { [[ -z $(traces_of_devices) ]]; }

# Removes everything that an example has left, in the order that a user would have to keep.
clean_up() {
    local unit
    cd / || return
    if [[ $(</proc/mounts) == *' /mnt '* ]]; then umount /mnt; fi
    for unit in /etc/systemd/system/multi-user.target.wants/qed-ublk@*; do
        if [[ -L $unit ]]; then systemctl disable --now --quiet "${unit##*/}"; fi
    done
    if compgen -G '/dev/ublk[bc]*' >/dev/null || compgen -G '/run/qed-ublk/*' >/dev/null; then
        if compgen -G '/dev/ublkc*' >/dev/null; then qed-ublk del --all; fi
        wait_until 20 nothing_is_left
    fi
    rm -rf /srv/* /etc/qed-ublk
    cd /srv || return
}

# run_examples: those that were read, as the tables say; of pages whose name has $only_of in it, where that is set.
run_examples() {
    local index line lines called
    for index in "${!places[@]}"; do
        mapfile -t lines <<<"${texts[index]}"
        name_of "${places[index]}" "${lines[0]}"
        called=$name
        [[ ${places[index]} == *"${only_of-}"* ]] || continue
        if [[ ${how[$called]} == elsewhere ]]; then
            examples_elsewhere=$((examples_elsewhere + 1))
            step "not run: $called: ${words[$called]}"
            continue
        fi
        step "$called"
        if [[ ${how[$called]} != go-on ]]; then clean_up; fi
        if [[ ${how[$called]} == file ]]; then
            example=$called
            eval "${before[$called]}" >/dev/null
            mkdir -p "$(dirname "${words[$called]}")"
            echo "${texts[index]}" >"${words[$called]}"
            eval "${after[$called]}" >/dev/null
        else
            for line in "${lines[@]}"; do run_command "${places[index]}" "$line"; done
        fi
        examples_run=$((examples_run + 1))
    done
    clean_up
}

explain_failure() {
    if [[ -n ${example-} ]]; then
        echo "--- the example: $example"
        cat /tmp/printed /tmp/said 2>/dev/null
    fi
    if compgen -G '/dev/ublk[bc]*'; then
        timeout 20 qed-ublk list 2>&1
        tail -n 5 /run/qed-ublk/ublk*.log 2>/dev/null
    fi
}

# expect_noticed PATTERN TABLE TEXT: that a page with this text fails in that way.
expect_noticed() {
    local status=0
    printf '%s\n' "$3" >/tmp/planted.md
    # No part of a list, in which a shell would go on after a command that fails.
    (
        places=() texts=() how=()
        page planted
        eval "$2"
        read_examples planted markdown /tmp/planted.md
        expect_complete_tables
        run_examples
    ) >/tmp/planted.log 2>&1 &
    wait "$!" || status=$?
    if ((status != 1)) || ! grep -Eq -- "$1" /tmp/planted.log; then
        cat /tmp/planted.log
        fail "expected a failure like '$1', got status $status"
    fi
}
