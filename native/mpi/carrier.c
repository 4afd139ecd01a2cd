/*
 * The communication thread: hands messages to MPI and asks about them until they are done.
 *
 * MPI moves nothing by itself (measured: without a call no byte of a large message travels), and waiting inside it
 * burns a core. So this thread asks: without a pause right after something happened, every 20 us while the queue waits,
 * every 50 to 200 us while it computes, and every 10 ms when nothing is open (a library may still hold a small message
 * that it has called sent, and other ranks may say goodbye).
 */
#ifdef __linux__
#define _GNU_SOURCE
#include <sys/prctl.h>
#endif
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "job.h"

/* Tests make these small. */
#ifndef PIECE_BYTES
#define PIECE_BYTES (1 << 30) /* MPI counts bytes in an int */
#endif
#ifndef FIRST_WORD_SECONDS
#define FIRST_WORD_SECONDS 60
#endif
enum { GOODBYE_TAG = 0 };
static const double EAGER_SECONDS = 200e-6, HURRIED_PAUSE = 20e-6, IDLE_PAUSE = 10e-3, ALONE_PAUSE = 1;
static const double SHORTEST_PAUSE = 50e-6, LONGEST_PAUSE = 200e-6;
/* What a rank sent before it left may arrive after its goodbye, for they travel apart. */
static const double GRACE_SECONDS = 2;

struct carrier {
  struct job *job;
  MPI_Comm data, control;
  int count, capacity; /* of the requests below; the first one hears goodbyes */
  MPI_Request *requests;
  struct message **owners; /* null: a goodbye */
  MPI_Status *statuses;
  int *finished;
  char heard[REASON_CAPACITY]; /* what a goodbye says: nothing, or why its rank has failed */
  bool has_said_goodbye, has_told_failure;
  double doom; /* when the job is ended if rank 0 has not done so; 0 while nobody has failed */
  double last_goodbye, last_event, pause;
};

static void end_job(struct job *job, const char *why) {
  job_tell(job, why);
  MPI_Abort(MPI_COMM_WORLD, 1);
  _exit(1);
}

static void check(struct job *job, int code, const char *what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "", why[REASON_CAPACITY];
  int length = 0;
  MPI_Error_string(code, text, &length);
  snprintf(why, sizeof why, "%s: %.*s", what, REASON_CAPACITY / 2, text);
  end_job(job, why);
}

static bool grow(struct carrier *me) {
  if (me->count < me->capacity) return true;
  const size_t capacity = me->capacity == 0 ? 64 : 2 * (size_t)me->capacity;
  me->requests = realloc(me->requests, capacity * sizeof *me->requests);
  me->owners = realloc(me->owners, capacity * sizeof *me->owners);
  me->statuses = realloc(me->statuses, capacity * sizeof *me->statuses);
  me->finished = realloc(me->finished, capacity * sizeof *me->finished);
  me->capacity = (int)capacity;
  return me->requests != NULL && me->owners != NULL && me->statuses != NULL && me->finished != NULL;
}

static MPI_Request *new_request(struct carrier *me, struct message *owner) {
  if (!grow(me)) end_job(me->job, "there is no memory for the notes of messages");
  me->owners[me->count] = owner;
  return &me->requests[me->count++];
}

static void hear_goodbyes(struct carrier *me) {
  check(me->job,
        MPI_Irecv(me->heard, sizeof me->heard, MPI_BYTE, MPI_ANY_SOURCE, GOODBYE_TAG, me->control, &me->requests[0]),
        "MPI_Irecv");
}

/* Long messages go in pieces, an empty one as one empty piece; both sides cut alike, for both know the length. */
static void begin_message(struct carrier *me, struct message *message) {
  char why[REASON_CAPACITY] = "";
  if (message->tag > (uint32_t)me->job->tag_limit) {
    snprintf(why, sizeof why, "tag %u: this MPI carries tags up to %d", message->tag, me->job->tag_limit);
    messages_finish(&me->job->messages, message, why);
    return;
  }
  const int peer = (int)message->peer, tag = (int)message->tag;
  uint64_t begin = 0;
  do {
    const uint64_t left = message->length - begin;
    const int bytes = (int)(left < PIECE_BYTES ? left : PIECE_BYTES);
    MPI_Request *request = new_request(me, message);
    message->open_pieces++;
    if (message->is_send) {
      check(me->job, MPI_Isend(message->bytes + begin, bytes, MPI_BYTE, peer, tag, me->data, request), "MPI_Isend");
    } else {
      check(me->job, MPI_Irecv(message->bytes + begin, bytes, MPI_BYTE, peer, tag, me->data, request), "MPI_Irecv");
    }
    begin += (uint64_t)bytes;
  } while (begin < message->length);
}

static void finish_piece(struct carrier *me, struct message *message, const MPI_Status *status, int error) {
  int bytes = 0, class = MPI_SUCCESS;
  if (!message->is_send) MPI_Get_count(status, MPI_BYTE, &bytes);
  message->moved += (uint64_t)bytes;
  if (--message->open_pieces > 0 && error == MPI_SUCCESS) return;

  char why[REASON_CAPACITY] = "";
  if (error != MPI_SUCCESS) MPI_Error_class(error, &class);
  if (class == MPI_ERR_TRUNCATE) {
    snprintf(why, sizeof why, "rank %d got more bytes from rank %u (tag %u) than the %llu that were awaited",
             me->job->rank, message->peer, message->tag, (unsigned long long)message->length);
  } else if (class != MPI_SUCCESS) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(error, text, &length);
    snprintf(why, sizeof why, "a message %s rank %u (tag %u): %.*s", message->is_send ? "to" : "from",
             message->peer, message->tag, REASON_CAPACITY / 2, text);
  } else if (!message->is_send && message->moved != message->length) {
    snprintf(why, sizeof why, "rank %d got %llu bytes from rank %u (tag %u) where %llu were awaited", me->job->rank,
             (unsigned long long)message->moved, message->peer, message->tag,
             (unsigned long long)message->length);
  }
  /* Other pieces of a failed message still point to it. */
  if (message->open_pieces > 0) end_job(me->job, why);
  messages_finish(&me->job->messages, message, why[0] == 0 ? NULL : why);
}

/* Another rank has failed, and has told the user why. */
static void hear_failure(struct carrier *me, int rank, int length) {
  struct job *job = me->job;
  job->is_told = true;
  pthread_mutex_lock(&job->messages.lock);
  const bool is_first = job->heard[0] == 0 && !job->is_failing;
  if (is_first) snprintf(job->heard, sizeof job->heard, "rank %d failed: %.*s", rank, length, me->heard);
  pthread_mutex_unlock(&job->messages.lock);
  if (!is_first) return;
  messages_fail_all(&job->messages, job->heard);
  me->doom = seconds_now() + (job->rank == 0 ? job->grace_seconds : VERDICT_SECONDS);
}

static void finish_goodbye(struct carrier *me, const MPI_Status *status) {
  struct job *job = me->job;
  int length = 0;
  MPI_Get_count(status, MPI_BYTE, &length);
  if (length > 0) {
    hear_failure(me, status->MPI_SOURCE, length);
  } else {
    pthread_mutex_lock(&job->messages.lock);
    job->has_left[status->MPI_SOURCE] = true;
    job->left_count++;
    pthread_mutex_unlock(&job->messages.lock);
    me->last_goodbye = seconds_now();
  }
  /* A rank that has said goodbye may still fail, as long as others have not. */
  hear_goodbyes(me);
}

/* True if anything was done. */
static bool test_requests(struct carrier *me) {
  int finished = 0;
  const int code = MPI_Testsome(me->count, me->requests, &finished, me->finished, me->statuses);
  if (code != MPI_ERR_IN_STATUS) check(me->job, code, "MPI_Testsome");
  if (finished == MPI_UNDEFINED || finished == 0) return false;
  for (int i = 0; i < finished; i++) {
    const int at = me->finished[i];
    /* MPI fills MPI_ERROR in only if it says so. */
    const int error = code == MPI_ERR_IN_STATUS ? me->statuses[i].MPI_ERROR : MPI_SUCCESS;
    if (me->owners[at] != NULL) {
      finish_piece(me, me->owners[at], &me->statuses[i], error);
      continue;
    }
    check(me->job, error, "a goodbye");
    if (at == 0) finish_goodbye(me, &me->statuses[i]);
  }
  int kept = 1;
  for (int at = 1; at < me->count; at++) {
    if (me->requests[at] == MPI_REQUEST_NULL) continue;
    me->requests[kept] = me->requests[at];
    me->owners[kept++] = me->owners[at];
  }
  me->count = kept;
  return true;
}

/* Sleeps as long as the state of things allows; a post, a wait or a goodbye of our own ends it. */
static void rest(struct carrier *me) {
  struct messages *all = &me->job->messages;
  const double now = seconds_now();
  const bool is_open = me->count > 1, is_hurried = all->waiting > 0;
  if (is_open && now < me->last_event + EAGER_SECONDS) {
    sched_yield();
    return;
  }
  double pause = me->job->size > 1 ? IDLE_PAUSE : ALONE_PAUSE;
  if (is_open && is_hurried) {
    pause = HURRIED_PAUSE;
  } else if (is_open) {
    pause = me->pause;
    me->pause = 2 * pause < LONGEST_PAUSE ? 2 * pause : LONGEST_PAUSE;
  }
  pthread_mutex_lock(&all->lock);
  /* Looked at under the lock: what comes before the wait would not end it. */
  const bool wants_to_leave = me->job->state == JOB_LEAVING && !me->has_said_goodbye;
  const bool wants_to_tell = me->job->is_failing && !me->has_told_failure;
  if (all->fresh == NULL && !me->job->is_aborting && !wants_to_leave && !wants_to_tell)
    condition_wait(&all->work, &all->lock, now + pause);
  pthread_mutex_unlock(&all->lock);
}

static void fail_those_who_left(struct carrier *me) {
  struct job *job = me->job;
  if (job->left_count == 0 || seconds_now() < me->last_goodbye + GRACE_SECONDS) return;
  for (int peer = 0; peer < job->size; peer++) {
    if (job->has_left[peer]) messages_fail_peer(&job->messages, (uint32_t)peer);
  }
}

static void tell_all(struct carrier *me, const char *text) {
  for (int peer = 0; peer < me->job->size; peer++) {
    if (peer == me->job->rank) continue;
    MPI_Request *request = new_request(me, NULL);
    check(me->job, MPI_Isend(text, (int)strlen(text), MPI_BYTE, peer, GOODBYE_TAG, me->control, request), "MPI_Isend");
  }
}

static void say_goodbye(struct carrier *me) {
  if (me->has_said_goodbye) return;
  me->has_said_goodbye = true;
  tell_all(me, "");
}

/* Once this rank or another has failed, the job ends: rank 0 says when, or, if it says nothing, whoever waits for that. */
static void see_to_the_end(struct carrier *me) {
  struct job *job = me->job;
  if (job->is_failing && !me->has_told_failure) {
    me->has_told_failure = true;
    tell_all(me, job->failure);
    me->doom = seconds_now() + (job->rank == 0 ? job->grace_seconds : VERDICT_SECONDS);
  }
  if (job->is_aborting || (me->doom > 0 && seconds_now() >= me->doom)) MPI_Abort(MPI_COMM_WORLD, 1);
}

static void set_state(struct job *job, enum job_state state) {
  pthread_mutex_lock(&job->messages.lock);
  job->state = state;
  pthread_cond_broadcast(&job->messages.done);
  pthread_mutex_unlock(&job->messages.lock);
}

/*
 * A communicator of all ranks with our error handler, apart from whoever else uses MPI in this process. It is where ranks
 * speak to one another for the first time, and where they find out that a firewall lets only the launcher through.
 */
static void duplicate_world(struct job *job, MPI_Comm *copy) {
  /* One of them tells it; the others come after it only if it cannot. */
  const double deadline = seconds_now() + FIRST_WORD_SECONDS + (job->rank > 0 ? 3 : 0);
  const struct timespec pause = timespec_of(SHORTEST_PAUSE);
  int is_done = 0;
  MPI_Request request;
  check(job, MPI_Comm_idup(MPI_COMM_WORLD, copy, &request), "MPI_Comm_idup");
  while (true) {
    check(job, MPI_Test(&request, &is_done, MPI_STATUS_IGNORE), "MPI_Comm_idup");
    if (is_done) return;
    if (seconds_now() > deadline) {
      char why[REASON_CAPACITY];
      snprintf(why, sizeof why,
               "all ranks have started, but no message came through for %d s: a firewall, or the wrong network "
               "(Open MPI: --mca btl_tcp_if_include 10.0.0.0/24)", FIRST_WORD_SECONDS);
      end_job(job, why);
    }
    nanosleep(&pause, NULL);
  }
}

static bool begin(struct carrier *me) {
  struct job *job = me->job;
  int level = 0, length = 0, has_limit = 0, *limit = NULL;
  if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS || level < MPI_THREAD_FUNNELED) {
    snprintf(job->reason, sizeof job->reason, "this MPI allows no calls from a thread of its own (level %d)", level);
    return false;
  }
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &job->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &job->size);
  MPI_Get_processor_name(job->host, &length);
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &limit, &has_limit);
  job->tag_limit = has_limit ? *limit : 32767;
  job->has_left = calloc((size_t)job->size, sizeof *job->has_left);
  if (job->has_left == NULL) end_job(job, "there is no memory left");
  job->messages.rank = (uint32_t)job->rank;
  job->messages.size = (uint32_t)job->size;
  duplicate_world(job, &me->data);
  duplicate_world(job, &me->control);
  *new_request(me, NULL) = MPI_REQUEST_NULL;
  if (job->size > 1) hear_goodbyes(me);
  return true;
}

static void end(struct carrier *me) {
  if (me->requests[0] != MPI_REQUEST_NULL) {
    MPI_Cancel(&me->requests[0]);
    MPI_Wait(&me->requests[0], MPI_STATUS_IGNORE);
  }
  MPI_Comm_free(&me->control);
  MPI_Comm_free(&me->data);
  MPI_Finalize();
  free(me->requests);
  free(me->owners);
  free(me->statuses);
  free(me->finished);
}

void *carrier_main(void *argument) {
  struct job *job = argument;
  struct carrier me = {.job = job, .pause = SHORTEST_PAUSE};
#ifdef __linux__
  prctl(PR_SET_NAME, "minke-mpi");
  prctl(PR_SET_TIMERSLACK, 1000UL); /* else every pause is 50 us longer */
#endif
  if (!begin(&me)) {
    set_state(job, JOB_BROKEN);
    return NULL;
  }
  set_state(job, JOB_RUNNING);
  while (true) {
    see_to_the_end(&me);
    struct message *fresh = messages_take_fresh(&job->messages);
    bool has_news = fresh != NULL;
    while (fresh != NULL) {
      struct message *next = fresh->next_fresh; /* a message that is done is freed */
      begin_message(&me, fresh);
      fresh = next;
    }
    if (job->state == JOB_LEAVING) say_goodbye(&me);
    if (test_requests(&me)) has_news = true;
    if (me.has_said_goodbye && me.count == 1 && job->left_count == job->size - 1) break;
    fail_those_who_left(&me);
    if (has_news) {
      me.last_event = seconds_now();
      me.pause = SHORTEST_PAUSE;
    } else {
      rest(&me);
    }
  }
  end(&me);
  set_state(job, JOB_LEFT);
  return NULL;
}
