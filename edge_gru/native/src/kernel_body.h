/* The whole of a kernel, on the lanes of LANES_HEADER; defines the kernel called KERNEL. */
#include "cells.h"

const struct kernel KERNEL = {
    .name = LANES_NAME,
    .steps_at_once = STEPS_AT_ONCE,
    .operand_offset = OPERAND_OFFSET,
    .dense = dense,
    .step = step,
    .enter = TILES_ENTER,
    .leave = TILES_LEAVE,
    .sigmoid = sigmoid,
    .tanh = hyperbolic_tangent,
};
