/* The whole of a kernel, on the lanes of LANES_HEADER; defines the kernel called KERNEL. */
#include "cells.h"

const struct kernel KERNEL = {
    .name = LANES_NAME,
    .operand_offset = OPERAND_OFFSET,
    .dense = dense,
    .step = step,
    .sigmoid = sigmoid,
    .tanh = hyperbolic_tangent,
};
