# Of `bench/counters.sh` and `bench/confinement.sh`: two programs, `with` and `without`, in one virtual machine whose clock counts
# instructions, in turn.

# compare DIRECTORY WHAT KERNEL ROUNDS FILE...: of the two in the directory, what the first takes of the second, which is WHAT;
# the files go into the machine with them.
compare() {
    local work=$1 what=$2 kernel=$3 rounds=$4 file files=()
    shift 4
    for file in "$work/with" "$work/without" bench/device/disks.bash "$@"; do files+=(--file "$file"); done
    mkdir "$work/results"
    Tests/VM/vm run --kernel "$kernel" --timeout 3000 --instruction-clock "${files[@]}" --results "$work/results" \
        bench/counters-guest.sh "$rounds" >&2
    awk -v what="$what" '{ server[$1, $4, $2] = $3; machine[$1, $4, $2] = $5; runs[$1 SUBSEP $4] }
        END {
            for (run in runs) {
                split(run, parts, SUBSEP)
                printf "%s, round %d: the server %.4f, the machine %.4f of what it is %s\n", parts[1], parts[2],
                    server[run, "with"] / server[run, "without"], machine[run, "with"] / machine[run, "without"], what
            }
        }' "$work/results/runs" | sort
}
