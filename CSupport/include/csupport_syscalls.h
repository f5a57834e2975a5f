/*
 * Calls that make a file appear in a directory at once. Results are 0 or more, or -errno.
 */
#ifndef QED_UBLK_CSUPPORT_SYSCALLS_H
#define QED_UBLK_CSUPPORT_SYSCALLS_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Hidden by the C library unless it is asked for GNU extensions; the same on every architecture that has Swift. */
enum : int32_t {
    CS_AT_EMPTY_PATH = 0x1000,
    CS_AT_SYMLINK_FOLLOW = 0x400,
    CS_RENAME_NOREPLACE = 1,
    CS_RENAME_EXCHANGE = 2,
    CS_TMPFILE = 020000000,
};

/* A file without a name, open for reading and writing, on the file system of a directory. It is gone when its last
 * descriptor is closed, unless cs_link_unnamed has named it. */
static inline int32_t cs_create_unnamed(int32_t directory, uint32_t mode) {
    int32_t descriptor = openat(directory, ".", CS_TMPFILE | O_DIRECTORY | O_RDWR | O_CLOEXEC, mode);
    return descriptor >= 0 ? descriptor : -errno;
}

/* Names a file made by cs_create_unnamed; -EEXIST if the name is taken. */
static inline int32_t cs_link_unnamed(int32_t descriptor, int32_t directory, const char *name) {
    if (linkat(descriptor, "", directory, name, CS_AT_EMPTY_PATH) == 0) return 0;
    if (errno == EEXIST) return -errno;
    /* Only root may link a bare descriptor (before Linux 6.10); everybody may follow /proc's link to it. */
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", (int)descriptor);
    return linkat(AT_FDCWD, path, directory, name, CS_AT_SYMLINK_FOLLOW) == 0 ? 0 : -errno;
}

/* A new file, open for reading and writing; -EEXIST if the name is taken. */
static inline int32_t cs_create_exclusive(int32_t directory, const char *name, uint32_t mode) {
    int32_t descriptor = openat(directory, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, mode);
    return descriptor >= 0 ? descriptor : -errno;
}

/* Gives a file another name in its directory; -EEXIST if that name is taken. */
static inline int32_t cs_rename_no_replace(int32_t directory, const char *name, const char *new_name) {
    if (syscall(SYS_renameat2, directory, name, directory, new_name, CS_RENAME_NOREPLACE) == 0) return 0;
    if (errno != EINVAL && errno != ENOSYS) return -errno;
    /* The file system (NFS for one) has no such rename: a second name, then the first one away. */
    if (linkat(directory, name, directory, new_name, 0) != 0) return -errno;
    (void)unlinkat(directory, name, 0);
    return 0;
}

/* Two files of one file system get each other's names, at once: EINVAL or ENOSYS where it cannot do that. */
static inline int32_t cs_exchange_names(int32_t directory, const char *name, int32_t other_directory, const char *other_name) {
    return syscall(SYS_renameat2, directory, name, other_directory, other_name, CS_RENAME_EXCHANGE) == 0 ? 0 : -errno;
}

/* The same; whatever has that name is replaced. */
static inline int32_t cs_rename(int32_t directory, const char *name, const char *new_name) {
    return renameat(directory, name, directory, new_name) == 0 ? 0 : -errno;
}

static inline int32_t cs_remove(int32_t directory, const char *name) {
    return unlinkat(directory, name, 0) == 0 ? 0 : -errno;
}

static inline int32_t cs_fdatasync(int32_t descriptor) { return fdatasync(descriptor) == 0 ? 0 : -errno; }

static inline int32_t cs_fsync(int32_t descriptor) { return fsync(descriptor) == 0 ? 0 : -errno; }

#endif
