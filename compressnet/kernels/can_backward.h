/* The gradients of the layers of a CAN; part of can_width.h. */

/* The gradient behind a leaky ReLU to that before it. Winograd's filtering makes +-1e-8 of exact zeros, whose
   slopes would fall by chance: what is at most `least` counts as negative, as zero does. */
#define through_slope NAMED(through_slope)
INLINE vec through_slope(vec z, vec least, vec g, vec slope) {
    typedef int32_t ints __attribute__((vector_size(4 * WIDE)));
    const ints above = z > least;
    return (vec)(((ints)g & above) | ((ints)(g * slope) & ~above));
}

/* A row of D of can_gradient.h. */
#define through_norm NAMED(through_norm)
INLINE void through_norm(const float *normalised, const float *g, const float *raw, float *to, int64_t width) {
    vec numbers[4][VECTORS];
    for (int k = 0; k < 4; k++)
        for (int n = 0; n < VECTORS; n++) numbers[k][n] = load(normalised + k * CH + n * WIDE);
    for (int64_t x = 0; x < width; x++, g += CH, raw += CH, to += CH)
        UNROLLED for (int n = 0; n < VECTORS; n++) {
            const vec off = load(raw + n * WIDE) - numbers[3][n];
            store(to + n * WIDE, load(g + n * WIDE) * numbers[0][n] + (off * numbers[1][n] + numbers[2][n]));
        }
}

#if WIDE == 16 || defined(__AVX512VL__)
#define OUTER (VECTORS == 3 ? 6 : 8) /* rows of an outer product whose sums are in registers */
#define PAIRS 9                      /* rows of pixels of the first layer */
#else
#define OUTER (VECTORS == 3 ? 4 : 2)
#define PAIRS 3
#endif

/* to (C, C) += a (count, C)' times d (count, C) */
#define add_outer NAMED(add_outer)
INLINE void add_outer(const float *a, const float *d, int64_t count, float *to) {
    for (int c = 0; c < CH; c += OUTER) {
        vec sums[OUTER][VECTORS];
        UNROLLED for (int i = 0; i < OUTER; i++)
            UNROLLED for (int n = 0; n < VECTORS; n++) sums[i][n] = (vec){0};
        _Pragma("GCC unroll 2") for (int64_t t = 0; t < count; t++) {
            vec row[VECTORS];
            UNROLLED for (int n = 0; n < VECTORS; n++) row[n] = load(d + t * CH + n * WIDE);
            UNROLLED for (int i = 0; i < OUTER; i++) {
                const vec each = all(a[t * CH + c + i]);
                UNROLLED for (int n = 0; n < VECTORS; n++) sums[i][n] += each * row[n];
            }
        }
        UNROLLED for (int i = 0; i < OUTER; i++)
            UNROLLED for (int n = 0; n < VECTORS; n++) {
                float *place = to + (c + i) * CH + n * WIDE;
                store(place, load(place) + sums[i][n]);
            }
    }
}

/* Sums over outputs of g and of g * (Q - mean). */
#define Products NAMED(Products)
typedef struct {
    vec g[VECTORS], products[VECTORS];
} Products;

#define begin_products NAMED(begin_products)
INLINE void begin_products(Products *to) {
    for (int n = 0; n < VECTORS; n++) to->g[n] = to->products[n] = (vec){0};
}

#define end_products NAMED(end_products)
INLINE void end_products(const Products *from, double *sums) {
    float g[CH], products[CH];
    for (int n = 0; n < VECTORS; n++) {
        store(g + n * WIDE, from->g[n]);
        store(products + n * WIDE, from->products[n]);
    }
    for (int c = 0; c < CH; c++) sums[c] += g[c], sums[CH + c] += products[c];
}

/* What vector n of the layer before needs at each pixel. */
#define Slope NAMED(Slope)
typedef struct {
    vec scale, shift, mean, least, slope;
} Slope;

#define slope_of NAMED(slope_of)
INLINE Slope slope_of(const Gradient *of, int n) {
    const Slope found = {load(of->layer.scale + n * WIDE), load(of->layer.shift + n * WIDE),
                         load(of->mean + n * WIDE), load(of->least + n * WIDE), all(of->layer.slope)};
    return found;
}

#define put_gradient NAMED(put_gradient)
INLINE void put_gradient(float *to, const float *before, vec found, const Slope *at, vec *sum, vec *products) {
    const vec q = load(before), g = through_slope(q * at->scale + at->shift, at->least, found, at->slope);
    store(to, g);
    *sum += g;
    *products += g * (q - at->mean);
}

#define M 2
#include "can_winograd_backward.h"
#undef M
#define M 4
#include "can_winograd_backward.h"
#undef M
#define M 0
#include "can_direct_backward.h"
#undef M
#include "can_ends_backward.h"

static const Version NAMED(version) = {
    {SIZED(room, 0), SIZED(room, 2), SIZED(room, 4)},
    {SIZED(middle, 0), SIZED(middle, 2), SIZED(middle, 4)},
    first_room,
    first,
    last,
};

#undef through_slope
#undef through_norm
#undef OUTER
#undef PAIRS
#undef add_outer
#undef Products
#undef begin_products
#undef end_products
#undef Slope
#undef slope_of
#undef put_gradient
#undef first_room
#undef first
#undef last
