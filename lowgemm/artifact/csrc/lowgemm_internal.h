/* What the parts of a compiled model share. Not part of the public interface. */
#ifndef LOWGEMM_INTERNAL_H
#define LOWGEMM_INTERNAL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* ---- TVM's calling convention, as its generated code expects it ---- */

typedef struct {
  int32_t type_index;
  uint32_t padding;
  union {
    int64_t v_int64;
    void *v_ptr;
  } value;
} lg_any;

typedef struct {
  void *data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} lg_tensor;

typedef int (*lg_kernel)(void *self, lg_any *args, int32_t count, lg_any *result);

typedef struct {
  int32_t *sync;
  int32_t num_task;
} lg_group;

typedef int (*lg_task)(int task_id, lg_group *group, void *closure);

enum { LG_ANY_TENSOR_PTR = 7, LG_ANY_TENSOR_OBJECT = 70, LG_OBJECT_HEADER = 24 };

/* ---- the generated tables ---- */

enum { LG_INPUT, LG_OUTPUT, LG_ARENA, LG_CONSTANT };

typedef struct {
  const char *name;
  const char *dtype;
  uint8_t code, bits;
  int32_t ndim;
  const int64_t *shape;
  size_t bytes;
} lg_port;

typedef struct {
  uint8_t region, code, bits, ndim;
  uint64_t offset; /* bytes, or the index of a port */
  const int64_t *shape;
} lg_buffer;

typedef struct {
  lg_kernel kernel;
  const lg_buffer *args;
  int32_t count;
  const char *layer;
  const char *name;
  uint64_t macs;
} lg_step;

typedef struct {
  const char *level;
  const char *const *features; /* NULL at the end */
  const lg_step *steps;
  int32_t step_count;
  size_t arena_bytes;
  const unsigned char *constants;
} lg_variant;

extern const lg_port lg_inputs[], lg_outputs[];
extern const int32_t lg_input_count, lg_output_count;
extern const lg_variant lg_variants[];
extern const int32_t lg_variant_count;
extern const char lg_manifest[];

/* ---- cpu.c ---- */

/* Whether this CPU and its operating system support a feature, by the name of /proc/cpuinfo. */
int lg_cpu_has(const char *feature);

/* ---- memory.c ---- */

typedef struct lg_chunk lg_chunk;

/* A stack of temporary buffers, for one thread. It grows when needed and keeps what it has. */
typedef struct {
  lg_chunk *current;
  lg_chunk *first;
} lg_stack;

void *lg_stack_push(lg_stack *stack, uint64_t bytes);
void lg_stack_pop(lg_stack *stack, void *block);
void lg_stack_release(lg_stack *stack);

/* ---- threads.c ---- */

typedef struct lg_pool lg_pool;

/* What a thread that runs kernels works with: set while it does. */
typedef struct {
  lg_pool *pool;
  lg_stack stack;
} lg_slot;

extern _Thread_local lg_slot *lg_current;

/* A pool in which `threads` threads, the caller's included, share work. NULL if threads can't be had. */
lg_pool *lg_pool_create(int threads);
void lg_pool_destroy(lg_pool *pool);
int lg_pool_threads(const lg_pool *pool);
/* Run `num_task` tasks, or, if that is 0, a kernel's parallel loop in as many as suit. */
int lg_pool_launch(lg_pool *pool, lg_task task, void *closure, int num_task);

/* Kernels call this before each parallel loop: how many iterations it has. Returns 0, which nobody needs. */
int32_t lg_announce(int64_t iterations);
/* What this thread's kernel announced, for the one loop that follows; 0 if nothing, or too many to matter. */
int lg_announced(void);

#endif
