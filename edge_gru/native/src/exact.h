/*
 * Functions of a double that give the same bits everywhere, which those of a C library do not.
 * Error below 1e-12, relative for exponential and power, absolute for the others.
 */
#ifndef EDGE_GRU_EXACT_H
#define EDGE_GRU_EXACT_H

double exact_exp(double a);
double exact_expm1(double a);
double exact_log(double a);
double exact_erf(double a);
double exact_pow(double a, double b);

#endif
