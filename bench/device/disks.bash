# Sourced in the machines that benchmarks run in: file systems for images, and fio's work that allocates.
# shellcheck shell=bash

# make_file_system DEVICE FOLDER [ext4|xfs]: ext4 without checksums of its metadata, which every allocation changes: the
# instruction that a processor has for them takes an emulated one about a hundred times as long as others. XFS has them
# always, so it is for machines that count instructions.
make_file_system() {
    case ${3:-ext4} in
        ext4) mkfs.ext4 -q -F -O ^metadata_csum -i 1048576 -E nodiscard,lazy_itable_init=0,lazy_journal_init=1 "$1" ;;
        xfs) mkfs.xfs -q -f -K "$1" ;;
        *) fail "no file system $3" ;;
    esac
    mount "$1" "$2"
}

# make_ram_disk [ext4|xfs]: mounts one on a RAM disk of 2.5 GiB as /mem. It takes the host's disk out, and
# is a file system as people have it: a tmpfs fills every page that is reserved.
make_ram_disk() {
    modprobe brd rd_nr=1 rd_size=$((2560 << 10)) max_part=0
    mkdir /mem
    make_file_system /dev/ram0 /mem "${1:-ext4}"
}

# write_allocation_log FILE CLUSTERS [shuffled]: for fio to replay, one write of 4 KiB to each of so many clusters of 64 KiB
# of /dev/disk, in order, or always in the same other one.
write_allocation_log() {
    {
        printf 'fio version 2 iolog\n/dev/disk add\n/dev/disk open\n'
        seq 0 $(($2 - 1)) | if [[ ${3:-} == shuffled ]]; then shuf --random-source="$(command -v fio)"; else cat; fi |
            awk '{ printf "/dev/disk write %.0f 4096\n", $1 * 65536 }'
        printf '/dev/disk close\n'
    } >"$1"
}
