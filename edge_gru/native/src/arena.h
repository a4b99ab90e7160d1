/* Memory that is taken while a network is built and given back when it goes. */
#ifndef EDGE_GRU_ARENA_H
#define EDGE_GRU_ARENA_H

#include <stddef.h>

struct arena {
    void **blocks;
    size_t n_blocks;
    unsigned char *left; /* of the huge pages taken last */
    size_t n_left;
};

/* Zeros, aligned to a cache line, with a line more at the end; NULL if there are none left. */
void *arena_take(struct arena *, size_t count, size_t size);
void arena_free(struct arena *);

#endif
