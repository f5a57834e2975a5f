/* Umbrella header of the C that Swift cannot import: one file per family of calls. */
#ifndef QED_UBLK_CSUPPORT_H
#define QED_UBLK_CSUPPORT_H

/* Before liburing.h: it defines _XOPEN_SOURCE, which would change fd_set under Swift's Glibc module. */
#include <features.h>

#include "csupport_epoll.h"
#include "csupport_file.h"
#include "csupport_process.h"
#include "csupport_ring.h"
#include "csupport_syscalls.h"
#include "csupport_ublk.h"

#endif
