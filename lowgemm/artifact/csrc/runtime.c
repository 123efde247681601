/* The public interface of a compiled model, and what TVM's generated code calls. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lowgemm.h"
#include "lowgemm_internal.h"

#define EXPORT __attribute__((visibility("default")))

enum { ALIGNMENT = 64 };

struct lowgemm_context {
  const lg_variant *variant;
  lg_slot slot; /* of the thread that calls lowgemm_run */
  unsigned char *arena;
  lg_tensor *tensors; /* one per argument of every step, in order */
  lg_any *args;
  unsigned char **input_copies, **output_copies; /* for callers' buffers that are not aligned */
  uint64_t *nanoseconds;                         /* per step, of the last run */
  int profiling;
};

static _Thread_local char last_error[1024];

static void set_error(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vsnprintf(last_error, sizeof last_error, format, list);
  va_end(list);
}

/* ---- what TVM's code needs ---- */

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  size_t used = (size_t)snprintf(last_error, sizeof last_error, "%s: ", kind);
  for (int32_t i = 0; i < count && used < sizeof last_error; i++)
    used += (size_t)snprintf(last_error + used, sizeof last_error - used, "%s", parts[i]);
}

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) {
  set_error("%s: %s", kind, message);
}

static int parallel_launch(lg_task task, void *closure, int num_task) {
  return lg_pool_launch(lg_current->pool, task, closure, num_task);
}

static void *workspace_alloc(int device, int id, uint64_t bytes, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  void *block = lg_stack_push(&lg_current->stack, bytes);
  if (!block) set_error("out of memory for a temporary buffer of %llu bytes", (unsigned long long)bytes);
  return block;
}

static int workspace_free(int device, int id, void *block) {
  (void)device, (void)id;
  lg_stack_pop(&lg_current->stack, block);
  return 0;
}

/* Kernels that need one of these declare it weakly and empty. */
void *__TVMBackendParallelLaunch = (void *)parallel_launch;
void *__TVMBackendAllocWorkspace = (void *)workspace_alloc;
void *__TVMBackendFreeWorkspace = (void *)workspace_free;

/* ---- steps ---- */

static size_t round_up(size_t size) { return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static void bind(const lg_variant *variant, const lg_step *step, unsigned char *arena, lg_tensor *tensors,
                 lg_any *args) {
  for (int32_t i = 0; i < step->count; i++) {
    const lg_buffer *b = &step->args[i];
    void *data = NULL;
    if (b->region == LG_ARENA) data = arena + b->offset;
    if (b->region == LG_CONSTANT) data = (void *)(uintptr_t)(variant->constants + b->offset);
    tensors[i] = (lg_tensor){.data = data,
                             .device_type = 1,
                             .ndim = b->ndim,
                             .code = b->code,
                             .bits = b->bits,
                             .lanes = 1,
                             .shape = (int64_t *)(uintptr_t)b->shape};
    args[i] = (lg_any){.type_index = LG_ANY_TENSOR_PTR, .value.v_ptr = &tensors[i]};
  }
}

static int call(const lg_step *step, lg_any *args) {
  lg_any result = {0};
  last_error[0] = 0;
  if (step->kernel(NULL, args, step->count, &result) == 0) return 0;
  char reason[sizeof last_error] = "in a worker thread";
  if (last_error[0]) memcpy(reason, last_error, sizeof reason);
  set_error("kernel %s of layer %s failed: %.700s", step->name, step->layer, reason);
  return -1;
}

/* ---- the choice of a variant ---- */

static const char *missing_feature(const lg_variant *variant) {
  for (const char *const *f = variant->features; *f; f++)
    if (!lg_cpu_has(*f)) return *f;
  return NULL;
}

static const lg_variant *choose_variant(void) {
  const char *forced = getenv("LOWGEMM_ISA");
  char missing[512] = "";
  for (int32_t i = 0; i < lg_variant_count; i++) {
    const lg_variant *v = &lg_variants[i];
    if (forced && *forced && strcmp(forced, v->level) != 0) continue;
    const char *feature = missing_feature(v);
    if (!feature) return v;
    size_t used = strlen(missing);
    snprintf(missing + used, sizeof missing - used, "%s%s needs %s", used ? ", " : "", v->level, feature);
  }
  if (*missing)
    set_error("this CPU cannot run the model: %s", missing);
  else
    set_error("LOWGEMM_ISA=%s: the model was not compiled for that level", forced ? forced : "");
  return NULL;
}

static int allowed_cpus(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return 1;
}

/* ---- the public interface ---- */

EXPORT int lowgemm_format(void) { return LOWGEMM_FORMAT; }
EXPORT const char *lowgemm_manifest(void) { return lg_manifest; }
EXPORT const char *lowgemm_last_error(void) { return last_error; }
EXPORT int lowgemm_num_inputs(void) { return lg_input_count; }
EXPORT int lowgemm_num_outputs(void) { return lg_output_count; }

static const lg_port *port(int output, int index) {
  int count = output ? lg_output_count : lg_input_count;
  if (index < 0 || index >= count) return NULL;
  return output ? &lg_outputs[index] : &lg_inputs[index];
}

static void describe(const lg_port *p, lowgemm_port *info) {
  *info = (lowgemm_port){.name = p->name, .dtype = p->dtype, .ndim = p->ndim, .shape = p->shape, .bytes = p->bytes};
}

EXPORT int lowgemm_input(int index, lowgemm_port *info) {
  const lg_port *p = port(0, index);
  if (!p || !info) return set_error("there is no input %d", index), -1;
  return describe(p, info), 0;
}

EXPORT int lowgemm_output(int index, lowgemm_port *info) {
  const lg_port *p = port(1, index);
  if (!p || !info) return set_error("there is no output %d", index), -1;
  return describe(p, info), 0;
}

EXPORT lowgemm_context *lowgemm_create(int threads) {
  const lg_variant *variant = choose_variant();
  if (!variant) return NULL;
  if (threads <= 0) threads = allowed_cpus();
  lowgemm_context *ctx = calloc(1, sizeof *ctx);
  if (!ctx) return set_error("out of memory"), NULL;
  ctx->variant = variant;
  size_t arguments = 0;
  for (int32_t s = 0; s < variant->step_count; s++) arguments += (size_t)variant->steps[s].count;
  ctx->arena = aligned_alloc(ALIGNMENT, round_up(variant->arena_bytes + ALIGNMENT));
  ctx->tensors = calloc(arguments + 1, sizeof(lg_tensor));
  ctx->args = calloc(arguments + 1, sizeof(lg_any));
  ctx->input_copies = calloc((size_t)lg_input_count + 1, sizeof(void *));
  ctx->output_copies = calloc((size_t)lg_output_count + 1, sizeof(void *));
  ctx->nanoseconds = calloc((size_t)variant->step_count + 1, sizeof(uint64_t));
  if (!ctx->arena || !ctx->tensors || !ctx->args || !ctx->input_copies || !ctx->output_copies || !ctx->nanoseconds) {
    lowgemm_destroy(ctx);
    return set_error("out of memory for a context of %zu bytes", variant->arena_bytes), NULL;
  }
  ctx->slot.pool = lg_pool_create(threads);
  if (!ctx->slot.pool) {
    lowgemm_destroy(ctx);
    return set_error("cannot start %d threads", threads), NULL;
  }
  size_t at = 0;
  for (int32_t s = 0; s < variant->step_count; s++) {
    bind(variant, &variant->steps[s], ctx->arena, ctx->tensors + at, ctx->args + at);
    at += (size_t)variant->steps[s].count;
  }
  return ctx;
}

EXPORT void lowgemm_destroy(lowgemm_context *ctx) {
  if (!ctx) return;
  if (ctx->slot.pool) lg_pool_destroy(ctx->slot.pool);
  lg_stack_release(&ctx->slot.stack);
  for (int32_t i = 0; ctx->input_copies && i < lg_input_count; i++) free(ctx->input_copies[i]);
  for (int32_t i = 0; ctx->output_copies && i < lg_output_count; i++) free(ctx->output_copies[i]);
  free(ctx->input_copies);
  free(ctx->output_copies);
  free(ctx->nanoseconds);
  free(ctx->arena);
  free(ctx->tensors);
  free(ctx->args);
  free(ctx);
}

/* Kernels that read a port or write it take any address of an element. */
static int aligned(const void *pointer, const lg_port *p) { return (uintptr_t)pointer * 8 % p->bits == 0; }

/* An aligned buffer in place of one that the caller gave; NULL if there is no memory. */
static unsigned char *copy_buffer(unsigned char **slot, size_t bytes) {
  if (!*slot) *slot = aligned_alloc(ALIGNMENT, round_up(bytes + 1));
  return *slot;
}

static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

EXPORT int lowgemm_run(lowgemm_context *ctx, const void *const *inputs, void *const *outputs) {
  if (!ctx) return set_error("the context is NULL"), -1;
  const lg_variant *variant = ctx->variant;
  for (int32_t i = 0; i < lg_input_count; i++) {
    if (!inputs || !inputs[i]) return set_error("input %d is NULL", i), -1;
    if (aligned(inputs[i], &lg_inputs[i])) continue;
    unsigned char *copy = copy_buffer(&ctx->input_copies[i], lg_inputs[i].bytes);
    if (!copy) return set_error("out of memory for input %d", i), -1;
    memcpy(copy, inputs[i], lg_inputs[i].bytes);
  }
  for (int32_t i = 0; i < lg_output_count; i++) {
    if (!outputs || !outputs[i]) return set_error("output %d is NULL", i), -1;
    if (!aligned(outputs[i], &lg_outputs[i]) && !copy_buffer(&ctx->output_copies[i], lg_outputs[i].bytes))
      return set_error("out of memory for output %d", i), -1;
  }
  lg_slot *outer = lg_current;
  lg_current = &ctx->slot;
  int status = 0;
  lg_any *args = ctx->args;
  lg_tensor *tensors = ctx->tensors;
  for (int32_t s = 0; s < variant->step_count && status == 0; s++) {
    const lg_step *step = &variant->steps[s];
    for (int32_t i = 0; i < step->count; i++) {
      const lg_buffer *b = &step->args[i];
      if (b->region == LG_INPUT)
        tensors[i].data = aligned(inputs[b->offset], &lg_inputs[b->offset]) ? (void *)(uintptr_t)inputs[b->offset]
                                                                            : (void *)ctx->input_copies[b->offset];
      if (b->region == LG_OUTPUT)
        tensors[i].data =
            aligned(outputs[b->offset], &lg_outputs[b->offset]) ? outputs[b->offset] : (void *)ctx->output_copies[b->offset];
    }
    uint64_t start = ctx->profiling ? now() : 0;
    status = call(step, args);
    if (ctx->profiling) ctx->nanoseconds[s] = now() - start;
    args += step->count;
    tensors += step->count;
  }
  lg_current = outer;
  for (int32_t i = 0; i < lg_output_count && status == 0; i++)
    if (!aligned(outputs[i], &lg_outputs[i])) memcpy(outputs[i], ctx->output_copies[i], lg_outputs[i].bytes);
  return status;
}

EXPORT const char *lowgemm_level(const lowgemm_context *ctx) { return ctx->variant->level; }
EXPORT int lowgemm_threads(const lowgemm_context *ctx) { return lg_pool_threads(ctx->slot.pool); }
EXPORT void lowgemm_set_profiling(lowgemm_context *ctx, int on) { ctx->profiling = on; }
EXPORT int lowgemm_num_steps(const lowgemm_context *ctx) { return ctx->variant->step_count; }

EXPORT int lowgemm_step(const lowgemm_context *ctx, int index, lowgemm_step_info *info) {
  if (index < 0 || index >= ctx->variant->step_count) return set_error("there is no step %d", index), -1;
  const lg_step *step = &ctx->variant->steps[index];
  *info = (lowgemm_step_info){
      .layer = step->layer, .kernel = step->name, .macs = step->macs, .nanoseconds = ctx->nanoseconds[index]};
  return 0;
}

/* ---- the entry for tvm_ffi: run(inputs..., outputs...) on a context of the library's own ---- */

static int raise_ffi(const char *message) {
  void (*raise)(const char *, const char *) = NULL;
  *(void **)&raise = dlsym(RTLD_DEFAULT, "TVMFFIErrorSetRaisedFromCStr");
  if (raise) raise("RuntimeError", message);
  return -1;
}

static const lg_tensor *tensor_of(const lg_any *any) {
  if (any->type_index == LG_ANY_TENSOR_PTR) return any->value.v_ptr;
  if (any->type_index == LG_ANY_TENSOR_OBJECT)
    return (const lg_tensor *)((const unsigned char *)any->value.v_ptr + LG_OBJECT_HEADER);
  return NULL;
}

static void *checked_data(const lg_any *any, const lg_port *p) {
  const lg_tensor *t = tensor_of(any);
  if (!t) return set_error("argument %s is not a tensor", p->name), NULL;
  int fits = t->ndim == p->ndim && t->code == p->code && t->bits == p->bits && t->device_type == 1;
  int64_t stride = 1;
  for (int32_t d = p->ndim - 1; fits && d >= 0; d--) {
    fits = t->shape[d] == p->shape[d] && (!t->strides || t->shape[d] == 1 || t->strides[d] == stride);
    stride *= p->shape[d];
  }
  if (!fits) return set_error("tensor %s must be a contiguous %s of the model's shape", p->name, p->dtype), NULL;
  return (unsigned char *)t->data + t->byte_offset;
}

static pthread_mutex_t ffi_lock = PTHREAD_MUTEX_INITIALIZER;
static lowgemm_context *ffi_context;

/* When the library is unloaded, no worker may be left in its code. */
__attribute__((destructor)) static void destroy_ffi_context(void) {
  lowgemm_destroy(ffi_context);
  ffi_context = NULL;
}

EXPORT int __tvm_ffi_run(void *self, const lg_any *args, int32_t count, lg_any *result) {
  (void)self;
  *result = (lg_any){0};
  if (count != lg_input_count + lg_output_count) return raise_ffi("run takes the inputs, then the outputs");
  void *data[64];
  if (count > 64) return raise_ffi("too many tensors");
  for (int32_t i = 0; i < count; i++) {
    data[i] = checked_data(&args[i], i < lg_input_count ? &lg_inputs[i] : &lg_outputs[i - lg_input_count]);
    if (!data[i]) return raise_ffi(last_error);
  }
  pthread_mutex_lock(&ffi_lock);
  if (!ffi_context) ffi_context = lowgemm_create(0);
  int status = ffi_context ? lowgemm_run(ffi_context, (const void *const *)data, data + lg_input_count) : -1;
  pthread_mutex_unlock(&ffi_lock);
  return status == 0 ? 0 : raise_ffi(last_error);
}
