/*
 * MPI for Node: start(timeoutSeconds), leave(seconds), attend(seconds), abort(why), and the library: flavour, version text.
 *
 * The queue reaches the job through the table of transport.h, whose address start() returns; JavaScript carries it.
 */
#include <node_api.h>
#include <stdio.h>
#include <string.h>

#include "job.h"
#include "table.h"

#if defined(OPEN_MPI)
static const char FLAVOUR[] = "Open MPI";
#elif defined(MPICH_VERSION) || defined(MPICH)
static const char FLAVOUR[] = "MPICH";
#else
static const char FLAVOUR[] = "MPI";
#endif

/* MPI can be started once in a process, so there is one job and one table. */
static struct job job;
static struct minke_transport table;
static atomic_bool is_started;

static napi_value text_value(napi_env env, const char *text) {
  napi_value value = NULL;
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &value);
  return value;
}

static napi_value int_value(napi_env env, int number) {
  napi_value value = NULL;
  napi_create_int32(env, number, &value);
  return value;
}

/* The one argument of each function; false with an exception pending if it is not of the kind. */
static bool argument_of(napi_env env, napi_callback_info info, napi_value *argument, napi_valuetype kind) {
  size_t count = 1;
  napi_valuetype found = napi_undefined;
  if (napi_get_cb_info(env, info, &count, argument, NULL, NULL) != napi_ok) return false;
  if (count == 1) napi_typeof(env, *argument, &found);
  if (found == kind) return true;
  napi_throw_type_error(env, NULL, kind == napi_number ? "a number is wanted" : "a string is wanted");
  return false;
}

static napi_value start(napi_env env, napi_callback_info info) {
  napi_value argument = NULL, facts = NULL, address = NULL;
  double timeout_seconds = 0;
  if (!argument_of(env, info, &argument, napi_number)) return NULL;
  napi_get_value_double(env, argument, &timeout_seconds);
  if (atomic_exchange(&is_started, true)) {
    napi_throw_error(env, NULL, "MPI was started in this process before, and can be started only once");
    return NULL;
  }
  if (job_start(&job, timeout_seconds) != 0) {
    napi_throw_error(env, NULL, job.reason);
    return NULL;
  }
  table_init(&table, &job);
  napi_create_object(env, &facts);
  napi_set_named_property(env, facts, "rank", int_value(env, job.rank));
  napi_set_named_property(env, facts, "size", int_value(env, job.size));
  napi_set_named_property(env, facts, "host", text_value(env, job.host));
  napi_set_named_property(env, facts, "tagLimit", int_value(env, job.tag_limit));
  napi_create_bigint_uint64(env, (uint64_t)(uintptr_t)&table, &address);
  napi_set_named_property(env, facts, "table", address);
  return facts;
}

static napi_value leave(napi_env env, napi_callback_info info) {
  napi_value argument = NULL, nothing = NULL;
  double seconds = 0;
  char reason[REASON_CAPACITY] = "";
  if (!argument_of(env, info, &argument, napi_number)) return NULL;
  napi_get_value_double(env, argument, &seconds);
  if (!is_started) {
    napi_throw_error(env, NULL, "there is no job to leave");
    return NULL;
  }
  const int state = job_leave(&job, seconds, reason, sizeof reason);
  if (state < 0) {
    napi_throw_error(env, NULL, reason);
    return NULL;
  }
  napi_get_null(env, &nothing);
  return state == 0 ? nothing : text_value(env, reason);
}

static napi_value attend(napi_env env, napi_callback_info info) {
  napi_value argument = NULL, nothing = NULL;
  double seconds = 0;
  char reason[REASON_CAPACITY] = "";
  if (!argument_of(env, info, &argument, napi_number)) return NULL;
  napi_get_value_double(env, argument, &seconds);
  napi_get_null(env, &nothing);
  if (!is_started || !job_attend(&job, seconds, reason, sizeof reason)) return nothing;
  return text_value(env, reason);
}

static napi_value abort_job(napi_env env, napi_callback_info info) {
  napi_value argument = NULL;
  char why[REASON_CAPACITY] = "";
  if (!argument_of(env, info, &argument, napi_string)) return NULL;
  napi_get_value_string_utf8(env, argument, why, sizeof why, NULL);
  if (is_started) job_abort(&job, why);
  return NULL;
}

static void export_function(napi_env env, napi_value exports, const char *name, napi_callback function) {
  napi_value value = NULL;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, function, NULL, &value);
  napi_set_named_property(env, exports, name, value);
}

NAPI_MODULE_INIT() {
  char library[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(library, &length); /* one of the few calls that are legal before the start */
  napi_set_named_property(env, exports, "flavour", text_value(env, FLAVOUR));
  napi_set_named_property(env, exports, "library", text_value(env, library));
  export_function(env, exports, "start", start);
  export_function(env, exports, "leave", leave);
  export_function(env, exports, "attend", attend);
  export_function(env, exports, "abort", abort_job);
  return exports;
}
