/* The lanes of AVX-512, and tiles of integer products in the matrix registers of AMX. */
#include "lanes_avx512.h"

#undef LANES_NAME
#define LANES_NAME "amx"
#define MATRIX_HEADER "tiles_amx.h"
