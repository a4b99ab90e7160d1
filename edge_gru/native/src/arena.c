#if defined(__linux__)
#define _DEFAULT_SOURCE /* madvise, posix_memalign */
#endif

#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

enum {
    LINE_BYTES = 64,
    LARGE_BYTES = 1 << 17, /* from here on blocks share huge pages: a step reads each in full */
    HUGE_BYTES = 1 << 21
};

/* Room for one pointer more; 0 if there is none. */
static int grow(struct arena *arena) {
    void **blocks = realloc(arena->blocks, (arena->n_blocks + 1) * sizeof *blocks);
    arena->blocks = blocks ? blocks : arena->blocks;
    return blocks != NULL;
}

#if defined(__linux__) && defined(MADV_HUGEPAGE)
/* Zeros for a large block, from the pages of the one before or from new ones. */
static void *take_huge(struct arena *arena, size_t n_bytes) {
    if (arena->n_left < n_bytes) {
        void *pages;
        const size_t n_new = (n_bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
        if (posix_memalign(&pages, HUGE_BYTES, n_new)) {
            return NULL;
        }
        (void)madvise(pages, n_new, MADV_HUGEPAGE); /* advice: small pages do as well */
        arena->blocks[arena->n_blocks++] = pages;
        arena->left = pages;
        arena->n_left = n_new;
    }
    unsigned char *block = arena->left;
    arena->left += n_bytes;
    arena->n_left -= n_bytes;
    return memset(block, 0, n_bytes);
}
#else
static void *take_huge(struct arena *arena, size_t n_bytes) {
    (void)arena;
    (void)n_bytes;
    return NULL;
}
#endif

static void *take_small(struct arena *arena, size_t n_bytes) {
    void *block = calloc(1, n_bytes + LINE_BYTES);
    if (!block) {
        return NULL;
    }
    arena->blocks[arena->n_blocks++] = block;
    return (unsigned char *)block + (LINE_BYTES - (uintptr_t)block % LINE_BYTES) % LINE_BYTES;
}

void *arena_take(struct arena *arena, size_t count, size_t size) {
    if (size && count > (SIZE_MAX / 2 - HUGE_BYTES) / size) {
        return NULL;
    }
    const size_t n_bytes = (count * size + 2 * LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    if (!grow(arena)) {
        return NULL;
    }
    void *block = n_bytes < LARGE_BYTES ? NULL : take_huge(arena, n_bytes);
    return block ? block : take_small(arena, n_bytes);
}

void arena_free(struct arena *arena) {
    for (size_t i = 0; i < arena->n_blocks; i++) {
        free(arena->blocks[i]);
    }
    free(arena->blocks);
    memset(arena, 0, sizeof *arena);
}
