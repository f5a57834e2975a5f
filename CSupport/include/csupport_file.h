/*
 * Files: what swift-system lacks or the importer cannot see. Results are 0 or more, or -errno.
 */
#ifndef QED_UBLK_CSUPPORT_FILE_H
#define QED_UBLK_CSUPPORT_FILE_H

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum : int32_t {
    CS_FALLOCATE_PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
    CS_FALLOCATE_ZERO_RANGE = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
    CS_FALLOCATE_WRITE_ZEROES = 0x80, /* FALLOC_FL_WRITE_ZEROES, Linux 6.17: newer than the headers of Debian 13 */
};

/* Finds a file, symbolic links followed, without opening it: nothing happens to what it is, be it a FIFO or a device.
 * With CS_FIND_NO_MAGIC_LINKS not through the links of /proc that lead to what some process has open (ELOOP). */
enum : uint32_t { CS_FIND_NO_MAGIC_LINKS = 1 };
int32_t cs_find(const char *path, uint32_t flags);

/* The S_IFMT bits of what was found. */
int32_t cs_type_of(int32_t found);

/* 1: it lies in a file system that is no storage but an interface of the kernel, like those of /proc and /sys. */
int32_t cs_is_kernel_interface(int32_t found);

/* 1: it lies in a file system whose word on where holes are has been right, as far as anybody knows. */
int32_t cs_tells_holes_truly(int32_t found);

/* Where it really is, not terminated; the number of bytes. */
int64_t cs_path_of(int32_t found, char *buffer, uint64_t buffer_bytes);

/* Opens the very file that was found, or is open. Does not wait. Without /proc by its path, where that still names the same
 * file; else -ESTALE. */
enum : uint32_t { CS_OPEN_WRITE = 1, CS_OPEN_DIRECT = 2 };
int32_t cs_open_found(int32_t found, const char *path, uint32_t flags);

/* Changes the space of a range: CS_FALLOCATE_… */
int32_t cs_fallocate(int32_t descriptor, int32_t mode, uint64_t offset, uint64_t size_bytes);

/* Turns O_DIRECT off. */
int32_t cs_clear_direct(int32_t descriptor);

/* What a descriptor names. */
struct cs_file_status {
    uint64_t size_bytes;
    uint64_t allocated_bytes;
    uint64_t device; /* that the file is on */
    uint32_t type;   /* S_IFMT bits */
};
enum : uint32_t { CS_TYPE_REGULAR = 0100000, CS_TYPE_BLOCK = 0060000, CS_TYPE_DIRECTORY = 0040000 };
int32_t cs_status_of(int32_t descriptor, struct cs_file_status *status);

/* What tells a file apart from every other one, and stays the same when its file system is mounted again. */
struct cs_file_traits {
    uint64_t block_device; /* a block device's own number; 0: another file */
    uint64_t device;       /* of the disk below the file system; 0: the file system has made the number up */
    uint64_t file_system;  /* f_fsid */
    uint64_t inode;        /* 0 where there is a handle */
    int64_t birth_seconds; /* 0 where there is a handle, or the file system does not say */
    uint32_t birth_nanoseconds;
    uint32_t handle_type;
    uint32_t handle_bytes;
    uint8_t handle[128];
};
/* 0 or a negative errno. The descriptor may be one of cs_find. */
int32_t cs_traits_of(int32_t descriptor, struct cs_file_traits *traits);

/* 1: the directory's files are in memory only (tmpfs, ramfs); 0: they may outlive a reboot; or a negative errno. */
int32_t cs_is_in_memory(int32_t descriptor);

/* The multiples that direct I/O needs; 0 where the file system does not do direct I/O, -ENOTSUP where the kernel
 * cannot tell (before 6.1). */
struct cs_direct_alignment {
    uint32_t memory_bytes;
    uint32_t offset_bytes;
};
int32_t cs_direct_alignment(int32_t descriptor, struct cs_direct_alignment *alignment);

static inline void cs_sleep_milliseconds(uint32_t milliseconds) { (void)usleep(milliseconds * 1000); }

static inline void cs_close(int32_t descriptor) { (void)close(descriptor); }

/* 1 where something of a file, or of a block device, is in the page cache and not yet written, else 0; a negative errno where
 * nobody knows (before Linux 6.5). Never waits for it. */
int32_t cs_has_dirty_pages(int32_t descriptor);

/* Writes back what is dirty in the page cache of a block device, that of a file system mounted from it included (Linux 6.6;
 * before, the device's own alone). Blocks. 0 or a negative errno. */
int32_t cs_write_back_block_device(int32_t descriptor);

/* Reads the partition table of a block device: its partitions are there, with their nodes in devtmpfs, when this returns.
 * Blocks. 0 or a negative errno; -EBUSY where somebody has the disk exclusively, or a partition open. */
int32_t cs_read_partition_table(int32_t descriptor);

/* Writes what the file system has that an open file is on, and lets nobody write to it until it is thawed. Blocks. 0 or a
 * negative errno; -EBUSY where it is frozen already, -EOPNOTSUPP where it cannot be. */
int32_t cs_freeze_file_system(int32_t descriptor);
int32_t cs_thaw_file_system(int32_t descriptor);
/* Which block device a node, or an open file in /proc/PID/fd, is one of: 1, or 0 where it is none; -errno. Follows links. Asks
 * no server of a network file system. */
int32_t cs_block_device_number(const char *path, uint32_t *major_number, uint32_t *minor_number);

/* Which block device lies beneath the loop device of that node: 1, or 0 where a file does; -errno. */
int32_t cs_loop_backing_number(const char *path, uint32_t *major_number, uint32_t *minor_number);

/* Writes back a whole file system, given any file of it. Blocks. */
int32_t cs_sync_file_system(int32_t descriptor);

/* Reads until count bytes or the end of the file; blocks. */
int64_t cs_pread_fully(int32_t descriptor, void *buffer, uint64_t byte_count, uint64_t offset);

// The next range of `descriptor`'s file that is not a hole, from `offset` on; past the last one both are the file's length
// or `offset`. Moves the file position, which nobody here uses. Returns 0 or a negative errno.
int32_t cs_next_data(int32_t descriptor, uint64_t offset, uint64_t *start, uint64_t *end);
int32_t cs_ftruncate(int32_t descriptor, uint64_t size_bytes);
int64_t cs_file_length(int32_t descriptor);

/* Open-file-description locks on one byte: a shared lock taken, released, or a test for anybody else's lock. */
int32_t cs_lock_byte_shared(int32_t descriptor, uint64_t offset);
int32_t cs_unlock_byte(int32_t descriptor, uint64_t offset);
/* 1: another open file description holds a lock there; 0: none. */
int32_t cs_byte_is_locked(int32_t descriptor, uint64_t offset);

#endif
