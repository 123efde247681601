/* Temporary buffers of kernels: a stack of chunks. TVM's code frees in the reverse order of allocation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lowgemm_internal.h"

/* Bytes behind each block that nobody may write, where LG_GUARD is defined: in tests. */
#ifdef LG_GUARD
enum { GUARD = 64 };
#else
enum { GUARD = 0 };
#endif

enum { ALIGNMENT = 64, FIRST_CHUNK = 1 << 16, UNTOUCHED = 0xa5 };

struct lg_chunk {
  lg_chunk *next, *previous;
  size_t size, top; /* of the bytes behind this header */
};

/* Before each block: where the stack stood, and how large the block is. */
typedef struct {
  lg_chunk *chunk;
  size_t top, bytes;
} mark;

static unsigned char *bytes_of(lg_chunk *chunk) { return (unsigned char *)chunk + ALIGNMENT; }

static lg_chunk *new_chunk(lg_chunk *previous, size_t least) {
  size_t size = previous ? previous->size * 2 : FIRST_CHUNK;
  if (size < least) size = least;
  lg_chunk *chunk = aligned_alloc(ALIGNMENT, ALIGNMENT + size);
  if (!chunk) return NULL;
  *chunk = (lg_chunk){.next = NULL, .previous = previous, .size = size, .top = 0};
  if (previous) previous->next = chunk;
  return chunk;
}

static void check_guard(const unsigned char *end) {
  for (int i = 0; i < GUARD; i++) {
    if (end[i] == UNTOUCHED) continue;
    fprintf(stderr, "a kernel wrote past the end of a temporary buffer\n");
    abort();
  }
}

void *lg_stack_push(lg_stack *stack, uint64_t bytes) {
  size_t need = ((size_t)bytes + GUARD + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + ALIGNMENT;
  if (need < bytes) return NULL;
  if (!stack->first && !(stack->first = stack->current = new_chunk(NULL, need))) return NULL;
  mark before = {stack->current, stack->current->top, (size_t)bytes};
  lg_chunk *chunk = stack->current;
  while (chunk->size - chunk->top < need) {
    if (!chunk->next && !new_chunk(chunk, need)) return NULL;
    chunk = chunk->next;
    chunk->top = 0;
  }
  unsigned char *block = bytes_of(chunk) + chunk->top;
  *(mark *)block = before;
  chunk->top += need;
  stack->current = chunk;
  memset(block + ALIGNMENT + bytes, UNTOUCHED, GUARD);
  return block + ALIGNMENT;
}

void lg_stack_pop(lg_stack *stack, void *block) {
  mark before = *(mark *)((unsigned char *)block - ALIGNMENT);
  check_guard((unsigned char *)block + before.bytes);
  stack->current = before.chunk;
  stack->current->top = before.top;
}

void lg_stack_release(lg_stack *stack) {
  for (lg_chunk *chunk = stack->first; chunk;) {
    lg_chunk *next = chunk->next;
    free(chunk);
    chunk = next;
  }
  stack->first = stack->current = NULL;
}
