#ifndef QED_UBLK_CSUPPORT_EPOLL_H
#define QED_UBLK_CSUPPORT_EPOLL_H

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>

/*
 * epoll, without its structures: swift-system's C module defines them too, and Swift then takes them for that module's.
 * Watched descriptors are known by keys. Negative results are -errno.
 */
enum : uint32_t {
    CS_EPOLL_IN = EPOLLIN,
    CS_EPOLL_OUT = EPOLLOUT,
    CS_EPOLL_ERR = EPOLLERR,
    CS_EPOLL_HUP = EPOLLHUP,
};

static inline int cs_epoll_create(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    return epoll < 0 ? -errno : epoll;
}

static inline int cs_epoll_add(int epoll, int descriptor, uint32_t events, uint64_t key) {
    struct epoll_event event = {.events = events, .data = {.u64 = key}};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) < 0 ? -errno : 0;
}

static inline int cs_epoll_modify(int epoll, int descriptor, uint32_t events, uint64_t key) {
    struct epoll_event event = {.events = events, .data = {.u64 = key}};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, descriptor, &event) < 0 ? -errno : 0;
}

/* One descriptor that is ready now. Returns 1, or 0 when there is none; a ready one comes again after the others. */
static inline int cs_epoll_next(int epoll, uint64_t *key, uint32_t *events) {
    struct epoll_event event;
    int count = epoll_wait(epoll, &event, 1, 0);
    if (count <= 0) return count < 0 ? -errno : 0;
    *key = event.data.u64;
    *events = event.events;
    return 1;
}

#endif
