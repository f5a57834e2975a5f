/*
 * How a process gives up what it may do, for good: what Swift cannot import of libseccomp and of the kernel's headers.
 * Results are 0 or more, or -errno.
 */
#ifndef QED_UBLK_CCONFINEMENT_H
#define QED_UBLK_CCONFINEMENT_H

#include <stdint.h>

/* The calling thread, and those it makes, may open, make and remove nothing in any file system, nor bind or connect a TCP
 * socket, nor, where the kernel can say so, signal or reach by an abstract socket who is not as confined as they are. What is
 * open stays open. Returns the version of Landlock that does it; -ENOSYS or -EOPNOTSUPP where the kernel has none. */
int32_t cc_leave_file_systems(void);

/* Whether the process is root and may stop being it, users and groups: 1 or 0. */
int32_t cc_may_become_nobody(void);

/* The calling thread, and those it makes from now on, have no capabilities to pass on to programs that they start. (Of root's
 * that takes none from those programs.) A thread that stops being root would keep them otherwise. */
int32_t cc_inherit_nothing(void);

/* All threads of the process become nobody's: no user, no group; and those that were root's have no capability left, but for what
 * `cc_inherit_nothing` takes, unless the kernel was told to leave them (SECBIT_NO_SETUID_FIXUP). What is locked in memory is not
 * limited any more, as it was for root. */
int32_t cc_become_nobody(void);

/* All threads of the process may only make the system calls that serving takes; any other kills the process, or with `logs`
 * is told to the kernel's log and carried out. Those that look for a file fail instead: libraries may look for one and do
 * without. */
int32_t cc_allow_only_serving(int32_t logs);

#endif
