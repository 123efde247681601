/* Functions of this process, run by an emulated CPU that has what this one lacks.
 *
 * The CPU is Bochs, whose parts the library of `bochscpu` exports. It runs in 64-bit mode in ring 0, and its addresses are
 * this process's: a page is mapped to itself when it is first touched. So an emulated function finds the memory, the
 * thread-local variables and the C library that it would find if it were called, and only its stack is another one.
 *
 * Descriptor tables and gates are as an operating system sets them up. Each exception, each system call and the return
 * lead to a stub of their own, an undefined instruction, where the hook for exceptions stops the CPU and `emu_call` goes
 * on: it maps the page, makes the system call, has the instruction carried out elsewhere, or ends with a message.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { PAGE = 4096, STACK = 8 << 20 };
enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, REGISTERS = 16 };
enum { CS = 1, SS = 2, DS = 3, FS = 4 };
enum { UNDEFINED = 6, PAGE_FAULT = 14 };
enum { EXCEPTIONS = 32, SYSTEM_CALL = EXCEPTIONS, RETURN, STUB_BYTES = 16 };
enum { CODE_SELECTOR = 0x08, DATA_SELECTOR = 0x10, TASK_SELECTOR = 0x18 };
enum { CODE = 0xA09B, DATA = 0xC093, TASK = 0x008B }; /* attributes: 64-bit code, data, a task that is busy */

static char message[512];

static int fail(const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(message, sizeof message, format, values);
  va_end(values);
  return -1;
}

/* ---- the parts of Bochs; `id` is 0, there is one CPU ---- */

typedef struct {
  void *context;
  void (*before[9])(void);
  void (*exception)(void *context, uint32_t id, uint32_t vector, uint32_t error);
  void (*behind[16])(void);
} hooks;

#define PARTS(PART)                                                                                      \
  PART(void *, sim_get_param_enum, (const char *name))                                                   \
  PART(void, _ZN14bx_param_num_c3setEl, (void *parameter, long value))                                   \
  PART(void, cpu_new, (uint32_t id))                                                                     \
  PART(void *, sim_new_param_string, (const char *name, const char *value, uint32_t bytes))              \
  PART(void, _Z12flushICachesv, (void))                                                                  \
  PART(void *, bochscpu_cpu_from, (uint32_t id))                                                         \
  PART(void, bochscpu_cpu_run, (void *cpu, hooks **list))                                                \
  PART(void, bochscpu_cpu_stop, (void *cpu))                                                             \
  PART(void, cpu_set_mode, (uint32_t id))                                                                \
  PART(uint64_t, cpu_get_pc, (uint32_t id))                                                              \
  PART(void, cpu_set_pc, (uint32_t id, uint64_t value))                                                  \
  PART(void, cpu_set_sp, (uint32_t id, uint64_t value))                                                  \
  PART(uint64_t, cpu_get_tsc, (uint32_t id))                                                             \
  PART(uint64_t, cpu_get_reg64, (uint32_t id, uint32_t number))                                          \
  PART(void, cpu_set_reg64, (uint32_t id, uint32_t number, uint64_t value))                              \
  PART(void, cpu_get_zmm, (uint32_t id, uint32_t number, uint64_t *value))                               \
  PART(void, cpu_set_zmm, (uint32_t id, uint32_t number, const uint64_t *value))                         \
  PART(void, cpu_set_eflags, (uint32_t id, uint32_t value))                                              \
  PART(void, cpu_set_seg, (uint32_t id, uint32_t number, uint32_t present, uint16_t selector,            \
                           uint64_t base, uint32_t limit, uint16_t attributes))                          \
  PART(void, cpu_set_tr, (uint32_t id, uint32_t present, uint16_t selector, uint64_t base,               \
                          uint32_t limit, uint16_t attributes))                                          \
  PART(void, cpu_set_gdtr, (uint32_t id, uint64_t base, uint16_t limit))                                 \
  PART(void, cpu_set_idtr, (uint32_t id, uint64_t base, uint16_t limit))                                 \
  PART(void, cpu_set_cr0, (uint32_t id, uint32_t value))                                                 \
  PART(uint64_t, cpu_get_cr2, (uint32_t id))                                                             \
  PART(void, cpu_set_cr3, (uint32_t id, uint64_t value))                                                 \
  PART(void, cpu_set_cr4, (uint32_t id, uint64_t value))                                                 \
  PART(void, cpu_set_efer, (uint32_t id, uint32_t value))                                                \
  PART(void, cpu_set_xcr0, (uint32_t id, uint32_t value))                                                \
  PART(void, cpu_set_star, (uint32_t id, uint64_t value))                                                \
  PART(void, cpu_set_lstar, (uint32_t id, uint64_t value))                                               \
  PART(void, cpu_set_mxcsr, (uint32_t id, uint32_t value))                                               \
  PART(void, cpu_set_mxcsr_mask, (uint32_t id, uint32_t value))

#define POINTER(type, name, arguments) static type(*name) arguments;
PARTS(POINTER)

static void *cpu;
static struct {
  uint8_t *table, *pristine; /* of instructions: making a CPU takes away what it lacks, for good */
  size_t bytes;
} opcodes;

/* ---- memory; what a trap needs of it is not from `malloc`, in whose midst the emulated function may be ---- */

/* The guest's physical pages are numbered as they are first used, above what PCs have below 4 GiB. */
enum { FIRST = 1 << 20, MOST_PAGES = 1 << 24 };

typedef struct table {
  uint64_t entries[512];
  struct table *tables[512];
} table;

static struct {
  _Alignas(PAGE) uint8_t stubs[PAGE];
  uint8_t trap_stack[PAGE];
  uint8_t gathers[64 * PAGE]; /* see there */
  uint64_t gates[EXCEPTIONS][2], segments[3];
  uint32_t task[26];
} machine;

static uint8_t **pages; /* where each physical page is */
static uint64_t used;   /* how many are */
static table *top;
static uint64_t top_at; /* its physical address */
static uint8_t *stack;

static void *reserve(size_t bytes) {
  void *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (found == MAP_FAILED) abort();
  return found;
}

/* The physical address of this page from now on. */
static uint64_t number(void *page) {
  if (used == MOST_PAGES) abort();
  pages[used] = page;
  return (FIRST + used++) * PAGE;
}

static table *new_table(uint64_t *at) {
  table *made = reserve(sizeof *made);
  *at = number(made->entries);
  return made;
}

/* Map the page of `address` to itself; false if it was. */
static int map(uint64_t address) {
  table *at = top;
  for (int shift = 39; shift > 12; shift -= 9) {
    unsigned index = address >> shift & 511;
    if (!at->tables[index]) {
      at->tables[index] = new_table(&at->entries[index]);
      at->entries[index] |= 3; /* present, writable */
    }
    at = at->tables[index];
  }
  uint64_t *entry = &at->entries[address >> 12 & 511];
  if (*entry) return 0;
  *entry = number((void *)(address & -(uint64_t)PAGE)) | 3;
  return 1;
}

static int readable(uint64_t address) {
  char byte;
  struct iovec to = {&byte, 1}, from = {(void *)address, 1};
  return process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
}

/* Bochs asks for these by name, and finds them here before its own, which take memory from `malloc`. */

EXPORT uint8_t *mem_guest_to_host(uint32_t id, uint64_t physical, uint32_t access) {
  (void)id, (void)access;
  uint64_t page = (physical & 0xFFFFFFFFFFFFF) / PAGE - FIRST;
  if (page >= used) abort();
  return pages[page] + physical % PAGE;
}

EXPORT void mem_read_phy(uint32_t id, uint64_t physical, uint32_t bytes, void *to) {
  memcpy(to, mem_guest_to_host(id, physical, 0), bytes);
}

EXPORT void mem_write_phy(uint32_t id, uint64_t physical, uint32_t bytes, const void *from) {
  memcpy(mem_guest_to_host(id, physical, 1), from, bytes);
}

/* ---- the machine ---- */

static void on_exception(void *context, uint32_t id, uint32_t vector, uint32_t error) {
  (void)context, (void)id, (void)vector, (void)error;
  if (cpu_get_pc(0) - (uint64_t)machine.stubs < PAGE) bochscpu_cpu_stop(cpu);
}

static void *(*own_parameter)(const char *name);
static void *added_features;

/* Of Bochs's parameters, the one of features that are added to a model's has no room. */
EXPORT void *sim_get_param_string(const char *name) {
  return strcmp(name, "cpu.add_features") == 0 ? added_features : own_parameter(name);
}

static uint64_t stub(int number) { return (uint64_t)machine.stubs + (uint64_t)number * STUB_BYTES; }

/* This Bochs takes the byte that VPINSRB loads for a word, and doubles the small displacements of its EVEX form. */
static void mend_byte_insertion(void *handler) {
  enum { ENTRY = 24, LOADED = 18, WORD = 0x23, BYTE = 0x13 };
  for (uint8_t *entry = opcodes.pristine; entry < opcodes.pristine + opcodes.bytes; entry += ENTRY)
    if (memcmp(entry, &handler, sizeof handler) == 0 && entry[LOADED] == WORD) entry[LOADED] = BYTE;
}

/* Load Bochs from the library at `path`; 0, or -1 with a message. */
EXPORT int emu_open(const char *path) {
  void *library = dlopen(path, RTLD_LAZY | RTLD_LOCAL); /* lazy: it may want functions of a newer C library, never called */
  if (!library) return fail("%s", dlerror());
#define FIND(type, name, arguments) \
  if (!(*(void **)&name = dlsym(library, #name))) return fail("%s has no %s", path, #name);
  PARTS(FIND)
  *(void **)&own_parameter = dlsym(library, "sim_get_param_string");
  opcodes.table = dlsym(library, "BxOpcodesTable");
  Dl_info where;
  const ElfW(Sym) * symbol;
  if (!opcodes.table || !dladdr1(opcodes.table, &where, (void **)&symbol, RTLD_DL_SYMENT))
    return fail("%s has no table of instructions", path);
  opcodes.bytes = symbol->st_size;
  opcodes.pristine = malloc(opcodes.bytes);
  memcpy(opcodes.pristine, opcodes.table, opcodes.bytes);
  mend_byte_insertion(dlsym(library, "_ZN8BX_CPU_C19VPINSRB_VdqHdqEbIbMEP15bxInstruction_c"));
  cpu = bochscpu_cpu_from(0);

  pages = reserve(MOST_PAGES * sizeof *pages);
  top = new_table(&top_at);
  for (uint64_t at = (uint64_t)&machine; at < (uint64_t)(&machine + 1); at += PAGE) map(at);
  stack = reserve(STACK);
  mprotect(stack, PAGE, PROT_NONE);
  memcpy(machine.segments, (uint64_t[]){0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF}, sizeof machine.segments);
  for (int i = 0; i < PAGE; i += 2) memcpy(machine.stubs + i, "\x0F\x0B", 2); /* ud2 */
  for (int i = 0; i < EXCEPTIONS; i++) {
    uint64_t to = stub(i), gate = 0x8E01; /* present, an interrupt gate, the first stack of the task */
    machine.gates[i][0] = (to & 0xFFFF) | CODE_SELECTOR << 16 | gate << 32 | (to >> 16 & 0xFFFF) << 48;
    machine.gates[i][1] = to >> 32;
  }
  uint64_t trap_stack = (uint64_t)(machine.trap_stack + sizeof machine.trap_stack);
  memcpy(&machine.task[9], &trap_stack, 8);
  return 0;
}

/* Let the CPU be a model, which is a number in Bochs's table of them, with features added (separated by commas). */
EXPORT void emu_cpu(int model, const char *features) {
  memcpy(opcodes.table, opcodes.pristine, opcodes.bytes);
  _ZN14bx_param_num_c3setEl(sim_get_param_enum("cpu.model"), model);
  added_features = sim_new_param_string("add_features", features, (uint32_t)strlen(features) + 1);
  cpu_new(0);
  cpu_set_cr0(0, 0x80000033);   /* paging, native FPU errors, an FPU, protection */
  cpu_set_cr3(0, top_at);
  cpu_set_cr4(0, 0x00040620);   /* XSAVE, SSE exceptions, SSE, PAE */
  cpu_set_efer(0, 0x00000501);  /* long mode, active and enabled, and SYSCALL */
  cpu_set_xcr0(0, 0x000000E7);  /* x87, SSE, AVX, AVX-512 */
  cpu_set_seg(0, CS, 1, CODE_SELECTOR, 0, UINT32_MAX, CODE);
  for (uint32_t segment = 0; segment < 4; segment++)
    if (segment != CS) cpu_set_seg(0, segment, 1, DATA_SELECTOR, 0, UINT32_MAX, DATA);
  cpu_set_tr(0, 1, TASK_SELECTOR, (uint64_t)machine.task, sizeof machine.task - 1, TASK);
  cpu_set_gdtr(0, (uint64_t)machine.segments, sizeof machine.segments - 1);
  cpu_set_idtr(0, (uint64_t)machine.gates, sizeof machine.gates - 1);
  cpu_set_star(0, (uint64_t)CODE_SELECTOR << 32);
  cpu_set_lstar(0, stub(SYSTEM_CALL));
  cpu_set_mxcsr_mask(0, 0xFFFF);
  cpu_set_mode(0);
}

/* Forget all decoded instructions: other code may lie where some was. */
EXPORT void emu_forget(void) { _Z12flushICachesv(); }

/* ---- calls ---- */

/* Carries out the instruction at `code` on registers; returns where the next one is, or NULL. */
typedef const uint8_t *(*substitute)(const uint8_t *code, const greg_t *registers);
static substitute other;

/* Let instructions that the CPU lacks be carried out by `function`, or by none. */
EXPORT void emu_substitute(substitute function) { other = function; }

static void go_on(uint64_t pc, uint64_t sp, uint64_t flags) {
  cpu_set_pc(0, pc);
  cpu_set_sp(0, sp);
  cpu_set_eflags(0, (uint32_t)flags & ~UINT32_C(0x10000)); /* without RF */
}

static uint64_t get(int number) { return cpu_get_reg64(0, (uint32_t)number); }

static int system_call(void) {
  long number = (long)get(RAX);
  switch (number) {
    case SYS_clone: case SYS_clone3: case SYS_fork: case SYS_vfork: case SYS_execve: case SYS_exit: case SYS_rt_sigreturn:
      return fail("an emulated function made system call %ld, which needs a real CPU", number);
  }
  long result = syscall(number, get(RDI), get(RSI), get(RDX), get(R10), get(R8), get(R9));
  cpu_set_reg64(0, RAX, result < 0 ? -(uint64_t)errno : (uint64_t)result);
  go_on(get(RCX), get(RSP), get(R11));
  return 0;
}

static const uint8_t *elsewhere(const uint8_t *code, uint64_t sp) {
  static const int ORDER[REGISTERS] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                       REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  gregset_t registers;
  if (!other) return NULL;
  for (int i = 0; i < REGISTERS; i++) registers[ORDER[i]] = (greg_t)(i == RSP ? sp : get(i));
  return other(code, registers);
}

/* ---- gathers ----
 *
 * This Bochs does not decode a gather whose indices are in one of the vector registers 16 to 31. So they are lent one of the
 * first: a copy of the instruction that names it is run, and behind it is what ends a stub.
 */

enum { COPY_BYTES = 32, COPIES = sizeof machine.gathers / COPY_BYTES };

static struct {
  uint64_t next, register_before[8];
  uint32_t lent;
} gather;

static uint64_t copy_of(const uint8_t *instruction, int bytes) {
  static int copies;
  for (int i = 0; i < copies; i++) {
    uint8_t *copy = machine.gathers + i * COPY_BYTES;
    if (memcmp(copy, instruction, (size_t)bytes) == 0) return (uint64_t)copy;
  }
  if (copies == COPIES) copies = 0, _Z12flushICachesv();
  uint8_t *copy = machine.gathers + copies++ * COPY_BYTES;
  memcpy(copy, instruction, (size_t)bytes);
  memcpy(copy + bytes, "\x0F\x0B", 2);
  return (uint64_t)copy;
}

static int begin_gather(const uint8_t *code, uint64_t sp, uint64_t flags) {
  int mode = code[5] >> 6, sib = code[6];
  /* EVEX.66.0F38 90 to 93 with an index register from 16 on */
  if (code[0] != 0x62 || (code[1] & 0x0F) != 2 || (code[2] & 3) != 1 || code[3] & 8 || code[4] < 0x90 || code[4] > 0x93)
    return 0;
  int bytes = 7 + (mode == 1 ? 1 : mode == 2 || (sib & 7) == 5 ? 4 : 0);
  uint32_t to = (code[5] >> 3 & 7) | (~code[1] >> 4 & 8) | (~code[1] & 0x10);
  uint32_t index = (sib >> 3 & 7) | (~code[1] >> 3 & 8) | 16;
  uint8_t copy[16];
  uint64_t indices[8];
  gather.lent = to ? 0 : 1;
  gather.next = (uint64_t)code + (uint64_t)bytes;
  memcpy(copy, code, (size_t)bytes);
  copy[1] |= 0x40, copy[3] |= 8, copy[6] = (uint8_t)((sib & ~0x38) | gather.lent << 3);
  cpu_get_zmm(0, gather.lent, gather.register_before);
  cpu_get_zmm(0, index, indices);
  cpu_set_zmm(0, gather.lent, indices);
  go_on(copy_of(copy, bytes), sp, flags);
  return 1;
}

static int end_gather(uint64_t pc, uint64_t sp, uint64_t flags) {
  if (pc - (uint64_t)machine.gathers >= sizeof machine.gathers) return 0;
  cpu_set_zmm(0, gather.lent, gather.register_before);
  go_on(gather.next, sp, flags);
  return 1;
}

/* ---- the C library's copies ----
 *
 * It has chosen them for this CPU, so they may begin with a vector that the emulated one does not have. Nothing has
 * changed then since they were called: they are carried out here instead.
 */

enum { COPY_SPAN = 2048 };

static int copy_here(uint64_t pc, uint64_t sp, uint64_t flags) {
  uint64_t from_move = pc - (uint64_t)dlsym(RTLD_DEFAULT, "memmove"), from_set = pc - (uint64_t)dlsym(RTLD_DEFAULT, "memset");
  if (from_move >= COPY_SPAN && from_set >= COPY_SPAN) return 0;
  void *to = (void *)get(RDI);
  if (from_move < from_set)
    memmove(to, (const void *)get(RSI), get(RDX));
  else
    memset(to, (int)get(RSI), get(RDX));
  cpu_set_reg64(0, RAX, (uint64_t)to);
  go_on(*(const uint64_t *)sp, sp + 8, flags);
  return 1;
}

static int exception(int vector) {
  const uint64_t *frame = (const uint64_t *)get(RSP);
  if (vector == 8 || (vector >= 10 && vector <= 14) || vector == 17) frame++; /* behind an error code */
  uint64_t pc = frame[0], flags = frame[2], sp = frame[3];
  Dl_info where = {.dli_sname = NULL};
  dladdr((void *)pc, &where);
  const char *name = where.dli_sname ? where.dli_sname : "an unnamed function";
  if (vector == PAGE_FAULT) {
    uint64_t address = cpu_get_cr2(0);
    if (!readable(address)) return fail("%s touches %#lx, where there is no memory", name, address);
    if (!map(address)) return fail("%s may not touch %#lx", name, address);
    go_on(pc, sp, flags);
    return 0;
  }
  const uint8_t *code = (const uint8_t *)pc;
  if (vector == UNDEFINED) {
    if (end_gather(pc, sp, flags) || begin_gather(code, sp, flags) || copy_here(pc, sp, flags)) return 0;
    const uint8_t *next = elsewhere(code, sp);
    if (next) {
      go_on((uint64_t)next, sp, flags);
      return 0;
    }
    return fail("%s has an instruction that the CPU lacks: %02x %02x %02x %02x %02x %02x %02x", name, code[0], code[1],
                code[2], code[3], code[4], code[5], code[6]);
  }
  return fail("%s raised exception %d", name, vector);
}

/* Call `function` with up to six integers or addresses. 0, or -1 with a message. One call at a time. */
EXPORT int emu_call(uint64_t function, const uint64_t *arguments, int count, uint64_t *result) {
  static const uint32_t ORDER[] = {RDI, RSI, RDX, RCX, R8, R9};
  static hooks watch = {.exception = on_exception};
  uint64_t *sp = (uint64_t *)(stack + STACK) - 3; /* as behind a call: 8 above a multiple of 16 */
  *sp = stub(RETURN);
  cpu_set_seg(0, FS, 1, 0, (uint64_t)pthread_self(), UINT32_MAX, DATA); /* thread-local variables are relative to it */
  cpu_set_mxcsr(0, __builtin_ia32_stmxcsr());
  for (int i = 0; i < count; i++) cpu_set_reg64(0, ORDER[i], arguments[i]);
  go_on(function, (uint64_t)sp, 2);
  for (;;) {
    bochscpu_cpu_run(cpu, (hooks *[]){&watch, NULL});
    uint64_t at = (cpu_get_pc(0) - (uint64_t)machine.stubs) / STUB_BYTES;
    if (at == RETURN) break;
    if (at > RETURN) return fail("the CPU stopped at %#lx", cpu_get_pc(0));
    if ((at == SYSTEM_CALL ? system_call() : exception((int)at)) != 0) return -1;
  }
  *result = get(RAX);
  return 0;
}

EXPORT const char *emu_message(void) { return message; }
