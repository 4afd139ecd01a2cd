/*
 * The table through which messages between ranks leave a queue for a library that the kernels' addon does not know
 * (MPI): JavaScript takes its address as a BigInt from the one addon and hands it to the other, queue.connect(address).
 * Its reader is native/kernels/src/message/foreign.rs.
 *
 * Rules
 *  - All functions are called on the queue's own thread, but for abort, which any thread may call, during a wait too.
 *  - A post only begins a message and returns. The bytes belong to the transport until wait(ticket) has returned well, or,
 *    if that never comes, until abort has returned: it must not touch them afterwards, for the arena may be unmapped.
 *  - Messages of one (sender, receiver, tag) arrive in the order of their posts; a message to oneself is legal, and so is
 *    one of no bytes (its pointer may be anything). A message has exactly the length that its receiver posted, else
 *    wait fails.
 *  - wait(ticket) returns when all that was posted under the ticket is done, sends included; at once if nothing was. It
 *    must not burn a core, and must fail, naming peer and tag, when its own time-out has passed.
 *  - fail(why) tells the peers that this rank cannot go on, lets later calls fail, and returns: whoever drives the queue
 *    shall hear of it too. If messages are open, an abort follows before their memory goes.
 *  - abort(why) tells the peers that this rank cannot go on, ends a wait that is under way, and lets later calls fail.
 *    It may be called more than once; the first reason counts.
 *  - Functions return 0, or another number for failure. wait and posts that fail say why: wait into `message` (UTF-8, cut to
 *    `capacity` bytes with its end, 0 included); what a post says is asked for by a wait on the same ticket.
 *  - The table and what ctx points at must live until every queue that was connected is disposed.
 */
#ifndef MINKE_TRANSPORT_H
#define MINKE_TRANSPORT_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MINKE_TRANSPORT_VERSION 2

struct minke_transport {
  uint32_t version; /* MINKE_TRANSPORT_VERSION; a queue refuses any other */
  void *ctx;        /* first argument of every function */
  int (*post_send)(void *ctx, uint64_t ticket, uint32_t peer, uint32_t tag, const void *bytes, uint64_t length);
  int (*post_receive)(void *ctx, uint64_t ticket, uint32_t peer, uint32_t tag, void *bytes, uint64_t length);
  int (*wait)(void *ctx, uint64_t ticket, char *message, uint64_t capacity);
  void (*fail)(void *ctx, const char *why); /* why: as abort's */
  void (*abort)(void *ctx, const char *why); /* why: UTF-8, ends with 0, valid during the call only */
};

#ifdef __cplusplus
}
#endif

#endif
