/* The table of transport.h over a job. */
#ifndef MINKE_TABLE_H
#define MINKE_TABLE_H

#include "job.h"
#include "transport.h"

void table_init(struct minke_transport *table, struct job *job);

#endif
