#include "job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

/* MPI_Abort ends a process in well under this, if it ends it at all. */
static const double ABORT_SECONDS = 3;

int job_start(struct job *job, double timeout_seconds) {
  memset(job, 0, sizeof *job);
  job->timeout_seconds = timeout_seconds;
  job->state = JOB_STARTING;
  messages_init(&job->messages, 0, 1, timeout_seconds);
  /* Waits inside MPI (start and end) spin: on a machine with more ranks than cores they must let others run. */
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  if (pthread_create(&job->thread, NULL, carrier_main, job) != 0) {
    snprintf(job->reason, sizeof job->reason, "the communication thread cannot be started");
    job->state = JOB_BROKEN;
    return -1;
  }
  pthread_mutex_lock(&job->messages.lock);
  while (job->state == JOB_STARTING) pthread_cond_wait(&job->messages.done, &job->messages.lock);
  const enum job_state state = job->state;
  pthread_mutex_unlock(&job->messages.lock);
  return state == JOB_RUNNING ? 0 : -1;
}

/* "1, 3, 5": those that have not said goodbye. */
static void list_missing(const struct job *job, char *text, size_t capacity) {
  size_t used = (size_t)snprintf(text, capacity, "rank %d has left, others have not:", job->rank);
  for (int peer = 0; peer < job->size && used + 16 < capacity; peer++) {
    if (peer == job->rank || job->has_left[peer]) continue;
    used += (size_t)snprintf(text + used, capacity - used, " %d", peer);
  }
}

int job_leave(struct job *job, double seconds, char *reason, size_t capacity) {
  const double deadline = seconds_now() + seconds;
  struct messages *all = &job->messages;
  int result = 0;
  pthread_mutex_lock(&all->lock);
  if (job->state == JOB_RUNNING && all->open != NULL) {
    const struct message *message = all->open;
    snprintf(reason, capacity, "rank %d leaves with messages open: one %s rank %u (tag %u)", job->rank,
             message->is_send ? "to" : "from", message->peer, message->tag);
    pthread_mutex_unlock(&all->lock);
    return -1;
  }
  if (job->state == JOB_RUNNING) {
    char why[REASON_CAPACITY];
    snprintf(why, sizeof why, "rank %d has left the job", job->rank);
    messages_refuse(all, why);
    job->state = JOB_LEAVING;
  }
  pthread_cond_signal(&all->work);
  while (job->state == JOB_LEAVING && seconds_now() < deadline) condition_wait(&all->done, &all->lock, deadline);
  if (job->state == JOB_LEAVING) {
    list_missing(job, reason, capacity);
    result = 1;
  } else if (job->state != JOB_LEFT) {
    snprintf(reason, capacity, "%s", job->reason);
    result = -1;
  }
  pthread_mutex_unlock(&all->lock);
  return result;
}

void job_tell(struct job *job, const char *why) {
  /* A launcher passes on what ranks write, and MPICH's stops at once when one aborts: it must have read the line, whoever
     of two has written it. */
  const struct timespec pause = timespec_of(0.1);
  if (atomic_exchange(&job->is_told, true)) {
    nanosleep(&pause, NULL);
    return;
  }
  char line[2 * REASON_CAPACITY];
  int length =
      snprintf(line, sizeof line, "minke: rank %d of %d on %s ends the job: %s\n", job->rank, job->size, job->host, why);
  if (length >= (int)sizeof line) length = (int)sizeof line - 1;
  /* One write, so that the lines of two ranks do not mix. */
  if (write(STDERR_FILENO, line, (size_t)length) < 0) perror("minke: standard error");
  nanosleep(&pause, NULL);
}

static bool is_over(struct job *job) {
  pthread_mutex_lock(&job->messages.lock);
  const bool is_over = job->state == JOB_LEFT || job->state == JOB_BROKEN;
  pthread_mutex_unlock(&job->messages.lock);
  return is_over;
}

static void wake_carrier(struct job *job) {
  pthread_mutex_lock(&job->messages.lock);
  pthread_cond_signal(&job->messages.work);
  pthread_mutex_unlock(&job->messages.lock);
}

void job_fail(struct job *job, const char *why) {
  if (is_over(job)) return;
  job_tell(job, why);
  pthread_mutex_lock(&job->messages.lock);
  /* What follows from another rank's failure is none of this one's. */
  if (!job->is_failing && job->heard[0] == 0) {
    snprintf(job->failure, sizeof job->failure, "%s", why);
    job->is_failing = true;
  }
  pthread_mutex_unlock(&job->messages.lock);
  messages_fail_all(&job->messages, why);
  wake_carrier(job);
}

void job_abort(struct job *job, const char *why) {
  if (is_over(job)) return;
  job_fail(job, why);
  if (job->rank == 0) job->is_aborting = true;
  wake_carrier(job);
  const double deadline = seconds_now() + VERDICT_SECONDS + ABORT_SECONDS;
  struct timespec pause = timespec_of(0.01);
  while (seconds_now() < deadline) nanosleep(&pause, NULL);
  /* A rank that ends without MPI_Finalize ends the job too, only later. */
  _exit(1);
}

bool job_attend(struct job *job, double seconds, char *reason, size_t capacity) {
  pthread_mutex_lock(&job->messages.lock);
  job->grace_seconds = seconds;
  snprintf(reason, capacity, "%s", job->heard);
  pthread_mutex_unlock(&job->messages.lock);
  return reason[0] != 0;
}
