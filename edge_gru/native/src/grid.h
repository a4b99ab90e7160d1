/*
 * Values on the grid of an int8 operand: clip(rint(v / step), -128, 127), the division rounded to
 * float, ties to even. A product with 1 / step would decide ties otherwise.
 */
#ifndef EDGE_GRU_GRID_H
#define EDGE_GRU_GRID_H

#include LANES_HEADER

struct grid {
    F step;
    F inverse;
    F bound;
};

LANES_INLINE struct grid grid_of(float step) {
    const struct grid grid = {f_set(step), f_set(1.0f / step), f_set(step * 129.0f)};
    return grid;
}

/*
 * Steps as float lanes, neither clipped nor rounded yet, but small enough for both. On vectors a
 * division costs more than all the rest, so the quotient is refined twice: with an exact remainder
 * the second time is correctly rounded (Markstein 1990). The bound keeps everything finite.
 */
LANES_INLINE F grid_quotient(F v, struct grid grid) {
#if LANES_DIVIDE
    return f_clip_number(f_div(v, grid.step), -128.0f, 127.0f);
#else
    const F near = f_number_within(v, grid.bound);
    const F first = f_mul(near, grid.inverse);
    const F second = f_fma(f_fnma(first, grid.step, near), grid.inverse, first);
    return f_fma(f_fnma(second, grid.step, near), grid.inverse, second);
#endif
}

LANES_INLINE F grid_steps(F v, struct grid grid) {
    return f_clip_number(grid_quotient(v, grid), -128.0f, 127.0f);
}

#endif
