#include "table.h"

static int post_send(void *ctx, uint64_t ticket, uint32_t peer, uint32_t tag, const void *bytes, uint64_t length) {
  struct job *job = ctx;
  /* The bytes of a send are only read. */
  struct message message = {.is_send = true, .peer = peer, .tag = tag, .bytes = (char *)bytes, .length = length};
  return messages_post(&job->messages, &message, ticket);
}

static int post_receive(void *ctx, uint64_t ticket, uint32_t peer, uint32_t tag, void *bytes, uint64_t length) {
  struct job *job = ctx;
  struct message message = {.is_send = false, .peer = peer, .tag = tag, .bytes = bytes, .length = length};
  return messages_post(&job->messages, &message, ticket);
}

static int wait_for(void *ctx, uint64_t ticket, char *reason, uint64_t capacity) {
  struct job *job = ctx;
  return messages_wait(&job->messages, ticket, reason, capacity);
}

static void fail_job(void *ctx, const char *why) { job_fail(ctx, why); }

static void end_job(void *ctx, const char *why) { job_abort(ctx, why); }

void table_init(struct minke_transport *table, struct job *job) {
  *table = (struct minke_transport){
      .version = MINKE_TRANSPORT_VERSION,
      .ctx = job,
      .post_send = post_send,
      .post_receive = post_receive,
      .wait = wait_for,
      .fail = fail_job,
      .abort = end_job,
  };
}
