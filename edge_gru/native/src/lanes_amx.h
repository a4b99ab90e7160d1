/* The lanes of AVX-512, and tiles of integer products in the matrix registers of AMX. */
#ifndef EDGE_GRU_LANES_AMX_H
#define EDGE_GRU_LANES_AMX_H

#include "lanes_avx512.h"

#undef LANES_NAME
#define LANES_NAME "amx"
#define MATRIX_HEADER "tiles_amx.h"

#endif
