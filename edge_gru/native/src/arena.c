#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LINE_BYTES = 64 };

void *arena_take(struct arena *arena, size_t count, size_t size) {
    if (size && count > (SIZE_MAX / 2 - 2 * LINE_BYTES) / size) {
        return NULL;
    }
    void **blocks = realloc(arena->blocks, (arena->n_blocks + 1) * sizeof *blocks);
    if (!blocks) {
        return NULL;
    }
    arena->blocks = blocks;
    void *block = calloc(1, count * size + 2 * LINE_BYTES);
    if (!block) {
        return NULL;
    }
    arena->blocks[arena->n_blocks++] = block;
    const uintptr_t address = (uintptr_t)block;
    return (unsigned char *)block + (LINE_BYTES - address % LINE_BYTES) % LINE_BYTES;
}

void arena_free(struct arena *arena) {
    for (size_t i = 0; i < arena->n_blocks; i++) {
        free(arena->blocks[i]);
    }
    free(arena->blocks);
    memset(arena, 0, sizeof *arena);
}
