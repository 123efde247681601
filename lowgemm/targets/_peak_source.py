"""The C program that `lowgemm.targets.peak` compiles and runs."""

# Usage: PROGRAM dot SEQUENCE THREADS | PROGRAM read BYTES THREADS | PROGRAM copy BYTES THREADS; prints GOPS or GB/s of
# all threads together. BYTES are those of each thread: a copy reads half of them and writes the other half.
#
# The instructions are written out, so that no compiler flag and no optimiser has a say in them.
# Twelve independent accumulators hide the latency of every sequence (two issues a cycle times five
# cycles is ten); with the two operands and two scratch registers that is all of ymm0 to ymm15.
# The one scratch register that all products of a round share is no dependency: CPUs rename it.
PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ACCUMULATORS = 12, REPEATS = 40, MOST_THREADS = 64 };

#define CLOBBERS "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
    "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"

#define DOT(name, v, body)                                                             \
  static void name(long rounds) {                                                      \
    __asm__ volatile(                                                                  \
        ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"                              \
        "vpxor %%xmm\\i,%%xmm\\i,%%xmm\\i\n .endr\n .p2align 5\n 1:\n"                  \
        ".rept 4\n .irp i,0,1,2,3,4,5,6,7,8,9,10,11\n" body " .endr\n .endr\n"         \
        "dec %0\n jnz 1b\n vzeroupper\n"                                               \
        : "+r"(rounds) : : CLOBBERS);                                                  \
  }

#define WIDE(v) \
  " vpmaddwd %%" v "14,%%" v "15,%%" v "13\n vpaddd %%" v "13,%%" v "\\i,%%" v "\\i\n"
#define BYTES(v)                                        \
  " vpmaddubsw %%" v "14,%%" v "15,%%" v "13\n"         \
  " vpmaddwd %%" v "13,%%" v "12,%%" v "13\n"           \
  " vpaddd %%" v "13,%%" v "\\i,%%" v "\\i\n"

DOT(wide_ymm, "ymm", WIDE("ymm"))
DOT(bytes_ymm, "ymm", BYTES("ymm"))
DOT(wide_zmm, "zmm", WIDE("zmm"))
DOT(bytes_zmm, "zmm", BYTES("zmm"))
DOT(vnni_ymm, "ymm", " %{vex%} vpdpbusd %%ymm14,%%ymm15,%%ymm\\i\n")
DOT(vnni_zmm, "zmm", " vpdpbusd %%zmm14,%%zmm15,%%zmm\\i\n")
DOT(fma_ymm, "ymm", " vfmadd231ps %%ymm14,%%ymm15,%%ymm\\i\n")
DOT(fma_zmm, "zmm", " vfmadd231ps %%zmm14,%%zmm15,%%zmm\\i\n")

/* AMX: six accumulators hide 52 cycles of latency at 16 an instruction. */
static int permit_tiles(void) { return syscall(158, 0x1023, 18) == 0; }  /* ARCH_REQ_XCOMP_PERM, XTILEDATA */

static void tiles(long rounds) {
  unsigned char config[64] = {1};
  for (int i = 0; i < 8; i++) config[16 + 2 * i] = 64, config[48 + i] = 16;
  __asm__ volatile(
      "ldtilecfg %1\n"
      ".irp i,0,1,2,3,4,5,6,7\n tilezero %%tmm\\i\n .endr\n .p2align 5\n 1:\n"
      ".rept 8\n .irp i,0,1,2,3,4,5\n tdpbusd %%tmm7,%%tmm6,%%tmm\\i\n .endr\n .endr\n"
      "dec %0\n jnz 1b\n tilerelease\n"
      : "+r"(rounds) : "m"(config) : "cc", "memory");
}

static const struct sequence {
  const char *name;
  void (*run)(long rounds);
  int macs;  /* multiply-accumulates for each accumulator and turn */
} SEQUENCES[] = {
    {"vpmaddwd+vpaddd ymm", wide_ymm, 16},
    {"vpmaddubsw+vpmaddwd+vpaddd ymm", bytes_ymm, 32},
    {"vpmaddwd+vpaddd zmm", wide_zmm, 32},
    {"vpmaddubsw+vpmaddwd+vpaddd zmm", bytes_zmm, 64},
    {"vpdpbusd ymm", vnni_ymm, 32},
    {"vpdpbusd zmm", vnni_zmm, 64},
    {"vfmadd231ps ymm", fma_ymm, 8},
    {"vfmadd231ps zmm", fma_zmm, 16},
    {"tdpbusd tmm", tiles, 16 * 16 * 64},
};

static void read_all(const char *data, long bytes) {
  __asm__ volatile(
      ".p2align 5\n 1:\n"
      ".irp i,0,1,2,3,4,5,6,7\n vmovdqu 32*\\i(%0),%%ymm\\i\n .endr\n"
      "add $256,%0\n sub $256,%1\n jnz 1b\n vzeroupper\n"
      : "+r"(data), "+r"(bytes) : : CLOBBERS);
}

static void copy_all(char *to, const char *from, long bytes) {
  __asm__ volatile(
      ".p2align 5\n 1:\n"
      ".irp i,0,1,2,3,4,5,6,7\n vmovdqu 32*\\i(%1),%%ymm\\i\n vmovdqu %%ymm\\i,32*\\i(%0)\n .endr\n"
      "add $256,%0\n add $256,%1\n sub $256,%2\n jnz 1b\n vzeroupper\n"
      : "+r"(to), "+r"(from), "+r"(bytes) : : CLOBBERS);
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

struct work {
  void (*run)(const struct work *, char *data);
  void (*dot)(long rounds);
  long bytes, count;
  int threads;
};

static void run_dot(const struct work *work, char *data) {
  (void)data;
  work->dot(work->count);
}

static void run_read(const struct work *work, char *data) {
  for (long i = 0; i < work->count; i++) read_all(data, work->bytes);
}

static void run_copy(const struct work *work, char *data) {
  long half = work->bytes / 2;
  for (long i = 0; i < work->count; i++) copy_all(data, data + half, half);
}

/* The threads begin each repeat together, which lasts from the first one's start to the last one's end. */
static double starts[MOST_THREADS], ends[MOST_THREADS], *durations;
static int repeats;
static const struct work *shared;
static atomic_int arrived, generation;

/* Spins: waking a thread that sleeps takes longer than a repeat. */
static void wait_for_all(void) {
  int now = atomic_load(&generation);
  if (atomic_fetch_add(&arrived, 1) + 1 == shared->threads) {
    atomic_store(&arrived, 0);
    atomic_fetch_add(&generation, 1);
  } else {
    for (long spins = 0; atomic_load(&generation) == now; spins++)
      if (spins > 1000000) sched_yield();
  }
}

static void *repeat(void *number) {
  long me = (long)number;
  char *data = shared->bytes ? aligned_alloc(256, shared->bytes) : NULL;
  if (shared->bytes && !data) exit(1);
  if (data) memset(data, 1, shared->bytes);
  for (int i = 0; i < repeats; i++) {
    wait_for_all();
    starts[me] = seconds();
    shared->run(shared, data);
    ends[me] = seconds();
    wait_for_all();
    if (me) continue;
    double first = starts[0], last = ends[0];
    for (int t = 1; t < shared->threads; t++) {
      if (starts[t] < first) first = starts[t];
      if (ends[t] > last) last = ends[t];
    }
    durations[i] = last - first;
  }
  free(data);
  return NULL;
}

/* The seconds of each of `count` repeats. */
static void time_repeats(const struct work *work, int count, double *taken) {
  pthread_t threads[MOST_THREADS];
  shared = work;
  repeats = count;
  durations = taken;
  for (long t = 1; t < work->threads; t++)
    if (pthread_create(&threads[t], NULL, repeat, (void *)t)) exit(1);
  repeat((void *)0);
  for (int t = 1; t < work->threads; t++) pthread_join(threads[t], NULL);
}

/* Another process may take a core during any of the repeats: the fastest one counts. */
static double best(const double *taken) {
  double fastest = 1e9;
  for (int i = 0; i < REPEATS; i++)
    if (taken[i] < fastest) fastest = taken[i];
  return fastest;
}

static const struct sequence *find(const char *name) {
  for (unsigned i = 0; i < sizeof SEQUENCES / sizeof *SEQUENCES; i++)
    if (!strcmp(name, SEQUENCES[i].name)) return &SEQUENCES[i];
  return NULL;
}

/* For a library, too: the seconds of each of `runs` repeats of `rounds` rounds of a sequence. Returns how many products
 * one has, or 0 if it cannot be run. */
double time_dots(const char *name, int threads, long rounds, int runs, double *taken) {
  const struct sequence *sequence = find(name);
  if (!sequence || threads < 1 || threads > MOST_THREADS || (sequence->run == tiles && !permit_tiles())) return 0;
  struct work work = {run_dot, sequence->run, 0, rounds, threads};
  time_repeats(&work, runs, taken);
  return 4.0 * ACCUMULATORS * sequence->macs * rounds * threads;
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  int threads = atoi(argv[3]);
  double taken[REPEATS];
  if (!strcmp(argv[1], "dot")) {
    double macs = time_dots(argv[2], threads, 100000, REPEATS, taken);  /* 1 to 4 ms; tiles 30 */
    if (!macs) return 2;
    printf("%.6g\n", 2e-9 * macs / best(taken));
    return 0;
  }
  if (threads < 1 || threads > MOST_THREADS) return 2;
  int copies = !strcmp(argv[1], "copy");
  long bytes = atol(argv[2]) / 512 * 512;
  if (bytes <= 0) return 2;
  long count = (32L << 20) / bytes + 1;
  struct work work = {copies ? run_copy : run_read, 0, bytes, count, threads};
  time_repeats(&work, REPEATS, taken);
  printf("%.6g\n", 1e-9 * bytes * count * threads / best(taken));
  return 0;
}
"""
