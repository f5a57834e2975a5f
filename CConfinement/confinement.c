#define _GNU_SOURCE
#include "CConfinement.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* By value: Debian 12's kernel headers end with the first version. What a version adds to the structure lies behind the rest, and
 * a kernel takes as much of it as it knows. */
struct rules {
    uint64_t files;
    uint64_t network;
    uint64_t scopes;
};

int32_t cc_leave_file_systems(void) {
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 0) return -errno;
    /* 13 rights, then REFER, TRUNCATE and IOCTL_DEV; TCP with version 4, scopes with 6. */
    uint64_t files = version >= 5 ? (1 << 16) - 1 : version >= 3 ? (1 << 15) - 1 : version >= 2 ? (1 << 14) - 1 : (1 << 13) - 1;
    struct rules rules = {files, version >= 4 ? 3 : 0, version >= 6 ? 3 : 0};
    size_t size = version >= 6 ? sizeof rules : version >= 4 ? offsetof(struct rules, scopes) : offsetof(struct rules, network);
    int descriptor = (int)syscall(SYS_landlock_create_ruleset, &rules, size, 0);
    if (descriptor < 0) return -errno;
    /* Without a rule everything is refused. */
    int32_t result = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(SYS_landlock_restrict_self, descriptor, 0) != 0
                         ? -errno
                         : (int32_t)version;
    close(descriptor);
    return result;
}

enum { NOBODY = 65534 };

int32_t cc_may_become_nobody(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &header, data) != 0) return -errno;
    const uint32_t needed = 1u << CAP_SETUID | 1u << CAP_SETGID;
    return geteuid() == 0 && (data[0].effective & needed) == needed;
}

int32_t cc_inherit_nothing(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    if (syscall(SYS_capget, &header, data) != 0) return -errno;
    for (int index = 0; index < _LINUX_CAPABILITY_U32S_3; index++) data[index].inheritable = 0;
    return syscall(SYS_capset, &header, data) != 0 ? -errno : 0;
}

int32_t cc_become_nobody(void) {
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    /* Without CAP_SYS_RESOURCE the limit stays, and memory that is borrowed later is not locked. */
    (void)setrlimit(RLIMIT_MEMLOCK, &limit);
    if (setgroups(0, NULL) != 0) return -errno;
    /* The C library does it for every thread. The kernel takes all capabilities from one that stops being root: unless it was
     * told not to (by a bit that a process inherits), and never from one that was not root. Whoever calls this looks. */
    if (setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0) return -errno;
    return 0;
}

/* Beside those with conditions, below. */
static const int allowed[] = {
    /* Files, pipes and sockets that are open. */
    SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64),
    SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(fstatfs),
    SCMP_SYS(fcntl),
    SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(ftruncate), SCMP_SYS(fallocate), SCMP_SYS(poll), SCMP_SYS(ppoll),
    SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(eventfd2), SCMP_SYS(accept), SCMP_SYS(accept4),
    SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(shutdown),
    /* Rings that there are. */
    SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register),
    /* Memory. */
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(mlock), SCMP_SYS(mlock2), SCMP_SYS(munlock),
    /* Threads. */
    SCMP_SYS(futex), SCMP_SYS(rseq), SCMP_SYS(set_robust_list), SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(getuid),
    SCMP_SYS(geteuid), SCMP_SYS(sysinfo), SCMP_SYS(uname), SCMP_SYS(getcpu), SCMP_SYS(exit),
    SCMP_SYS(exit_group), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
    SCMP_SYS(tgkill), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(membarrier), SCMP_SYS(restart_syscall),
    /* Time and chance. */
    SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday),
    SCMP_SYS(getrandom),
};

/* A library may look for a file, as for the time zone, and does without. */
static const int absent[] = {
    SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(stat), SCMP_SYS(access), SCMP_SYS(faccessat2), SCMP_SYS(readlink),
    SCMP_SYS(readlinkat),
};

enum { EMPTY_PATH = 0x1000 };

static int add_rules(scmp_filter_ctx filter) {
    int result = 0;
    for (size_t index = 0; index < sizeof allowed / sizeof *allowed && result == 0; index++)
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[index], 0);
    for (size_t index = 0; index < sizeof absent / sizeof *absent && result == 0; index++)
        result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), absent[index], 0);
    const struct { uint32_t action; int call; struct scmp_arg_cmp condition; } conditional[] = {
        /* What some versions of the C library make of fstat; and what is asked of a block device. */
        {SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), SCMP_A3(SCMP_CMP_MASKED_EQ, EMPTY_PATH, EMPTY_PATH)},
        {SCMP_ACT_ERRNO(EACCES), SCMP_SYS(newfstatat), SCMP_A3(SCMP_CMP_MASKED_EQ, EMPTY_PATH, 0)},
        {SCMP_ACT_ALLOW, SCMP_SYS(statx), SCMP_A2(SCMP_CMP_MASKED_EQ, EMPTY_PATH, EMPTY_PATH)},
        {SCMP_ACT_ERRNO(EACCES), SCMP_SYS(statx), SCMP_A2(SCMP_CMP_MASKED_EQ, EMPTY_PATH, 0)},
        {SCMP_ACT_ALLOW, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, BLKGETSIZE64)},
        /* No process. */
        {SCMP_ACT_ALLOW, SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD)},
        /* No memory becomes code. */
        {SCMP_ACT_ALLOW, SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        {SCMP_ACT_ALLOW, SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0)},
        /* A thread's name. */
        {SCMP_ACT_ALLOW, SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME)},
        /* An ordinary thread's priority, whatever the process has. */
        {SCMP_ACT_ALLOW, SCMP_SYS(sched_setscheduler), SCMP_A1(SCMP_CMP_EQ, SCHED_OTHER)},
        /* The limits are looked at, and not changed. */
        {SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), SCMP_A2(SCMP_CMP_EQ, 0)},
    };
    for (size_t index = 0; index < sizeof conditional / sizeof *conditional && result == 0; index++)
        result = seccomp_rule_add(
            filter, conditional[index].action, conditional[index].call, 1, conditional[index].condition);
    /* The C library takes clone instead, whose flags can be judged. */
    if (result == 0) result = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    return result;
}

int32_t cc_allow_only_serving(int32_t logs) {
    scmp_filter_ctx filter = seccomp_init(logs ? SCMP_ACT_LOG : SCMP_ACT_KILL_PROCESS);
    if (!filter) return -ENOMEM;
    int result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    /* A tree, not a list: the calls of the fast path are not behind forty others. */
    if (result == 0) result = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    if (result == 0) result = add_rules(filter);
    if (result == 0) result = seccomp_load(filter);
    seccomp_release(filter);
    return result;
}
