/* Vectors of floats for the kernels, and what torch's own loops would call on them.

   They are written out, 32 bytes wide: copies that target_clones makes are not vectorised by gcc 12 on its own
   (24 times slower), and 64 bytes gain nothing. */

#include <stdint.h>
#include <string.h>

#define WIDE 8

typedef float vec __attribute__((vector_size(4 * WIDE)));
typedef int32_t ints __attribute__((vector_size(4 * WIDE)));

#define INLINE static inline __attribute__((always_inline))
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__gnu_linux__)
/* One binary for all processors, the loader picks. arch= brings FMA along, which plain "avx2" does not. */
#define CLONES __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* `count` numbers, WIDE of them but at the end of a row. */
INLINE vec load(const float *from, int64_t count) {
    vec x = {0};
    if (count >= WIDE)
        memcpy(&x, from, sizeof x);
    else
        memcpy(&x, from, (size_t)count * sizeof(float));
    return x;
}

INLINE void store(float *to, vec x, int64_t count) {
    if (count >= WIDE)
        memcpy(to, &x, sizeof x);
    else
        memcpy(to, &x, (size_t)count * sizeof(float));
}

INLINE vec chosen(ints mask, vec yes, vec no) { return (vec)(((ints)yes & mask) | ((ints)no & ~mask)); }

/* e^x to 1e-7: 2^n times a polynomial on [-ln2/2, ln2/2] (coefficients: Cephes, S. L. Moshier).
   NaN stays NaN. */
INLINE vec exponential(vec x) {
    const vec zero = {0};
    x = chosen(x > 88.0f, zero + 88.0f, chosen(x < -87.0f, zero - 87.0f, x));
    const vec shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: rounds, and its low bits are n */
    const vec n = shifted - 12582912.0f;
    const vec rest = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = zero + 1.9875691500e-4f;
    p = p * rest + 1.3981999507e-3f;
    p = p * rest + 8.3334519073e-3f;
    p = p * rest + 4.1665795894e-2f;
    p = p * rest + 1.6666665459e-1f;
    p = p * rest + 5.0000001201e-1f;
    p = p * rest * rest + rest + 1.0f;
    return p * (vec)(((ints)shifted << 23) + (127 << 23));
}

INLINE vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

/* By the exponential where that does not cancel, else by an odd polynomial (coefficients: Cephes). */
INLINE vec hyperbolic_tangent(vec x) {
    const vec zero = {0}, square = x * x;
    vec p = zero - 5.70498872745e-3f;
    p = p * square + 2.06390887954e-2f;
    p = p * square - 5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square - 3.33332819422e-1f;
    return chosen(square < 0.390625f, p * square * x + x, 2.0f * sigmoid(2.0f * x) - 1.0f);
}

/* ln x of positive x to 1e-7: the exponent, and a polynomial on [sqrt(1/2) - 1, sqrt(2) - 1] (coefficients:
   Cephes). Infinity and NaN stay what they are. */
INLINE vec logarithm(vec x) {
    const vec zero = {0};
    const ints exponent = ((ints)x - 0x3f3504f3) >> 23; /* of x / sqrt(1/2) */
    const vec e = __builtin_convertvector(exponent, vec);
    const vec rest = (vec)((ints)x - (exponent << 23)) - 1.0f, square = rest * rest;
    vec p = zero + 7.0376836292e-2f;
    p = p * rest - 1.1514610310e-1f;
    p = p * rest + 1.1676998740e-1f;
    p = p * rest - 1.2420140846e-1f;
    p = p * rest + 1.4249322787e-1f;
    p = p * rest - 1.6668057665e-1f;
    p = p * rest + 2.0000714765e-1f;
    p = p * rest - 2.4999993993e-1f;
    p = p * rest + 3.3333331174e-1f;
    const vec small = p * rest * square - 2.12194440e-4f * e - 0.5f * square;
    return chosen(x < __builtin_inff(), rest + small + 0.693359375f * e, x);
}
