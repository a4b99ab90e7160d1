/* Sums, products, quotients and exact scalings only: IEEE 754 fixes every bit of these. */
#include "exact.h"

#include <math.h>

double exact_exp(double a) {
    if (isnan(a)) {
        return a;
    }
    if (a > 709.0) {
        return INFINITY;
    }
    if (a < -745.0) {
        return 0.0;
    }
    const double k = floor(a * 1.4426950408889634 + 0.5);
    const double r = (a - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
    double sum = 1.0;
    for (int n = 13; n > 0; n--) { /* Taylor: |r| < 0.35, the next term is 1e-17 */
        sum = 1.0 + sum * r / n;
    }
    return ldexp(sum, (int)k);
}

double exact_expm1(double a) {
    return fabs(a) < 1e-5 ? a + 0.5 * a * a : exact_exp(a) - 1.0;
}

double exact_log(double a) {
    if (isnan(a) || a < 0.0) {
        return NAN;
    }
    if (a == 0.0 || isinf(a)) {
        return a == 0.0 ? -INFINITY : a;
    }
    int exponent;
    double m = frexp(a, &exponent);
    if (m < 0.7071067811865476) {
        m *= 2.0;
        exponent--;
    }
    const double s = (m - 1.0) / (m + 1.0); /* log m = 2 atanh s, |s| < 0.172 */
    const double square = s * s;
    double sum = 0.0;
    for (int n = 21; n > 0; n -= 2) {
        sum = sum * square + 1.0 / n;
    }
    return exponent * 0.6931471805599453 + 2.0 * s * sum;
}

double exact_erf(double a) {
    const double size = fabs(a);
    if (!(size < 6.0)) {
        return isnan(a) ? a : copysign(1.0, a);
    }
    if (size < 3.0) { /* Maclaurin: terms reach e^9, so twelve digits stay */
        double term = a;
        double sum = a;
        for (int n = 1; n < 60; n++) {
            term *= -a * a / n;
            sum += term / (2 * n + 1);
        }
        return sum * 1.1283791670955126;
    }
    double fraction = size; /* erfc = exp(-a a) / sqrt(pi) / (a + (1/2) / (a + (2/2) / (a + ... */
    for (int n = 60; n > 0; n--) {
        fraction = size + 0.5 * n / fraction;
    }
    return copysign(1.0 - exact_exp(-size * size) * 0.5641895835477563 / fraction, a);
}

double exact_pow(double a, double b) {
    if (b == 0.0 || a == 1.0) {
        return 1.0;
    }
    if (b == 2.0) {
        return a * a;
    }
    const double size = exact_exp(b * exact_log(fabs(a)));
    if (a < 0.0 && !isinf(a)) {
        return floor(b) != b ? NAN : fmod(b, 2.0) != 0.0 ? -size : size;
    }
    return size;
}
