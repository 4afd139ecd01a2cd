/*
 * This process as one rank of an MPI job: started once, carried by one thread that makes every MPI call (so that
 * MPI_THREAD_FUNNELED is enough), left in order or ended for all.
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
  atomic_bool is_told; /* the reason of an abort has been printed */
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
/* Ends the job on every rank; not for the communication thread. Does not return while the job runs. */
void job_abort(struct job *job, const char *why);

/* The communication thread's program (carrier.c). */
void *carrier_main(void *job);

#endif
