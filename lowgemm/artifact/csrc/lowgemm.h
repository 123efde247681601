/* A model compiled by lowgemm: link the shared library, or load it with dlopen. All models have the same symbols; several
 * of them in one program are loaded with dlopen and RTLD_LOCAL.
 *
 *     lowgemm_context *ctx = lowgemm_create(2);
 *     if (!ctx || lowgemm_run(ctx, inputs, outputs) != 0) puts(lowgemm_last_error());
 *     lowgemm_destroy(ctx);
 *
 * Contexts are independent: use one per thread that calls lowgemm_run at the same time. A context starts its own worker
 * threads; after fork() it starts them anew in the child, if it was idle. The same inputs give the same bytes, with any
 * number of threads and on every instruction-set level. The best level in the library that the CPU has is taken, or the
 * one that the environment variable LOWGEMM_ISA names.
 */
#ifndef LOWGEMM_H
#define LOWGEMM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOWGEMM_FORMAT 1

typedef struct lowgemm_context lowgemm_context;

typedef struct {
  const char *name;
  const char *dtype; /* as numpy names it: "float32", "uint8", "int8", "int32", "int64", "bool" */
  int32_t ndim;
  const int64_t *shape;
  size_t bytes; /* the buffer's size: C-contiguous, no padding */
} lowgemm_port;

typedef struct {
  const char *layer;    /* nodes of the model */
  const char *kernel;   /* what computes them */
  uint64_t macs;        /* multiply-accumulates */
  uint64_t nanoseconds; /* of the last run with profiling on */
} lowgemm_step_info;

int lowgemm_num_inputs(void);
int lowgemm_num_outputs(void);
int lowgemm_input(int index, lowgemm_port *info); /* 0, or -1 if there is no such input */
int lowgemm_output(int index, lowgemm_port *info);

/* A context that computes on `threads` threads (0: as many as there are CPUs to use); NULL on failure. */
lowgemm_context *lowgemm_create(int threads);
void lowgemm_destroy(lowgemm_context *context);

/* Compute the outputs; 0 on success, -1 on failure. One pointer per port, any alignment (that of an element saves a copy). */
int lowgemm_run(lowgemm_context *context, const void *const *inputs, void *const *outputs);

/* Why the last call of this thread failed. */
const char *lowgemm_last_error(void);

/* Name, shapes, instruction-set levels, versions and steps, as JSON. */
const char *lowgemm_manifest(void);
int lowgemm_format(void);

const char *lowgemm_level(const lowgemm_context *context);
int lowgemm_threads(const lowgemm_context *context);
void lowgemm_set_profiling(lowgemm_context *context, int on);
int lowgemm_num_steps(const lowgemm_context *context);
int lowgemm_step(const lowgemm_context *context, int index, lowgemm_step_info *info);

#ifdef __cplusplus
}
#endif
#endif
