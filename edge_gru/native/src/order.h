/* Whether the order of a network's instructions lets a sequence through in blocks of steps. */
#ifndef EDGE_GRU_ORDER_H
#define EDGE_GRU_ORDER_H

#include "network.h"

/*
 * Instruction by instruction, each for many steps, gives what step by step does: every state is
 * written by one cell, and read only after it.
 */
int runs_in_blocks(const struct network *);

#endif
