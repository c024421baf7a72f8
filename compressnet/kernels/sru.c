/* The elementwise recurrence of SRU, forward and backward (formulas: layers/sru_recurrence.py). Plain C.

   u and du are (T, B, 3, H), planes z, f, r; highway, c, h and their gradients (T, B, H); v and bias (2, H),
   planes f and r; c0, dc_last and dc0 (B, H); dparameters (B, 4, H): v_f, v_r, b_f, b_r, to be summed over B.
   All float32 and contiguous.

   A task is one batch row and TILE cells. It walks the time axis with its cells in registers or the level-1
   cache and writes what no other task writes. Vectors are written out, 32 bytes wide: copies that
   target_clones makes are not vectorised by gcc 12 on its own (24 times slower), and 64 bytes gain nothing. */

#include <stdint.h>
#include <string.h>

#define WIDE 8
#define TILE 64

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

INLINE vec activated(vec c, int is_tanh) { return is_tanh ? 2.0f * sigmoid(2.0f * c) - 1.0f : c; }

typedef struct {
    const float *u, *highway, *v, *bias, *c0;
    int64_t steps, batch, hidden;
    int is_tanh, is_reverse;
} Recurrence;

CLONES void compressnet_sru_forward_tile(const Recurrence *of, float *h, float *c, int64_t row, int64_t first) {
    const int64_t hidden = of->hidden, width = hidden - first < TILE ? hidden - first : TILE;
    const int is_tanh = of->is_tanh;
    const float *v = of->v + first, *bias = of->bias + first;
    vec cells[TILE / WIDE];
    for (int64_t j = 0; j < width; j += WIDE) cells[j / WIDE] = load(of->c0 + row * hidden + first + j, width - j);
    for (int64_t step = 0; step < of->steps; step++) {
        const int64_t t = of->is_reverse ? of->steps - 1 - step : step, at = t * of->batch + row;
        const float *u = of->u + 3 * at * hidden + first, *highway = of->highway + at * hidden + first;
        float *ht = h + at * hidden + first, *ct = c + at * hidden + first;
        for (int64_t j = 0; j < width; j += WIDE) {
            const int64_t n = width - j;
            const vec before = cells[j / WIDE], z = load(u + j, n), x = load(highway + j, n);
            const vec f = sigmoid(load(u + hidden + j, n) + load(v + j, n) * before + load(bias + j, n));
            const vec r = sigmoid(load(u + 2 * hidden + j, n) + load(v + hidden + j, n) * before +
                                  load(bias + hidden + j, n));
            const vec now = z + f * (before - z);
            cells[j / WIDE] = now;
            store(ct + j, now, n);
            store(ht + j, x + r * (activated(now, is_tanh) - x), n);
        }
    }
}

typedef struct {
    const float *c, *dh, *dc_last;
    float *du, *dhighway, *dparameters, *dc0;
} Gradients;

CLONES void compressnet_sru_backward_tile(const Recurrence *of, const Gradients *to, int64_t row, int64_t first) {
    const int64_t hidden = of->hidden, width = hidden - first < TILE ? hidden - first : TILE;
    const int64_t frame = of->batch * hidden;
    const int is_tanh = of->is_tanh;
    const float *v = of->v + first, *bias = of->bias + first, *c0 = of->c0 + row * hidden + first;
    vec later[TILE / WIDE], sums[4][TILE / WIDE];
    memset(sums, 0, sizeof sums);
    for (int64_t j = 0; j < width; j += WIDE)
        later[j / WIDE] = load(to->dc_last + row * hidden + first + j, width - j);
    for (int64_t step = of->steps - 1; step >= 0; step--) {
        const int64_t t = of->is_reverse ? of->steps - 1 - step : step, at = t * of->batch + row;
        const float *u = of->u + 3 * at * hidden + first, *highway = of->highway + at * hidden + first;
        const float *now = to->c + at * hidden + first, *dh = to->dh + at * hidden + first;
        const float *before = step == 0 ? c0 : of->is_reverse ? now + frame : now - frame;
        float *du = to->du + 3 * at * hidden + first, *dx = to->dhighway + at * hidden + first;
        for (int64_t j = 0; j < width; j += WIDE) {
            const int64_t n = width - j, k = j / WIDE;
            const vec vf = load(v + j, n), vr = load(v + hidden + j, n), c1 = load(before + j, n);
            const vec z = load(u + j, n), x = load(highway + j, n), g = load(dh + j, n);
            const vec f = sigmoid(load(u + hidden + j, n) + vf * c1 + load(bias + j, n));
            const vec r = sigmoid(load(u + 2 * hidden + j, n) + vr * c1 + load(bias + hidden + j, n));
            const vec out = activated(load(now + j, n), is_tanh);
            const vec er = g * (out - x) * r * (1.0f - r);
            const vec dc = later[k] + g * r * (is_tanh ? 1.0f - out * out : out - out + 1.0f);
            const vec ef = dc * (c1 - z) * f * (1.0f - f);
            store(dx + j, g * (1.0f - r), n);
            store(du + j, dc * (1.0f - f), n);
            store(du + hidden + j, ef, n);
            store(du + 2 * hidden + j, er, n);
            later[k] = dc * f + ef * vf + er * vr;
            sums[0][k] += ef * c1;
            sums[1][k] += er * c1;
            sums[2][k] += ef;
            sums[3][k] += er;
        }
    }
    for (int64_t j = 0; j < width; j += WIDE) {
        for (int64_t which = 0; which < 4; which++)
            store(to->dparameters + (row * 4 + which) * hidden + first + j, sums[which][j / WIDE], width - j);
        store(to->dc0 + row * hidden + first + j, later[j / WIDE], width - j);
    }
}

void compressnet_sru_forward(const float *u, const float *highway, const float *v, const float *bias,
                             const float *c0, float *h, float *c, int64_t steps, int64_t batch, int64_t hidden,
                             int is_tanh, int is_reverse, int threads) {
    const Recurrence of = {u, highway, v, bias, c0, steps, batch, hidden, is_tanh, is_reverse};
    const int64_t tiles = (hidden + TILE - 1) / TILE;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
#endif
    for (int64_t task = 0; task < batch * tiles; task++)
        compressnet_sru_forward_tile(&of, h, c, task / tiles, task % tiles * TILE);
}

void compressnet_sru_backward(const float *u, const float *highway, const float *v, const float *bias,
                              const float *c0, const float *c, const float *dh, const float *dc_last, float *du,
                              float *dhighway, float *dparameters, float *dc0, int64_t steps, int64_t batch,
                              int64_t hidden, int is_tanh, int is_reverse, int threads) {
    const Recurrence of = {u, highway, v, bias, c0, steps, batch, hidden, is_tanh, is_reverse};
    const Gradients to = {c, dh, dc_last, du, dhighway, dparameters, dc0};
    const int64_t tiles = (hidden + TILE - 1) / TILE;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
#endif
    for (int64_t task = 0; task < batch * tiles; task++)
        compressnet_sru_backward_tile(&of, &to, task / tiles, task % tiles * TILE);
}
