/* The lanes of AVX-512, and tiles of integer products in the matrix registers of AMX. */
#ifndef EDGE_GRU_LANES_AMX_H
#define EDGE_GRU_LANES_AMX_H

#include "lanes_avx512.h"

#undef LANES_NAME
#define LANES_NAME "amx"
#define MATRIX_HEADER "tiles_amx.h"

/* Clear a line from here on. */
LANES_INLINE void line_clear(uint8_t *line, unsigned from) {
    _mm512_mask_storeu_epi8(line, ~0ull << from, _mm512_setzero_si512());
}

/*
 * A product of registers that nothing reads, every few rows of other work: after a thousand cycles
 * without one the unit falls asleep, and waking it takes as many again. Only in between matrix_enter
 * and matrix_leave.
 */
LANES_INLINE void stay_awake(size_t row) {
    if (row % 8 == 0) {
        __asm__ volatile("tdpbusd %tmm5, %tmm6, %tmm7");
    }
}

#endif
