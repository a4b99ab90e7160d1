/*
 * What a kernel computes: products with a packed matrix, and steps of a recurrent cell.
 *
 * A kernel is the same arithmetic on one set of vector instructions; all give the same bits:
 * - a float product of a row is four fused multiply-add chains over k mod 4 from zero, summed
 *   (0 + 1) + (2 + 3);
 * - an integer product is exact; it becomes a float once, and one fused multiply-add scales it and
 *   adds what came before;
 * - sigmoid and tanh are polynomials in fused multiply-adds (activations.h).
 *
 * No allocation and no globals: the caller owns every buffer. Buffers of floats have room up to a
 * multiple of sixteen values; the values beyond a width may be anything.
 */
#ifndef EDGE_GRU_KERNEL_H
#define EDGE_GRU_KERNEL_H

#include <stddef.h>
#include <stdint.h>

enum {
    LANES = 16,
    MAX_ROWS = 64,      /* of one call */
    MOST_TILE_ROWS = 16, /* that a kernel multiplies at once, even if they are fewer */
    SUM_ROWS = 24,       /* whose sums there is room for */
    N_SUMS = 4,          /* groups of whose sums there is room for */
    MAX_GATES = 4,      /* of a cell */
    DENSE_GROUP = 8,    /* vectors of sixteen rows that lie together in a packed matrix */
    OPERAND_LINE = 64,  /* bytes of integer operands that there is room for at least */
    MAX_OPERAND = 1 << 16 /* above it, int32 sums could overflow */
};

#define NEAR 24.0f /* below it neither sigmoid nor tanh clips */

enum { ROOM_OF_SUMS = 2 * SUM_ROWS * DENSE_GROUP * LANES }; /* of one group, and of lo */

enum form { FORM_FP32, FORM_FP16, FORM_INT8, FORM_INT8_HILO, N_FORMS };

/* What v / step is computed from, see grid.h. */
struct grid {
    float step;
    float inverse; /* 1 / step is this and the rest */
    float inverse_rest;
    float low; /* -128 and 127 steps */
    float high;
};

/*
 * A matrix of n_vectors * 16 rows, packed. Float: [group][k][vector of the group][16]; integer:
 * [group][k / 4][vector of the group][16][4], k filled up with zeros to a multiple of four. A group
 * has as many vectors as a cell has gates, or DENSE_GROUP, the last of them what is left.
 */
struct product {
    enum form form;
    size_t n_operand;
    size_t n_rows;
    size_t n_vectors;
    size_t n_group; /* vectors that lie together; the last group may have fewer */
    size_t n_steps; /* n_operand, or a quarter of it rounded up */
    float *weights;
    float *narrow; /* float weights again, as [k / 4][row][4], if there are at most sixteen rows */
    int8_t *weights_int8;
    int32_t *correction; /* (n_vectors * 16,): what sums begin with */
    const float *scale;        /* (n_vectors * 16,): of a row times that of the operand */
    const float *gain;         /* of the operand, or NULL for none */
    struct grid grid; /* of an integer operand */
    float reach; /* of integer operands: no product is larger */
    int in_matrix; /* of many rows, in matrix registers */
};

enum cell_kind { CELL_GRU, CELL_GRU_RESET_FIRST, CELL_LSTM, CELL_RNN_TANH, CELL_RNN_RELU, N_CELLS };

/* Rows of x lie [block of sixteen units][gate][16], as the biases do. */
struct cell {
    enum cell_kind kind;
    size_t n_hidden;
    size_t n_blocks; /* of sixteen units */
    size_t n_gates;
    struct product x;
    struct product h;
    struct product h_candidate; /* GRU_RESET_FIRST: rows of n, whose operand is r * h */
    struct product projection;  /* an LSTM's w_hr */
    int has_projection;
    int is_near; /* no pre-activation reaches NEAR */
    const float *bias;           /* added to the product with x */
    const float *bias_candidate; /* GRU: added to the rows of n in the product with h */
};

/* Room for one call; strides are from row to row, in bytes and in floats. */
struct workspace {
    uint8_t *operands;
    size_t operand_stride;
    float *gates; /* n_gates * n_blocks * 16 a row */
    size_t gates_stride;
    float *spare; /* n_blocks * 16 a row */
    size_t spare_stride;
    const float *zeros; /* as many as the widest projection has */
    int32_t *sums;      /* N_SUMS * ROOM_OF_SUMS */
    uint8_t *x_operands; /* where products with x and h take turns */
    int is_backward;     /* one row: every other step, so that it meets first what is cached */
};

struct kernel {
    const char *name;
    /*
     * Integer products of many rows in at least so many steps are done in matrix registers, as many
     * steps at once: in fewer these are no faster, and the processor slows down for them. 0: none.
     */
    size_t matrix_steps;
    /* Without such registers, for single rows and networks without such products; NULL: this. */
    const struct kernel *plain;
    int operand_offset; /* added to int8 operands: corrections hold -offset times a row's sum */
    /* out[row] = bias + product of in[row]; rows may be the same, before and after. */
    void (*dense)(const struct product *, const struct workspace *, size_t n_rows,
                  const float *const *in, const float *bias, float *const *out);
    /* Advances h (and c, of an LSTM) in place. */
    void (*step)(const struct cell *, const struct workspace *, size_t n_rows,
                 const float *const *x, float *const *h, float *const *c);
    /*
     * Steps of one stream: h[t + 1], and c[t + 1] of an LSTM, from x[t], h[t] and c[t]. The products
     * with x need no state, so that one pass over their weights serves all steps.
     */
    void (*run)(const struct cell *, const struct workspace *, size_t n_steps,
                const float *const *x, float *const *h, float *const *c);
    /* Around calls with many rows and such products, in their thread. */
    void (*enter_matrix)(void);
    void (*leave_matrix)(void);
    /* A row, and zeros up to whole vectors: so that a load of one need not wait for many stores. */
    void (*take)(size_t n, const float *in, float *out);
    void (*sigmoid)(size_t n, const float *in, float *out);
    void (*tanh)(size_t n, const float *in, float *out);
};

/* Bytes of one row of operands. */
size_t operand_bytes(const struct product *);

/* The kernel of that name, or NULL if it is not in this build or not for this processor. */
const struct kernel *kernel_named(const char *name);
/* The kernels that run here, the fastest at rank 0; NULL beyond the last. */
const struct kernel *kernel_at(size_t rank);

#endif
