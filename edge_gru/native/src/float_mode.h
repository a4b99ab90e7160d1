/*
 * Rounding to nearest with subnormal numbers, whatever the thread was set to: another library may
 * have asked the processor to flush subnormals to zero, and results would differ by it.
 */
#ifndef EDGE_GRU_FLOAT_MODE_H
#define EDGE_GRU_FLOAT_MODE_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

struct float_mode {
    uint64_t bits;
    int is_changed;
};

#if defined(__x86_64__)

enum { MODE_DEFAULT = 0x1f80, MODE_FLAGS = 0x3f }; /* exceptions masked; what happened so far */

static inline struct float_mode float_mode_enter(void) {
    const unsigned bits = _mm_getcsr();
    const struct float_mode mode = {bits, (bits & ~(unsigned)MODE_FLAGS) != MODE_DEFAULT};
    if (mode.is_changed) {
        _mm_setcsr(MODE_DEFAULT);
    }
    return mode;
}

static inline void float_mode_leave(struct float_mode mode) {
    if (mode.is_changed) {
        _mm_setcsr((unsigned)mode.bits);
    }
}

#elif defined(__aarch64__)

static inline struct float_mode float_mode_enter(void) {
    uint64_t bits;
    __asm__ volatile("mrs %0, fpcr" : "=r"(bits));
    const struct float_mode mode = {bits, bits != 0};
    if (mode.is_changed) {
        __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    }
    return mode;
}

static inline void float_mode_leave(struct float_mode mode) {
    if (mode.is_changed) {
        __asm__ volatile("msr fpcr, %0" : : "r"(mode.bits));
    }
}

#else

static inline struct float_mode float_mode_enter(void) {
    const struct float_mode mode = {0, 0};
    return mode;
}

static inline void float_mode_leave(struct float_mode mode) { (void)mode; }

#endif

#endif
