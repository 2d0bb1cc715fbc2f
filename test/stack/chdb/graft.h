// Shared by the grafts: puts a function of ours in the place of one of the library. They know one build of libchdb.so,
// which grafts.ts checks by its id; each checks besides that the function begins as it does in that build.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
  // From the beginning of the library.
  AT_CHDB_QUERY_CMDLINE = 0xf211700,
  JUMP_BYTES = 12,
};

/** NULL: the library has no function by which its beginning could be found. */
static char *beginning_of(void *library) {
  char *known = dlsym(library, "chdb_query_cmdline");
  return known == NULL ? NULL : known - AT_CHDB_QUERY_CMDLINE;
}

/** From now on whoever calls the function at `at` calls `ours`. Not 0: this is another build than the one that is known. */
static int put_in_place(char *at, const unsigned char *expected, size_t expected_bytes, void *ours) {
  // mov rax, ours; jmp rax
  unsigned char jump[JUMP_BYTES] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0};
  if (memcmp(at, expected, expected_bytes) != 0) return 2;
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *from = (char *)((uintptr_t)at & ~(uintptr_t)(page - 1));
  if (mprotect(from, 2 * page, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) return 3;
  memcpy(jump + 2, &ours, sizeof ours);
  memcpy(at, jump, sizeof jump);
  return mprotect(from, 2 * page, PROT_READ | PROT_EXEC) == 0 ? 0 : 4;
}
