/* What an LSTM computes at one step besides matrix products, forward and backward (formulas: layers/lstm.py).

   All float32 and contiguous, B sequences of H cells. sums, recurrent, gates and dsums are (B, G, H): planes
   i, f, g, o, or f, g, o (G = 3) where i = 1 - f; sums come from the input, recurrent from the step before, and
   gates is what their total becomes. peephole is (G-1, H): of i, f and o, or of f and o; NULL: none.
   dpeephole (B, G-1, H) is added to, and to be summed over B. */

#include "vectors.h"

#define TILE 64

typedef struct {
    const float *sums, *recurrent, *peephole, *before;
    float *gates, *c, *m; /* gates: NULL where nobody needs them later */
    int64_t batch, hidden, count;
} Step;

CLONES void compressnet_lstm_forward_tile(const Step *of, int64_t row, int64_t first) {
    const int64_t hidden = of->hidden, width = hidden - first < TILE ? hidden - first : TILE;
    const int is_coupled = of->count == 3;
    const int64_t at = row * hidden + first, wide = row * of->count * hidden + first;
    const int64_t forget = is_coupled ? 0 : hidden, cell = forget + hidden, output = cell + hidden;
    const float *sums = of->sums + wide, *recurrent = of->recurrent + wide, *w = of->peephole;
    for (int64_t j = 0; j < width; j += WIDE) {
        const int64_t n = width - j;
        const vec before = load(of->before + at + j, n);
        vec i = {0}, f = load(sums + forget + j, n) + load(recurrent + forget + j, n);
        if (!is_coupled) i = load(sums + j, n) + load(recurrent + j, n);
        if (w) {
            if (!is_coupled) i += load(w + first + j, n) * before;
            f += load(w + forget + first + j, n) * before;
        }
        i = sigmoid(i), f = sigmoid(f);
        const vec g = hyperbolic_tangent(load(sums + cell + j, n) + load(recurrent + cell + j, n));
        const vec now = is_coupled ? g + f * (before - g) : f * before + i * g;
        vec o = load(sums + output + j, n) + load(recurrent + output + j, n);
        if (w) o += load(w + forget + hidden + first + j, n) * now;
        o = sigmoid(o);
        store(of->c + at + j, now, n);
        store(of->m + at + j, o * hyperbolic_tangent(now), n);
        if (of->gates) {
            float *gates = of->gates + wide + j;
            if (!is_coupled) store(gates, i, n);
            store(gates + forget, f, n);
            store(gates + cell, g, n);
            store(gates + output, o, n);
        }
    }
}

typedef struct {
    const float *gates, *c, *before, *peephole, *dm, *dc_given; /* dc_given: NULL or what c itself gets */
    float *dc, *dsums, *dpeephole;                              /* dc: from the step after; then for that before */
    int64_t batch, hidden, count;
} Back;

INLINE void add_to(float *sum, vec x, int64_t count) { store(sum, load(sum, count) + x, count); }

CLONES void compressnet_lstm_backward_tile(const Back *of, int64_t row, int64_t first) {
    const int64_t hidden = of->hidden, width = hidden - first < TILE ? hidden - first : TILE;
    const int is_coupled = of->count == 3;
    const int64_t at = row * hidden + first, wide = row * of->count * hidden + first;
    const int64_t forget = is_coupled ? 0 : hidden, cell = forget + hidden, output = cell + hidden;
    const float *w = of->peephole;
    float *dw = of->dpeephole + row * (of->count - 1) * hidden + first;
    for (int64_t j = 0; j < width; j += WIDE) {
        const int64_t n = width - j;
        const float *gates = of->gates + wide + j;
        float *dsums = of->dsums + wide + j;
        const vec f = load(gates + forget, n), g = load(gates + cell, n), o = load(gates + output, n);
        const vec before = load(of->before + at + j, n), now = load(of->c + at + j, n);
        const vec out = hyperbolic_tangent(now), dm = load(of->dm + at + j, n);
        const vec es = dm * out * o * (1.0f - o);
        vec dc = load(of->dc + at + j, n) + dm * o * (1.0f - out * out);
        if (of->dc_given) dc += load(of->dc_given + at + j, n);
        if (w) dc += es * load(w + forget + hidden + first + j, n);
        vec i = 1.0f - f, ei = {0}, ef = dc * (before - g);
        if (!is_coupled) {
            i = load(gates, n);
            ei = dc * g * i * (1.0f - i);
            ef = dc * before;
            store(dsums, ei, n);
        }
        ef = ef * f * (1.0f - f);
        store(dsums + forget, ef, n);
        store(dsums + cell, dc * i * (1.0f - g * g), n);
        store(dsums + output, es, n);
        vec earlier = dc * f;
        if (w) {
            if (!is_coupled) {
                earlier += ei * load(w + first + j, n);
                add_to(dw + j, ei * before, n);
            }
            earlier += ef * load(w + forget + first + j, n);
            add_to(dw + forget + j, ef * before, n);
            add_to(dw + forget + hidden + j, es * now, n);
        }
        store(of->dc + at + j, earlier, n);
    }
}

/* Below so many cells a step is over before a second thread has begun. */
#define WORTH_THREADS 8192

void compressnet_lstm_forward(const float *sums, const float *recurrent, const float *peephole, const float *before,
                              float *gates, float *c, float *m, int64_t batch, int64_t hidden, int64_t count,
                              int threads) {
    const Step of = {sums, recurrent, peephole, before, gates, c, m, batch, hidden, count};
    const int64_t tiles = (hidden + TILE - 1) / TILE;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && batch * hidden >= WORTH_THREADS)
#endif
    for (int64_t task = 0; task < batch * tiles; task++)
        compressnet_lstm_forward_tile(&of, task / tiles, task % tiles * TILE);
}

void compressnet_lstm_backward(const float *gates, const float *c, const float *before, const float *peephole,
                               const float *dm, const float *dc_given, float *dc, float *dsums, float *dpeephole,
                               int64_t batch, int64_t hidden, int64_t count, int threads) {
    const Back of = {gates, c, before, peephole, dm, dc_given, dc, dsums, dpeephole, batch, hidden, count};
    const int64_t tiles = (hidden + TILE - 1) / TILE;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && batch * hidden >= WORTH_THREADS)
#endif
    for (int64_t task = 0; task < batch * tiles; task++)
        compressnet_lstm_backward_tile(&of, task / tiles, task % tiles * TILE);
}
