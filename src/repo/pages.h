// Large buffers: whole packs. Aligned, so that they can be written and read around the page cache, and of huge pages
// where the kernel has some: a fault for each 4 KiB of a fresh pack costs more than encrypting it.
#ifndef RP_REPO_PAGES_H
#define RP_REPO_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RP_PAGE 4096u

// Zeros. Memory is taken when it is touched. Aborts when there is none, as rp_xmalloc does.
uint8_t *rp_pages_new(size_t size);
void rp_pages_free(uint8_t *pages, size_t size); // NULL is fine

#endif
