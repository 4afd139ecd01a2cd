/*
 * This process as one rank of an MPI job: started once, carried by one thread that makes every MPI call (so that
 * MPI_THREAD_FUNNELED is enough), left in order or ended for all.
 *
 * A rank that cannot go on prints why and tells the others. Rank 0 ends the job then, at once or, where it has something
 * to write first, after a moment; the rank that failed does so if rank 0 does not.
 */
#ifndef MINKE_JOB_H
#define MINKE_JOB_H

#include <mpi.h>
#include <pthread.h>
#include <stdatomic.h>

#include "messages.h"

enum job_state { JOB_STARTING, JOB_RUNNING, JOB_LEAVING, JOB_LEFT, JOB_BROKEN };

struct job {
  /* Facts, fixed once the job runs. */
  int rank, size;
  int tag_limit; /* the largest tag that this MPI carries */
  char host[MPI_MAX_PROCESSOR_NAME];
  double timeout_seconds;

  pthread_t thread;
  struct messages messages; /* its lock guards what follows */
  _Atomic enum job_state state;
  char reason[REASON_CAPACITY]; /* why the job is broken */
  bool *has_left;               /* [size] */
  int left_count;
  atomic_bool is_aborting;
  atomic_bool is_told; /* the reason of an end has been printed, here or by the rank whose it is */
  atomic_bool is_failing;
  char failure[REASON_CAPACITY]; /* why this rank fails, fixed before is_failing */
  char heard[REASON_CAPACITY];   /* which other rank has failed, and why; empty if none */
  _Atomic double grace_seconds;  /* how long rank 0 lets the job live then */
};

/* 0 when the job runs; -1 with job->reason. Blocks until all ranks have started. */
int job_start(struct job *job, double timeout_seconds);

/*
 * Says goodbye to the other ranks and waits up to `seconds` for theirs: 0 all have left, 1 not yet, -1 it cannot be;
 * the last two with a reason.
 */
int job_leave(struct job *job, double seconds, char *reason, size_t capacity);

/* Prints the first reason that it is given, and no other. */
void job_tell(struct job *job, const char *why);
/* This rank cannot go on: tells the user and the other ranks, and returns. The job ends soon. */
void job_fail(struct job *job, const char *why);
/* Ends the job on every rank; not for the communication thread. Does not return while the job runs. */
void job_abort(struct job *job, const char *why);
/* Once a rank has failed the job is to live on for so many seconds. True with the reason if one has, not this one. */
bool job_attend(struct job *job, double seconds, char *reason, size_t capacity);

/* How long a rank that has failed waits for rank 0 to end the job. */
static const double VERDICT_SECONDS = 5;

/* The communication thread's program (carrier.c). */
void *carrier_main(void *job);

#endif
