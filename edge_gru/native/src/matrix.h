/* What a kernel with matrix registers does besides; nothing on lanes without. */
#ifndef EDGE_GRU_MATRIX_H
#define EDGE_GRU_MATRIX_H

#include LANES_HEADER

#ifndef MATRIX_HEADER
LANES_INLINE void line_clear(uint8_t *line, unsigned from) {
    (void)line;
    (void)from;
}
LANES_INLINE void stay_awake(size_t row) { (void)row; }
#endif

#endif
