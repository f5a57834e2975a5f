#include "CNBD.h"

#include <dlfcn.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Every function of libnbd that is used. */
#define FUNCTIONS(F)                                                                                                            \
    F(nbd_create) F(nbd_close) F(nbd_get_error) F(nbd_add_meta_context) F(nbd_set_uri_allow_transports)                         \
    F(nbd_set_uri_allow_local_file) F(nbd_set_tls_certificates) F(nbd_aio_connect_uri) F(nbd_aio_is_ready)                      \
    F(nbd_aio_is_processing) F(nbd_aio_is_dead) F(nbd_aio_is_closed) F(nbd_aio_get_fd) F(nbd_aio_get_direction)                 \
    F(nbd_aio_notify_read) F(nbd_aio_notify_write) F(nbd_get_size) F(nbd_can_multi_conn) F(nbd_can_meta_context)                \
    F(nbd_get_block_size) F(nbd_aio_pread) F(nbd_aio_block_status) F(nbd_set_request_structured_replies)

static struct {
#define MEMBER(name) __typeof__(name) *name;
    FUNCTIONS(MEMBER)
} library;
static int is_loaded;
static pthread_once_t load_once = PTHREAD_ONCE_INIT;

static void load(void) {
    void *opened = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!opened) return;
    int missing = 0;
#define FIND(name)                                                                                                              \
    library.name = (__typeof__(name) *)dlsym(opened, #name);                                                                    \
    missing |= library.name == NULL;
    FUNCTIONS(FIND)
    is_loaded = !missing;
}

int cnbd_load(void) {
    pthread_once(&load_once, load);
    return is_loaded ? 0 : -1;
}

const char *cnbd_error(void) {
    const char *text = library.nbd_get_error();
    /* At the end of what it reads libnbd has nothing to say. */
    return text ? text : "the server has closed the connection";
}

cnbd_connection *cnbd_open(const char *uri, const char *certificates, int is_plain) {
    struct nbd_handle *handle = library.nbd_create();
    if (!handle) return NULL;
    /* An address leads to a socket, and names no other file. */
    if (library.nbd_set_uri_allow_transports(handle, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
        library.nbd_set_uri_allow_local_file(handle, false) < 0 ||
        /* Each of them would be a round trip, and what libnbd asks for since 1.18 it asks for only with structured replies. */
        (is_plain ? library.nbd_set_request_structured_replies(handle, false)
                  : library.nbd_add_meta_context(handle, LIBNBD_CONTEXT_BASE_ALLOCATION)) < 0 ||
        (certificates && library.nbd_set_tls_certificates(handle, certificates) < 0) ||
        library.nbd_aio_connect_uri(handle, uri) < 0) {
        /* The error stays that of this thread. */
        library.nbd_close(handle);
        return NULL;
    }
    return handle;
}

void cnbd_close(cnbd_connection *connection) { library.nbd_close(connection); }

enum cnbd_state cnbd_state_of(cnbd_connection *connection) {
    if (library.nbd_aio_is_ready(connection) > 0 || library.nbd_aio_is_processing(connection) > 0) return CNBD_READY;
    if (library.nbd_aio_is_dead(connection) > 0 || library.nbd_aio_is_closed(connection) > 0) return CNBD_DEAD;
    return CNBD_CONNECTING;
}

int cnbd_descriptor(cnbd_connection *connection) { return library.nbd_aio_get_fd(connection); }

short cnbd_events(cnbd_connection *connection) {
    unsigned direction = library.nbd_aio_get_direction(connection);
    return (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) | (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
}

void cnbd_notify(cnbd_connection *connection, short events) {
    /* One at a time: what is read may change what is to be written. Its failures show in its state. */
    unsigned direction = library.nbd_aio_get_direction(connection);
    bool can_read = (events & (POLLIN | POLLHUP | POLLERR)) != 0, can_write = (events & (POLLOUT | POLLHUP | POLLERR)) != 0;
    if (can_read && (direction & LIBNBD_AIO_DIRECTION_READ)) {
        (void)library.nbd_aio_notify_read(connection);
    } else if (can_write && (direction & LIBNBD_AIO_DIRECTION_WRITE)) {
        (void)library.nbd_aio_notify_write(connection);
    }
}

int64_t cnbd_size(cnbd_connection *connection) { return library.nbd_get_size(connection); }

int cnbd_can_multi_connect(cnbd_connection *connection) { return library.nbd_can_multi_conn(connection) > 0; }

int cnbd_can_tell_extents(cnbd_connection *connection) {
    return library.nbd_can_meta_context(connection, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0;
}

int64_t cnbd_smallest_block(cnbd_connection *connection) {
    return library.nbd_get_block_size(connection, LIBNBD_SIZE_MINIMUM);
}

int64_t cnbd_largest_block(cnbd_connection *connection) {
    return library.nbd_get_block_size(connection, LIBNBD_SIZE_MAXIMUM);
}

/* What a request's callbacks are called with; libnbd frees it. */
struct request {
    cnbd_done done;
    cnbd_found found;
    void *owner;
    uint64_t number;
};

static struct request *make_request(cnbd_done done, cnbd_found found, void *owner, uint64_t number) {
    struct request *request = malloc(sizeof *request);
    if (request) *request = (struct request){done, found, owner, number};
    return request;
}

static int has_completed(void *data, int *error) {
    struct request *request = data;
    request->done(request->owner, request->number, *error);
    /* It is retired at once. */
    return 1;
}

static int has_found(void *data, const char *context, uint64_t offset, uint32_t *entries, size_t count, int *error) {
    struct request *request = data;
    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0) {
        request->found(request->owner, request->number, offset, entries, count);
    }
    return 0;
}

int cnbd_read(cnbd_connection *connection, void *buffer, size_t count, uint64_t offset, cnbd_done done, void *owner,
              uint64_t number) {
    struct request *request = make_request(done, NULL, owner, number);
    if (!request) return -1;
    nbd_completion_callback completion = {.callback = has_completed, .user_data = request, .free = free};
    return library.nbd_aio_pread(connection, buffer, count, offset, completion, 0) < 0 ? -1 : 0;
}

int cnbd_extents(cnbd_connection *connection, uint64_t count, uint64_t offset, cnbd_found found, cnbd_done done, void *owner,
                 uint64_t number) {
    struct request *request = make_request(done, found, owner, number);
    if (!request) return -1;
    nbd_extent_callback extent = {.callback = has_found, .user_data = request};
    nbd_completion_callback completion = {.callback = has_completed, .user_data = request, .free = free};
    return library.nbd_aio_block_status(connection, count, offset, extent, completion, 0) < 0 ? -1 : 0;
}
