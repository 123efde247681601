/* AMX on a CPU without it: the illegal-instruction trap carries out what the instruction would have done.
 *
 * So the machine code of kernels runs as it is, with its own addresses, strides and configurations. The meaning of each
 * instruction, and what makes it fault, follow the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2
 * (LDTILECFG, TILELOADD, TDPBUSD, ...). What would fault is counted, and the instruction is skipped.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#define EXPORT __attribute__((visibility("default")))

enum { TILES = 8, ROWS = 16, BYTES = 64 };
enum { LDTILECFG, TILERELEASE, TILEZERO, TILELOADD, TILESTORED, TDPBUSD, TDPBSSD, TDPBSUD, TDPBUUD, LOADED, STORED, COUNTS };

typedef struct {
  int rows, bytes; /* as configured */
  uint8_t data[ROWS][BYTES];
} tile;

typedef struct {
  tile tiles[TILES];
  int configured;
} state;

static _Thread_local state here;
static long counts[COUNTS];
static long faults;
static char first_fault[128];
static struct sigaction before;

static void count(int what, long number) { __atomic_fetch_add(&counts[what], number, __ATOMIC_RELAXED); }

static int fault(const char *reason) {
  if (__atomic_fetch_add(&faults, 1, __ATOMIC_RELAXED) == 0) snprintf(first_fault, sizeof first_fault, "%s", reason);
  return 0;
}

/* ---- the instructions; each returns whether it did not fault ---- */

static int configure(const uint8_t *memory) {
  uint8_t config[BYTES];
  memcpy(config, memory, BYTES);
  memset(&here, 0, sizeof here);
  if (config[0] != 1) return fault("ldtilecfg: palette is not 1");
  for (int i = 1; i < 16; i++)
    if (config[i]) return fault("ldtilecfg: a reserved byte or the first row is set");
  for (int i = 0; i < 16; i++) {
    int bytes = config[16 + 2 * i] | config[17 + 2 * i] << 8, rows = config[48 + i];
    if (i >= TILES && (bytes || rows)) return fault("ldtilecfg: a tile beyond the eighth");
    if (rows > ROWS || bytes > BYTES) return fault("ldtilecfg: a tile is too large");
    if (!rows != !bytes) return fault("ldtilecfg: a tile has rows without bytes, or bytes without rows");
    if (i < TILES) here.tiles[i].rows = rows, here.tiles[i].bytes = bytes;
  }
  here.configured = 1;
  return 1;
}

static int usable(int number) {
  if (!here.configured) return fault("a tile is used before ldtilecfg");
  if (number >= TILES || !here.tiles[number].rows) return fault("a tile is used that is not configured");
  return 1;
}

static int zero(int number) {
  if (!usable(number)) return 0;
  memset(here.tiles[number].data, 0, sizeof here.tiles[number].data);
  return 1;
}

static int load(int number, const uint8_t *base, int64_t stride) {
  if (!usable(number)) return 0;
  tile *to = &here.tiles[number];
  memset(to->data, 0, sizeof to->data);
  for (int r = 0; r < to->rows; r++) memcpy(to->data[r], base + r * stride, (size_t)to->bytes);
  count(LOADED, to->rows * to->bytes);
  return 1;
}

static int store(int number, uint8_t *base, int64_t stride) {
  if (!usable(number)) return 0;
  const tile *from = &here.tiles[number];
  for (int r = 0; r < from->rows; r++) memcpy(base + r * stride, from->data[r], (size_t)from->bytes);
  count(STORED, from->rows * from->bytes);
  return 1;
}

static int dot(int to, int left, int right, int left_signed, int right_signed) {
  if (!usable(to) || !usable(left) || !usable(right)) return 0;
  if (to == left || to == right || left == right) return fault("tdp: a tile stands for two operands");
  tile *c = &here.tiles[to];
  const tile *a = &here.tiles[left], *b = &here.tiles[right];
  if (c->bytes % 4 || a->bytes % 4 || b->bytes % 4) return fault("tdp: a row that is not of whole words");
  if (c->rows != a->rows) return fault("tdp: the sums and the left operand differ in rows");
  if (c->bytes != b->bytes) return fault("tdp: the sums and the right operand differ in columns");
  if (a->bytes / 4 != b->rows) return fault("tdp: the operands differ in depth");
  for (int m = 0; m < c->rows; m++)
    for (int n = 0; n < c->bytes / 4; n++) {
      uint32_t sum;
      memcpy(&sum, &c->data[m][4 * n], 4);
      for (int k = 0; k < a->bytes; k++) {
        uint8_t x = a->data[m][k], y = b->data[k / 4][4 * n + k % 4];
        int u = left_signed ? (int8_t)x : x, v = right_signed ? (int8_t)y : y;
        sum += (uint32_t)(u * v);
      }
      memcpy(&c->data[m][4 * n], &sum, 4);
    }
  for (int m = c->rows; m < ROWS; m++) memset(c->data[m], 0, BYTES);
  return 1;
}

/* ---- decoding: VEX.128.pp.0F38.W0 49, 4B, 5E ---- */

static const int REGISTERS[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

typedef struct {
  uint8_t *base;
  int64_t index; /* scaled */
  int has_sib;
  const uint8_t *end;
} address;

static address memory_operand(const greg_t *g, const uint8_t *modrm, int x, int b) {
  address found = {NULL, 0, 0, modrm + 1};
  int mod = *modrm >> 6, rm = *modrm & 7, base = rm | b << 3, wide = mod == 2;
  uint64_t at = 0;
  if (rm == 4) {
    int sib = *found.end++, index = (sib >> 3 & 7) | x << 3;
    found.has_sib = 1;
    base = (sib & 7) | b << 3;
    if (index != 4) found.index = (int64_t)((uint64_t)g[REGISTERS[index]] << (sib >> 6));
    if ((sib & 7) == 5 && mod == 0)
      wide = 1;
    else
      at = (uint64_t)g[REGISTERS[base]];
  } else if (rm == 5 && mod == 0) {
    int32_t ahead;
    memcpy(&ahead, found.end, 4);
    found.end += 4;
    found.base = (uint8_t *)found.end + ahead;
    return found;
  } else {
    at = (uint64_t)g[REGISTERS[base]];
  }
  if (mod == 1) {
    at += (uint64_t)(int64_t)(int8_t)*found.end++;
  } else if (wide) {
    int32_t offset;
    memcpy(&offset, found.end, 4);
    found.end += 4;
    at += (uint64_t)(int64_t)offset;
  }
  found.base = (uint8_t *)at;
  return found;
}

/* Carry out the instruction at `code`; returns where the next one is, or NULL if this is none of AMX. */
static const uint8_t *emulate(const uint8_t *code, const greg_t *g) {
  if (code[0] != 0xC4 || (code[1] & 0x1F) != 2 || (code[2] & 0x84) != 0) return NULL;
  int x = !(code[1] & 0x40), b = !(code[1] & 0x20), v = ~(code[2] >> 3) & 15, prefix = code[2] & 3;
  const uint8_t *modrm = code + 4;
  int reg = *modrm >> 3 & 7, rm = *modrm & 7, registers = *modrm >> 6 == 3, kind, good;
  address at = registers ? (address){NULL, 0, 0, modrm + 1} : memory_operand(g, modrm, x, b);
  if (code[3] == 0x49 && prefix == 0 && !registers) {
    kind = LDTILECFG, good = configure(at.base + at.index);
  } else if (code[3] == 0x49 && prefix == 0 && *modrm == 0xC0) {
    kind = TILERELEASE, good = 1;
    memset(&here, 0, sizeof here);
  } else if (code[3] == 0x49 && prefix == 3 && registers && rm == 0) {
    kind = TILEZERO, good = zero(reg);
  } else if (code[3] == 0x4B && (prefix == 2 || prefix == 3) && at.has_sib) {
    kind = prefix == 3 ? TILELOADD : TILESTORED;
    good = prefix == 3 ? load(reg, at.base, at.index) : store(reg, at.base, at.index);
  } else if (code[3] == 0x5E && registers) {
    static const int KIND[] = {TDPBUUD, TDPBUSD, TDPBSUD, TDPBSSD}; /* prefixes none, 66, F3, F2 */
    kind = KIND[prefix], good = dot(reg, rm, v, prefix >> 1, prefix & 1);
  } else {
    return NULL;
  }
  if (good) count(kind, 1);
  return at.end;
}

static void trap(int number, siginfo_t *info, void *context) {
  (void)number, (void)info;
  greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
  const uint8_t *next = emulate((const uint8_t *)g[REG_RIP], g);
  if (next)
    g[REG_RIP] = (greg_t)next;
  else
    sigaction(SIGILL, &before, NULL); /* the same instruction traps again, and takes the way it always took */
}

/* ---- for the tests ---- */

/* Carry out the instruction at `code` with registers as a signal's context has them; returns where the next one is. */
EXPORT const uint8_t *amx_emulate(const uint8_t *code, const greg_t *g) { return emulate(code, g); }

EXPORT int amx_install(void) {
  struct sigaction action = {.sa_sigaction = trap, .sa_flags = SA_SIGINFO};
  return sigaction(SIGILL, &action, &before);
}

EXPORT void amx_remove(void) { sigaction(SIGILL, &before, NULL); }

/* Copies the numbers of instructions carried out, and of bytes moved by them, since the last call. */
EXPORT void amx_counts(long *to) {
  for (int i = 0; i < COUNTS; i++) to[i] = __atomic_exchange_n(&counts[i], 0, __ATOMIC_RELAXED);
}

/* Why the first of the instructions that faulted since the last call did; NULL if none has. */
EXPORT const char *amx_fault(void) {
  return __atomic_exchange_n(&faults, 0, __ATOMIC_RELAXED) ? first_fault : NULL;
}

/* Whether the thread that calls has tiles configured: a kernel must release them. */
EXPORT int amx_configured(void) { return here.configured; }
