#ifndef CNBD_H
#define CNBD_H

#include <stddef.h>
#include <stdint.h>

/*
 * libnbd, as far as a base is read with it. It is loaded when the first connection is made: a server whose bases are files has
 * neither it nor what it brings along (GnuTLS, libxml2) in memory, and the program starts without them.
 *
 * A connection belongs to one thread. Nothing here waits, but for the resolver, which looks up a host's name.
 */
typedef struct nbd_handle cnbd_connection;

/* Result of a request: 0, or an errno. Called from `cnbd_notify`, `cnbd_read` and `cnbd_extents`. */
typedef void (*cnbd_done)(void *owner, uint64_t request, int error);
/* What a range holds, in order, from the offset that was asked for: lengths and flags (bit 1: reads as zeros) by turns. */
typedef void (*cnbd_found)(void *owner, uint64_t request, uint64_t offset, const uint32_t *entries, size_t count);

/* 0, or -1 where there is no libnbd that can be used. Any thread. */
int cnbd_load(void);

/* What went wrong last on this thread. */
const char *cnbd_error(void);

/*
 * Begins to connect, with the certificates of that folder, unless NULL, where the URI asks for TLS. A plain one negotiates what
 * reads need and nothing else: it tells no extents. NULL: see `cnbd_error`.
 */
cnbd_connection *cnbd_open(const char *uri, const char *certificates, int is_plain);
/* What is under way is not done any more, and its buffers are free; none of the callbacks is called. */
void cnbd_close(cnbd_connection *connection);

enum cnbd_state { CNBD_CONNECTING, CNBD_READY, CNBD_DEAD };
enum cnbd_state cnbd_state_of(cnbd_connection *connection);

/* To be waited for: its descriptor and poll's events. */
int cnbd_descriptor(cnbd_connection *connection);
short cnbd_events(cnbd_connection *connection);
/* Tells of poll's answer. */
void cnbd_notify(cnbd_connection *connection, short events);

/* Of the export; once the connection is ready. Negative or 0: unknown. */
int64_t cnbd_size(cnbd_connection *connection);
int cnbd_can_multi_connect(cnbd_connection *connection);
int cnbd_can_tell_extents(cnbd_connection *connection);
int64_t cnbd_smallest_block(cnbd_connection *connection);
int64_t cnbd_largest_block(cnbd_connection *connection);

/* 0; or -1: nothing was begun, see `cnbd_error`. */
int cnbd_read(cnbd_connection *connection, void *buffer, size_t count, uint64_t offset, cnbd_done done, void *owner,
              uint64_t request);
int cnbd_extents(cnbd_connection *connection, uint64_t count, uint64_t offset, cnbd_found found, cnbd_done done, void *owner,
                 uint64_t request);

#endif
