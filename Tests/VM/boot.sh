# Sourced by vm: one boot of the machine, from its start to its end, and what came of it.
# shellcheck shell=bash disable=SC2034,SC2154

# Starts a child that dies with this shell, also when the shell is killed in a way that it cannot clean up after.
bound() { exec setpriv --pdeathsig KILL "$@"; }

# What the kernel says of its own faults.
complaints='BUG:|kernel BUG|Oops|WARNING: |Call Trace|blocked for more than|soft lockup|hard LOCKUP|Kernel panic'

# Boots the machine for the `boot`th time in this run, and waits for its end. Sets `outcome`, and with it what it names:
#   completed    the script ended, with `script_status`
#   complained   so it did, or it had the power cut, but the kernel had a fault (`reason`)
#   cut          the script had the power cut, or the machine rebooted
#   late         the time was over
#   stuck        the script had not begun after `start_within` seconds
#   died         the machine ended before the script did (`reason`, if known)
boot_machine() {
    local machine
    ended=''
    rm -f "$work"/{status,results.tar,kernel.log,cut}
    assemble_machine
    if [[ $mode == shell ]]; then boot_for_shell; else boot_for_script; fi
    qemu=''
    end_disk_server

    local report
    report=$(tail -n 1 "$work/status" 2>/dev/null) || true
    reason=$(grep -a -m 1 -E "$complaints" "$work/kernel.log" 2>/dev/null | tr -d '\r') || true
    if [[ $ended == late || $ended == stuck ]]; then
        outcome=$ended
    elif [[ $ended == "the power was cut" || $ended == "the machine rebooted" ]]; then
        script_status=$ended
        outcome='cut'
    elif [[ $report == "status "* ]]; then
        script_status=${report#status }
        outcome=completed
    else
        outcome=died
        if [[ $report == init:* ]]; then reason=$report; fi
    fi
    if [[ ($outcome == completed || $outcome == cut) && -n $reason && -z $allow_warnings ]]; then outcome=complained; fi
}

boot_for_shell() {
    local input
    say "kernel $(<"$kernel/version") on $accelerator; leave with exit, or Ctrl-A x at any time"
    # bash gives what it starts in the background no standard input, unless told to.
    exec {input}<&0
    bound qemu-system-x86_64 "${machine[@]}" <&"$input" 2>"$work/qemu.log" &
    qemu=$!
    wait "$qemu" || true
}

# Passes on what the script prints. Sets `ended` to late, stuck, or what happened, if the machine did not end by itself.
boot_for_script() {
    local copier sleeper starter switch first seconds
    bound cat "$work/output" &
    copier=$!
    # The guest asks for a power cut with a line: "cut", and after how many seconds; or says that it reboots: "reboot".
    bound head -n 1 "$work/power" >"$work/cut" &
    switch=$!
    bound sleep "$timeout" &
    sleeper=$!
    bound sleep "$start_within" &
    starter=$!
    bound qemu-system-x86_64 "${machine[@]}" </dev/null 2>"$work/qemu.log" &
    qemu=$!

    wait -n -p first "$qemu" "$sleeper" "$switch" "$starter" || true
    # The guest's first report comes just before the script.
    if [[ $first == "$starter" && -s $work/status ]]; then wait -n -p first "$qemu" "$sleeper" "$switch" || true; fi
    if [[ $first == "$starter" ]]; then
        ended=stuck
        end "$qemu"
    elif [[ $first == "$sleeper" ]]; then
        report_hang
        end "$qemu"
    elif [[ -s $work/cut && $(<"$work/cut") == reboot ]]; then
        wait -n -p first "$qemu" "$sleeper" || true
        ended="the machine rebooted"
        if [[ $first == "$sleeper" ]]; then report_hang; fi
        end "$qemu"
    elif [[ -s $work/cut ]]; then
        read -r _ seconds <"$work/cut"
        sleep "$seconds"
        # Unless the script has failed meanwhile.
        if kill -0 "$qemu" 2>/dev/null; then ended="the power was cut"; fi
        # The machine stands still before its disk goes, and sees nothing of that.
        kill -STOP "$qemu" 2>/dev/null || true
        end_disk_server
        end "$qemu"
    else
        # QEMU has ended, or is about to: it closed the switch.
        wait "$qemu" || true
    fi
    if [[ $first != "$sleeper" ]]; then end "$sleeper"; fi
    end "$starter"
    # Opened and closed once more: were QEMU never to have opened them, their readers would wait for ever.
    : <>"$work/output" <>"$work/power"
    wait "$switch" "$copier" || true
}

# The time is over: asks the guest where it hangs, and gives it a moment to say so.
report_hang() {
    ended=late
    timeout 2 tee "$work/control.in" <<<hang >/dev/null || true
    sleep 2
}

end_disk_server() {
    if [[ -n $disk_server ]]; then end "$disk_server"; fi
    disk_server=''
}

# Ends a child, and takes its leave without bash's remark about it.
end() {
    kill -KILL "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}
