#include "messages.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* A small message arrives in microseconds; a sleeping thread takes tens of them to wake. */
static const double SPIN_SECONDS = 50e-6;

void messages_init(struct messages *all, uint32_t rank, uint32_t size, double timeout_seconds) {
  memset(all, 0, sizeof *all);
  all->rank = rank;
  all->size = size;
  all->timeout_seconds = timeout_seconds;
  all->fresh_end = &all->fresh;
  pthread_mutex_init(&all->lock, NULL);
  condition_init(&all->work);
  condition_init(&all->done);
}

static struct ticket *find_ticket(struct messages *all, uint64_t id) {
  struct ticket *ticket = all->tickets;
  while (ticket != NULL && ticket->id != id) ticket = ticket->next;
  return ticket;
}

static struct ticket *find_or_make_ticket(struct messages *all, uint64_t id) {
  struct ticket *ticket = find_ticket(all, id);
  if (ticket != NULL) return ticket;
  ticket = calloc(1, sizeof *ticket);
  if (ticket == NULL) return NULL;
  ticket->id = id;
  ticket->next = all->tickets;
  all->tickets = ticket;
  return ticket;
}

static void drop_ticket(struct messages *all, struct ticket *ticket) {
  struct ticket **link = &all->tickets;
  while (*link != ticket) link = &(*link)->next;
  *link = ticket->next;
  free(ticket);
}

/* The first reason counts: what comes later follows from it. */
static void fail_ticket(struct ticket *ticket, const char *format, ...) {
  if (ticket->has_failed) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(ticket->reason, sizeof ticket->reason, format, arguments);
  va_end(arguments);
  ticket->has_failed = true;
}

int messages_post(struct messages *all, const struct message *message, uint64_t id) {
  struct message *copy = malloc(sizeof *copy);
  pthread_mutex_lock(&all->lock);
  struct ticket *ticket = find_or_make_ticket(all, id);
  const bool is_refused = all->refusal[0] != 0;
  if (copy == NULL || ticket == NULL || is_refused || message->peer >= all->size) {
    if (ticket != NULL && is_refused) {
      fail_ticket(ticket, "%s", all->refusal);
    } else if (ticket != NULL && message->peer >= all->size) {
      fail_ticket(ticket, "rank %u %s rank %u: there are ranks 0 to %u", all->rank,
                  message->is_send ? "sends to" : "receives from", message->peer, all->size - 1);
    } else if (ticket != NULL) {
      fail_ticket(ticket, "rank %u has no memory for a message's note", all->rank);
    }
    pthread_mutex_unlock(&all->lock);
    free(copy);
    return -1;
  }
  *copy = *message;
  copy->ticket = ticket;
  copy->previous = NULL;
  copy->next = all->open;
  if (all->open != NULL) all->open->previous = copy;
  all->open = copy;
  copy->next_fresh = NULL;
  *all->fresh_end = copy;
  all->fresh_end = &copy->next_fresh;
  ticket->open++;
  pthread_cond_signal(&all->work);
  pthread_mutex_unlock(&all->lock);
  return 0;
}

static void describe_timeout(struct messages *all, struct ticket *ticket) {
  int others = -1;
  struct message *oldest = NULL;
  for (struct message *message = all->open; message != NULL; message = message->next) {
    if (message->ticket != ticket) continue;
    others++;
    oldest = message; /* new ones are put in front */
  }
  if (oldest == NULL) return;
  char more[48] = "";
  if (others > 0) snprintf(more, sizeof more, ", and %d more", others);
  fail_ticket(ticket, "rank %u waited %g s for %s rank %u (tag %u, %llu bytes)%s", all->rank,
              all->timeout_seconds, oldest->is_send ? "its message to be taken by" : "a message of",
              oldest->peer, oldest->tag, (unsigned long long)oldest->length, more);
}

int messages_wait(struct messages *all, uint64_t id, char *reason, uint64_t capacity) {
  pthread_mutex_lock(&all->lock);
  struct ticket *ticket = find_ticket(all, id);
  if (ticket == NULL) {
    pthread_mutex_unlock(&all->lock);
    return 0;
  }
  all->waiting++;
  pthread_cond_signal(&all->work); /* from here on the other thread hurries */
  pthread_mutex_unlock(&all->lock);

  const double begin = seconds_now();
  while (ticket->open > 0 && !ticket->has_failed && seconds_now() < begin + SPIN_SECONDS) sched_yield();

  pthread_mutex_lock(&all->lock);
  const double deadline = begin + all->timeout_seconds;
  while (ticket->open > 0 && !ticket->has_failed) {
    if (seconds_now() >= deadline) describe_timeout(all, ticket);
    else condition_wait(&all->done, &all->lock, deadline);
  }
  all->waiting--;
  const bool has_failed = ticket->has_failed;
  if (has_failed && capacity > 0) snprintf(reason, capacity, "%s", ticket->reason);
  /* A failed ticket stays: messages that will never be done point to it. */
  if (!has_failed) drop_ticket(all, ticket);
  pthread_mutex_unlock(&all->lock);
  return has_failed ? -1 : 0;
}

struct message *messages_take_fresh(struct messages *all) {
  pthread_mutex_lock(&all->lock);
  struct message *fresh = all->fresh;
  all->fresh = NULL;
  all->fresh_end = &all->fresh;
  pthread_mutex_unlock(&all->lock);
  return fresh;
}

void messages_finish(struct messages *all, struct message *message, const char *reason) {
  pthread_mutex_lock(&all->lock);
  if (message->previous != NULL) message->previous->next = message->next;
  else all->open = message->next;
  if (message->next != NULL) message->next->previous = message->previous;
  if (reason != NULL) fail_ticket(message->ticket, "%s", reason);
  if (--message->ticket->open == 0 || reason != NULL) pthread_cond_broadcast(&all->done);
  pthread_mutex_unlock(&all->lock);
  free(message);
}

void messages_fail_peer(struct messages *all, uint32_t peer) {
  pthread_mutex_lock(&all->lock);
  for (struct message *message = all->open; message != NULL; message = message->next) {
    if (message->peer != peer) continue;
    fail_ticket(message->ticket, "rank %u left while rank %u %s it (tag %u, %llu bytes)", peer, all->rank,
                message->is_send ? "had a message for" : "waited for a message of", message->tag,
                (unsigned long long)message->length);
  }
  pthread_cond_broadcast(&all->done);
  pthread_mutex_unlock(&all->lock);
}

void messages_refuse(struct messages *all, const char *why) {
  if (all->refusal[0] == 0) snprintf(all->refusal, sizeof all->refusal, "%s", why);
}

void messages_fail_all(struct messages *all, const char *why) {
  pthread_mutex_lock(&all->lock);
  messages_refuse(all, why);
  for (struct ticket *ticket = all->tickets; ticket != NULL; ticket = ticket->next) fail_ticket(ticket, "%s", why);
  pthread_cond_broadcast(&all->done);
  pthread_mutex_unlock(&all->lock);
}
