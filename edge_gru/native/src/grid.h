/*
 * Values on the grid of an int8 operand: clip(rint(v / step), -128, 127), the division rounded to
 * float, ties to even. A product with 1 / step would decide ties otherwise.
 */
#ifndef EDGE_GRU_GRID_H
#define EDGE_GRU_GRID_H

#include "kernel.h"
#include LANES_HEADER

/*
 * Steps as float lanes, clipped but not rounded yet. A division takes as long as all the rest: this
 * is the product with 1 / step in two parts, which is rounded as the quotient is (grid_of, pack.h).
 */
LANES_INLINE F quotient_of(F v, const struct grid *grid) {
    return f_fma(v, f_set(grid->inverse), f_mul(v, f_set(grid->inverse_rest)));
}

LANES_INLINE F grid_quotient(F v, const struct grid *grid) {
    return quotient_of(f_number_within(v, f_set(grid->low), f_set(grid->high)), grid);
}

/* The same for f_store_int8, which may clip what is above. */
LANES_INLINE F grid_storable(F v, const struct grid *grid) {
    return quotient_of(f_storable(v, f_set(grid->low), f_set(grid->high)), grid);
}

#endif
