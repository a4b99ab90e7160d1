/* What products in matrix registers need besides; nothing on lanes without such registers. */
#ifndef EDGE_GRU_MATRIX_H
#define EDGE_GRU_MATRIX_H

#include "kernel.h"
#include LANES_HEADER

#ifdef MATRIX_HEADER

static inline int uses_matrix(const struct product *p) { return p->in_matrix; }

/* Clear a line from here on. */
LANES_INLINE void line_clear(uint8_t *line, unsigned from) {
    _mm512_mask_storeu_epi8(line, ~0ull << from, _mm512_setzero_si512());
}

/*
 * Every few rows of other work a product that nothing reads: after a thousand cycles without one
 * the unit falls asleep, and to wake it takes as many.
 */
LANES_INLINE void stay_awake(const struct product *p, size_t row) {
    if (row % 8 == 0 && uses_matrix(p)) {
        __asm__ volatile("tdpbusd %tmm5, %tmm6, %tmm7");
    }
}

#else

static inline int uses_matrix(const struct product *p) {
    (void)p;
    return 0;
}
LANES_INLINE void line_clear(uint8_t *line, unsigned from) {
    (void)line;
    (void)from;
}
LANES_INLINE void stay_awake(const struct product *p, size_t row) {
    (void)p;
    (void)row;
}

#endif

#endif
