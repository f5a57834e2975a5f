# Sourced by the scenarios that have fio write blocks with checksums in them and find every one again.
# shellcheck shell=bash

# run_fio FILE SMALLEST_BLOCK [OPTION]...: three kinds of load side by side, each on its own 64 MiB. With
# --verify_only=1 it writes nothing and looks for what the same call wrote before. Other values of FIO_SEED are other
# blocks.
run_fio() {
    local file=$1 smallest=$2
    shift 2
    # shellcheck disable=SC2238  # The file is called like a command.
    cat >jobs <<END
[global]
filename=$file
direct=1
ioengine=io_uring
randseed=${FIO_SEED:-20250}
verify=crc32c
verify_fatal=1
size=64M
[mixed-deep]
rw=randrw
rwmixwrite=70
bsrange=4k-256k
blockalign=4k
iodepth=32
iodepth_batch_complete_max=16
fsync=32
io_size=24M
[small-shallow]
offset=64M
rw=randrw
rwmixwrite=80
bssplit=$smallest/40:4k/30:16k/20:64k/10
blockalign=$smallest
iodepth=3
fdatasync=7
io_size=2M
[large-in-order]
offset=128M
rw=write
bs=192k
iodepth=8
io_size=18M
fsync=50
END
    fio --output=fio.log "$@" jobs
}
