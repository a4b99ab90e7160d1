/* The portable kernel. */
#include "kernels.h"

#define KERNEL kernel_scalar
#define LANES_HEADER "lanes_scalar.h"
#include "kernel_body.h"
