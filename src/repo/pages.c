#include "repo/pages.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HUGE ((size_t)2 << 20)

// The mapping is a huge page larger than asked, so that it can begin at one; what lies outside is given back.
uint8_t *rp_pages_new(size_t size)
{
    size = (size + HUGE - 1) & ~(HUGE - 1);
    uint8_t *map = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) {
        fprintf(stderr, "refpoint: out of memory\n");
        abort();
    }
    size_t before = (HUGE - ((uintptr_t)map & (HUGE - 1))) & (HUGE - 1);
    if (before)
        munmap(map, before);
    if (before < HUGE)
        munmap(map + before + size, HUGE - before);
    madvise(map + before, size, MADV_HUGEPAGE);
    return map + before;
}

void rp_pages_free(uint8_t *pages, size_t size)
{
    if (pages)
        munmap(pages, (size + HUGE - 1) & ~(HUGE - 1));
}
