# Sourced by vm: the virtual machine as QEMU's arguments.
# shellcheck shell=bash disable=SC2054,SC2154

# Puts into `processor` the accelerator, the processor and their kernel parameters (in `parameters`).
choose_processor() {
    if [[ $accelerator == kvm ]]; then
        processor=(-accel kvm -cpu host -smp "$cpus")
        return
    fi
    # Emulated string instructions copy byte by byte, four times slower than the loops used without these features.
    local model=max,-erms,-fsrm
    # Addresses that differ from process to process: QEMU 7.2 translates each program anew every time it starts, and
    # takes twice as long to start one.
    parameters+=" mitigations=off nokaslr norandmaps rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60"
    # Where the host is busy the kernel's test of its timer can fail, and it stops.
    parameters+=" no_timer_check"
    # QEMU 7.2 miscompiles the kernel's cmpxchg16b: half of all boots crash. The kernel is told not to use it; user
    # space, where Swift's runtime needs it, still has it.
    if ((qemu_version < 1000)); then parameters+=" clearcpuid=cx16"; fi
    if [[ -n $instruction_clock ]]; then
        processor=(-accel "tcg,thread=single,tb-size=512" -icount "shift=1,sleep=off" -cpu "$model" -smp 1)
    else
        processor=(-accel "tcg,thread=multi,tb-size=512" -cpu "$model" -smp "$cpus")
    fi
}

# Makes the data disk if there is none, and puts its arguments into `disk`: past the host's page cache, with io_uring,
# where the host's file system and kernel permit.
prepare_disk() {
    disk=()
    if [[ -z $disk_file && ${disk_size%[KMGT]} -eq 0 ]]; then return; fi
    local image=${disk_file:-$work/data} how=cache=writeback
    if [[ ! -e $image ]]; then
        # Few inodes and none initialised later, so that nothing in the background disturbs what runs.
        truncate -s "$disk_size" "$work/new"
        mkfs.ext4 -q -F -i 1048576 -E nodiscard,lazy_itable_init=0 "$work/new" || die "cannot make a disk of $disk_size"
        if [[ $disk_format != qcow2 ]]; then
            mv "$work/new" "$image"
        else
            qemu-img convert -f raw -O "$disk_format" "$work/new" "$image"
            rm "$work/new"
        fi
    fi
    if [[ $disk_format == forgetful ]]; then
        forgetful_disk "$image"
        return
    fi
    truncate -s 1M "$work/probe"
    if qemu-io -f raw -t none -i io_uring -c 'write -q 0 4k' "$work/probe" >/dev/null 2>&1; then
        how=cache=none,aio=io_uring
    elif qemu-io -f raw -t none -c 'write -q 0 4k' "$work/probe" >/dev/null 2>&1; then
        how=cache=none
    fi
    disk=(-drive "if=none,id=data,file=${image//,/,,},format=$disk_format,discard=unmap,$how"
        -device virtio-blk-pci,drive=data,serial=data)
}

# Starts the server of a disk that keeps in the image only what it was told to flush, and the rest in a file of its own
# that goes with it; and puts into `disk` the arguments for it, and for one that keeps everything.
forgetful_disk() {
    local socket=$work/disk.socket
    ((${#socket} < 108)) || die "the path of the cache is too long for a socket: $socket"
    rm -f "$socket"
    TMPDIR=$work bound nbdkit --foreground --unix "$socket" --filter=cache \
        file "$1" cache=writeback cache-min-block-size=4k </dev/null >"$work/disk.log" 2>&1 &
    disk_server=$!
    until [[ -S $socket ]]; do
        kill -0 "$disk_server" 2>/dev/null || die "nbdkit did not start: $(<"$work/disk.log")"
        sleep 0.05
    done
    if [[ ! -e $work/notes ]]; then
        truncate -s 64M "$work/notes"
        mkfs.ext4 -q -F -E lazy_itable_init=0 "$work/notes" || die "cannot make the disk for notes"
    fi
    disk=(-drive "if=none,id=data,file.driver=nbd,file.server.type=unix,file.server.path=${socket//,/,,},format=raw"
        -device virtio-blk-pci,drive=data,serial=data
        -drive "if=none,id=notes,file=${work//,/,,}/notes,format=raw"
        -device virtio-blk-pci,drive=notes,serial=notes)
}

# Puts into `machine` all arguments of the run: no firmware settings, network or display; the kernel's console and the
# guest's reports (see guest/init) as files in $work; a reset ends QEMU.
assemble_machine() {
    local parameters="console=ttyS0 quiet loglevel=5 panic=-1 oops=panic rdinit=/init" processor disk
    # The self-tests of the kernel's ciphers and clearing every page take a third of an emulated boot.
    parameters+=" cryptomgr.notests init_on_alloc=0"
    choose_processor
    prepare_disk
    machine=(-M q35 -nodefaults -no-user-config -display none -no-reboot -m "$memory" "${processor[@]}"
        -kernel "$kernel/kernel" -initrd "$root" -append "$parameters VM_BOOT=$boot $append"
        -chardev "file,id=kernel,path=$work/kernel.log" -serial chardev:kernel
        -device virtio-serial-pci
        -chardev "file,id=status,path=$work/status" -device virtserialport,chardev=status,name=status
        -chardev "pipe,id=control,path=$work/control" -device virtserialport,chardev=control,name=control
        -drive "if=none,id=payload,file=${work//,/,,}/payload.tar,format=raw,readonly=on"
        -device virtio-blk-pci,drive=payload,serial=payload
        "${disk[@]}")
    if [[ -n $network ]]; then machine+=(-netdev user,id=network,ipv6=off -device virtio-net-pci,netdev=network,romfile=); fi
    if [[ $init == debian ]]; then
        if [[ ! -e $work/root ]]; then
            qemu-img create -q -f qcow2 -F raw -b "$debian_root" "$work/root" || die "cannot make the root disk"
        fi
        machine+=(-drive "if=none,id=root,file=${work//,/,,}/root,format=qcow2,cache=writeback"
            -device virtio-blk-pci,drive=root,serial=root)
    fi
    if [[ -n $results ]]; then
        machine+=(-chardev "file,id=results,path=$work/results.tar"
            -device virtserialport,chardev=results,name=results)
    fi
    if [[ $mode == shell ]]; then
        machine+=(-chardev stdio,id=console,mux=on,signal=off -device virtconsole,chardev=console)
    else
        machine+=(-chardev "file,id=output,path=$work/output" -device virtserialport,chardev=output,name=output
            -chardev "file,id=power,path=$work/power" -device virtserialport,chardev=power,name=power)
    fi
}
