# Sourced by vm: what is handed into the machine, as a tar file that the guest sees as a disk.
# shellcheck shell=bash disable=SC2154

# pack_payload SCRIPT [ARGUMENT]...: writes $work/payload.tar from the options of the run.
pack_payload() {
    local script=$1 file name assignment
    shift
    mkdir -p "$work/payload/.vm"
    cat "$script" >"$work/payload/.vm/script"
    {
        printf 'export VM_KERNEL=%q VM_CPUS=%q VM_ACCELERATOR=%q\n' "$kernel_series" "$cpus" "$accelerator"
        for assignment in "${environment[@]}"; do
            [[ $assignment =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || die "--env $assignment: not NAME=VALUE"
            printf 'export %s=%q\n' "${assignment%%=*}" "${assignment#*=}"
        done
        if [[ $mode == shell ]]; then
            printf 'PS1="vm %s \\w # "\n' "$kernel_series" >"$work/payload/.vm/bashrc"
            if [[ -t 0 ]]; then stty size | (read -r rows columns && echo "stty rows $rows cols $columns"); fi
            echo 'exec bash --rcfile /payload/.vm/bashrc -i'
        else
            printf 'exec bash /payload/.vm/script'
            if (($#)); then printf ' %q' "$@"; fi
            echo
        fi
    } >"$work/payload/.vm/start"
    write_settings >"$work/payload/.vm/settings"

    for file in "$here/lib.sh" "${files[@]}"; do
        name=$(basename "$file")
        [[ -e $file ]] || die "cannot hand in $file: no such file"
        [[ ! -e $work/payload/$name ]] || die "cannot hand in two files called $name"
        ln -s "$(readlink -f "$file")" "$work/payload/$name"
    done
    tar -C "$work/payload" --dereference --owner=0 --group=0 --numeric-owner -cf "$work/payload.tar" .
}

# Prints the variables that process 1 reads.
write_settings() {
    if [[ -n $disk_file ]]; then echo 'VM_KEEP_DISK=yes'; fi
    if [[ -n $init ]]; then echo "VM_INIT=$init"; fi
    if [[ $mode == shell ]]; then
        echo 'VM_INTERACTIVE=yes'
        printf 'TERM=%q\n' "${TERM:-linux}"
    fi
}
