/* The walk of an LSTM of 1997 over time, without gradient (formulas: layers/lstm_1997.py). Plain C.

   sums and units are (T, B, n), n = blocks·size + 2·blocks: cells, input gates, output gates; weight is (n, n),
   its rows the units that are fed back; fed_back (B, n); cells (B, blocks·size), before and, overwritten, after.
   All float32 and contiguous, n at most MOST: one thread walks one sequence, all units in its registers or the
   level-1 cache. */

#include "vectors.h"

#define MOST 64

typedef struct {
    const float *sums, *weight, *fed_back;
    float *cells, *units;
    int64_t steps, batch, blocks, size;
} Walk;

CLONES void compressnet_lstm_1997_row(const Walk *of, int64_t row) {
    const int64_t in_cells = of->blocks * of->size, n = in_cells + 2 * of->blocks;
    float squashed[MOST + WIDE], inside[MOST + WIDE] = {0};
    const float *before = of->fed_back + row * n;
    memcpy(inside, of->cells + row * in_cells, (size_t)in_cells * sizeof(float));
    for (int64_t t = 0; t < of->steps; t++) {
        const float *sums = of->sums + (t * of->batch + row) * n;
        float *units = of->units + (t * of->batch + row) * n;
        for (int64_t j = 0; j < n; j += WIDE) {
            vec sum = load(sums + j, n - j);
            for (int64_t i = 0; i < n; i++) sum += before[i] * load(of->weight + i * n + j, n - j);
            store(squashed + j, sigmoid(sum), WIDE);
        }
        for (int64_t k = 0; k < in_cells; k++)
            inside[k] += squashed[in_cells + k / of->size] * (4.0f * squashed[k] - 2.0f);
        for (int64_t k = 0; k < in_cells; k += WIDE)
            store(units + k, hyperbolic_tangent(0.5f * load(inside + k, WIDE)), in_cells - k);
        for (int64_t k = 0; k < in_cells; k++) units[k] *= squashed[in_cells + of->blocks + k / of->size];
        memcpy(units + in_cells, squashed + in_cells, (size_t)(2 * of->blocks) * sizeof(float));
        before = units;
    }
    memcpy(of->cells + row * in_cells, inside, (size_t)in_cells * sizeof(float));
}

void compressnet_lstm_1997_walk(const float *sums, const float *weight, const float *fed_back, float *cells,
                                float *units, int64_t steps, int64_t batch, int64_t blocks, int64_t size) {
    const Walk of = {sums, weight, fed_back, cells, units, steps, batch, blocks, size};
    for (int64_t row = 0; row < batch; row++) compressnet_lstm_1997_row(&of, row);
}
