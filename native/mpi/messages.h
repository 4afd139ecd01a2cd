/*
 * What this rank has posted and what is still open: shared by the queue's thread, which posts and waits, and the
 * communication thread, which carries. Knows nothing of MPI.
 */
#ifndef MINKE_MESSAGES_H
#define MINKE_MESSAGES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { REASON_CAPACITY = 512 };

/* What one wait waits for. */
struct ticket {
  uint64_t id;
  atomic_long open; /* messages that are not done */
  atomic_bool has_failed;
  char reason[REASON_CAPACITY];
  struct ticket *next;
};

struct message {
  struct ticket *ticket;
  bool is_send;
  uint32_t peer, tag;
  char *bytes;
  uint64_t length;
  uint64_t moved;   /* bytes of the pieces that are done */
  int open_pieces;  /* the communication thread's alone, as is `moved` */
  struct message *previous, *next; /* among those that are open */
  struct message *next_fresh;      /* among those that the communication thread has not seen */
};

struct messages {
  uint32_t rank, size;
  double timeout_seconds;
  pthread_mutex_t lock;
  pthread_cond_t work; /* something for the communication thread */
  pthread_cond_t done; /* something for those who wait */
  atomic_int waiting;
  struct ticket *tickets;
  struct message *open, *fresh, **fresh_end;
  char refusal[REASON_CAPACITY]; /* why nothing more can be posted; empty as long as it can */
};

void messages_init(struct messages *all, uint32_t rank, uint32_t size, double timeout_seconds);

/* Takes a message down; 0, or -1 with the reason kept for a wait on the ticket. */
int messages_post(struct messages *all, const struct message *message, uint64_t ticket);
int messages_wait(struct messages *all, uint64_t ticket, char *reason, uint64_t capacity);

/* The messages posted since the last call, in order of posting, linked by next_fresh. */
struct message *messages_take_fresh(struct messages *all);
/* A message is done, well or (with a reason) badly; it is freed. */
void messages_finish(struct messages *all, struct message *message, const char *reason);
/* Lets every open message of a peer fail that has left for good. */
void messages_fail_peer(struct messages *all, uint32_t peer);
/* Refuses all posts from here on; the first reason counts. With the lock held. */
void messages_refuse(struct messages *all, const char *why);
/* Lets everything fail that is open or comes later. Carried on it may be all the same. */
void messages_fail_all(struct messages *all, const char *why);

#endif
