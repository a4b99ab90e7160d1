#include "order.h"

/* Every state by one cell, and by nothing else. */
static int is_written_once(const struct network *net) {
    for (size_t id = 0; id < net->n_values; id++) {
        size_t n_writers = net->values[id].space != SPACE_STATE;
        for (size_t i = 0; i < net->n_instructions; i++) {
            const struct instruction *run = &net->instructions[i];
            const int is_cell = run->kind == RUN_CELL;
            const int is_output = run->output == id;
            const int is_c = is_cell && run->n_inputs == 3 && run->inputs[2] == id;
            n_writers += is_output || is_c ? (is_cell ? 1 : 2) : 0;
        }
        if (net->values[id].space == SPACE_STATE && n_writers != 1) {
            return 0;
        }
    }
    return 1;
}

/* No instruction reads a state that a later one, or itself but as h or c, writes. */
static int is_read_later(const struct network *net) {
    for (size_t i = 0; i < net->n_instructions; i++) {
        const struct instruction *run = &net->instructions[i];
        const size_t n_read = run->kind == RUN_CELL ? 1 : run->n_inputs;
        for (size_t k = 0; k < n_read; k++) {
            for (size_t w = i; w < net->n_instructions; w++) {
                const struct instruction *writer = &net->instructions[w];
                const size_t read = run->inputs[k];
                if (net->values[read].space == SPACE_STATE && writer->kind == RUN_CELL &&
                    (writer->output == read || writer->inputs[writer->n_inputs - 1] == read)) {
                    return 0;
                }
            }
        }
    }
    return 1;
}

int runs_in_blocks(const struct network *net) {
    return is_written_once(net) && is_read_later(net);
}
