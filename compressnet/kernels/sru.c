/* The elementwise recurrence of SRU, forward and backward (formulas: layers/sru_recurrence.py). Plain C.

   u and du are (T, B, 3, H), planes z, f, r; highway, cells, h and their gradients (T, B, H); v and bias (2, H),
   planes f and r; c0, last, dc_last and dc0 (B, H); dparameters (B, 4, H): v_f, v_r, b_f, b_r, to be summed
   over B. All float32 and contiguous. v may be NULL (version 1), and cells of the forward pass where no
   gradient will be asked for.

   A task is one batch row and TILE cells. It walks the time axis with its cells in registers or the level-1
   cache and writes what no other task writes. */

#include "vectors.h"

#define TILE 64
/* Cells and steps below which waking other threads takes longer than the work. */
#define SMALL 16384

INLINE vec activated(vec c, int is_tanh) { return is_tanh ? hyperbolic_tangent(c) : c; }

/* Of a row of v, which version 1 has not. */
INLINE vec load_or_zero(const float *from, int64_t at, int64_t count) {
    const vec zero = {0};
    return from ? load(from + at, count) : zero;
}

typedef struct {
    const float *u, *highway, *v, *bias, *c0;
    int64_t steps, batch, hidden;
    int is_tanh, is_reverse;
} Recurrence;

typedef struct {
    float *h, *last, *cells;
} Outputs;

CLONES void compressnet_sru_forward_tile(const Recurrence *of, const Outputs *to, int64_t row, int64_t first) {
    const int64_t hidden = of->hidden, width = hidden - first < TILE ? hidden - first : TILE;
    const int is_tanh = of->is_tanh, is_kept = to->cells != NULL;
    const float *v = of->v ? of->v + first : NULL, *bias = of->bias + first;
    const int64_t own = row * hidden + first;
    vec cells[TILE / WIDE];
    for (int64_t j = 0; j < width; j += WIDE) cells[j / WIDE] = load(of->c0 + own + j, width - j);
    for (int64_t step = 0; step < of->steps; step++) {
        const int64_t t = of->is_reverse ? of->steps - 1 - step : step, at = t * of->batch + row;
        const float *u = of->u + 3 * at * hidden + first, *highway = of->highway + at * hidden + first;
        float *h = to->h + at * hidden + first, *kept = is_kept ? to->cells + at * hidden + first : NULL;
        for (int64_t j = 0; j < width; j += WIDE) {
            const int64_t n = width - j;
            const vec before = cells[j / WIDE], z = load(u + j, n), x = load(highway + j, n);
            const vec f = sigmoid(load(u + hidden + j, n) + load_or_zero(v, j, n) * before + load(bias + j, n));
            const vec r = sigmoid(load(u + 2 * hidden + j, n) + load_or_zero(v, hidden + j, n) * before +
                                  load(bias + hidden + j, n));
            const vec now = z + f * (before - z);
            cells[j / WIDE] = now;
            if (is_kept) store(kept + j, now, n);
            store(h + j, x + r * (activated(now, is_tanh) - x), n);
        }
    }
    for (int64_t j = 0; j < width; j += WIDE) store(to->last + own + j, cells[j / WIDE], width - j);
}

typedef struct {
    const float *cells, *dh, *dc_last;
    float *du, *dhighway, *dparameters, *dc0;
} Gradients;

CLONES void compressnet_sru_backward_tile(const Recurrence *of, const Gradients *to, int64_t row, int64_t first) {
    const int64_t hidden = of->hidden, width = hidden - first < TILE ? hidden - first : TILE;
    const int64_t frame = of->batch * hidden;
    const int is_tanh = of->is_tanh;
    const float *v = of->v ? of->v + first : NULL, *bias = of->bias + first;
    const float *c0 = of->c0 + row * hidden + first;
    vec later[TILE / WIDE], sums[4][TILE / WIDE];
    memset(sums, 0, sizeof sums);
    for (int64_t j = 0; j < width; j += WIDE)
        later[j / WIDE] = load(to->dc_last + row * hidden + first + j, width - j);
    for (int64_t step = of->steps - 1; step >= 0; step--) {
        const int64_t t = of->is_reverse ? of->steps - 1 - step : step, at = t * of->batch + row;
        const float *u = of->u + 3 * at * hidden + first, *highway = of->highway + at * hidden + first;
        const float *now = to->cells + at * hidden + first, *dh = to->dh + at * hidden + first;
        const float *before = step == 0 ? c0 : of->is_reverse ? now + frame : now - frame;
        float *du = to->du + 3 * at * hidden + first, *dx = to->dhighway + at * hidden + first;
        for (int64_t j = 0; j < width; j += WIDE) {
            const int64_t n = width - j, k = j / WIDE;
            const vec vf = load_or_zero(v, j, n), vr = load_or_zero(v, hidden + j, n), c1 = load(before + j, n);
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
                             const float *c0, float *h, float *last, float *cells, int64_t steps, int64_t batch,
                             int64_t hidden, int is_tanh, int is_reverse, int threads) {
    const Recurrence of = {u, highway, v, bias, c0, steps, batch, hidden, is_tanh, is_reverse};
    const Outputs to = {h, last, cells};
    const int64_t tiles = (hidden + TILE - 1) / TILE;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) \
    if (threads > 1 && steps * batch * hidden >= SMALL)
#endif
    for (int64_t task = 0; task < batch * tiles; task++)
        compressnet_sru_forward_tile(&of, &to, task / tiles, task % tiles * TILE);
}

void compressnet_sru_backward(const float *u, const float *highway, const float *v, const float *bias,
                              const float *c0, const float *cells, const float *dh, const float *dc_last,
                              float *du, float *dhighway, float *dparameters, float *dc0, int64_t steps,
                              int64_t batch, int64_t hidden, int is_tanh, int is_reverse, int threads) {
    const Recurrence of = {u, highway, v, bias, c0, steps, batch, hidden, is_tanh, is_reverse};
    const Gradients to = {cells, dh, dc_last, du, dhighway, dparameters, dc0};
    const int64_t tiles = (hidden + TILE - 1) / TILE;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) \
    if (threads > 1 && steps * batch * hidden >= SMALL)
#endif
    for (int64_t task = 0; task < batch * tiles; task++)
        compressnet_sru_backward_tile(&of, &to, task / tiles, task % tiles * TILE);
}
