/* The whole of a kernel, on the lanes of LANES_HEADER; defines the kernel called KERNEL. */
#include "cells.h"

#ifndef PLAIN_KERNEL
#define PLAIN_KERNEL NULL
#endif

const struct kernel KERNEL = {
    .name = LANES_NAME,
    .matrix_steps = MATRIX_STEPS,
    .plain = PLAIN_KERNEL,
    .operand_offset = OPERAND_OFFSET,
    .dense = dense,
    .step = step,
    .run = run,
    .enter_matrix = MATRIX_ENTER,
    .leave_matrix = MATRIX_LEAVE,
    .take = take,
    .sigmoid = sigmoid,
    .tanh = hyperbolic_tangent,
};
