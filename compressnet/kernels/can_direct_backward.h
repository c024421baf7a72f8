/* The backward pass of the middle layers without transforms; part of can_width.h. Weights: (9, C, C). */

#define room SIZED(room, M)
static int64_t room(int64_t width, int64_t dilation) { return 6 * direct_floats(width, dilation); }

#define CHUNK 64 /* pixels whose activations and gradients stay in the first cache for all taps */

/* The weights' gradient by a row of outputs. */
#define add_weights SIZED(add_weights, M)
INLINE void add_weights(const Gradient *of, const float *inputs, const float *gradient, int64_t y, int64_t rows,
                        float *weights) {
    const int64_t d = of->layer.dilation, width = of->layer.width, floats = direct_floats(width, d);
    for (int64_t x = 0; x < width; x += CHUNK)
        for (int64_t tap = 0; tap < 9; tap++) {
            const int64_t row = y + tap / 3 - 1, across = tap % 3;
            if (row < 0 || row >= rows) continue;
            const int64_t begin = across == 0 && x < d ? d : x;
            const int64_t end = least(x + CHUNK, across == 2 ? width - d : width);
            if (begin < end)
                add_outer(inputs + row % 3 * floats + (begin + across * d) * CH, gradient + (begin + d) * CH,
                          end - begin, weights + tap * CH * CH);
        }
}

/* The inputs' gradient at a block of pixels. */
#define put_inputs SIZED(put_inputs, M)
INLINE void put_inputs(const Gradient *of, vec found[BLOCK][VECTORS], int64_t place, int64_t count, Products *sums) {
    float values[BLOCK * CH];
    UNROLLED for (int i = 0; i < BLOCK; i++)
        UNROLLED for (int n = 0; n < VECTORS; n++) store(values + i * CH + n * WIDE, found[i][n]);
    for (int n = 0; n < VECTORS; n++) {
        const Slope slope = slope_of(of, n);
        for (int64_t i = 0; i < count; i++) {
            const int64_t at = place + i * CH + n * WIDE;
            put_gradient(of->layer.image + at, of->before + at, load(values + i * CH + n * WIDE), &slope,
                         &sums->g[n], &sums->products[n]);
        }
    }
}

#define put_row SIZED(put_row, M)
INLINE void put_row(const Gradient *of, const float *ring, int64_t phase, int64_t y, int64_t rows, double *sums) {
    const int64_t d = of->layer.dilation, width = of->layer.width;
    Products own;
    begin_products(&own);
    for (int64_t x = 0; x < width; x += BLOCK) {
        vec found[BLOCK][VECTORS];
        convolve_block(found, ring, y, x, rows, width, d, of->layer.weights);
        put_inputs(of, found, ((phase + y * d) * width + x) * CH, least(BLOCK, width - x), &own);
    }
    end_products(&own, sums);
}

#define middle SIZED(middle, M)
static void middle(const Gradient *of, int64_t phase, int64_t task, float *weights, double *sums, float *space) {
    const int64_t d = of->layer.dilation, width = of->layer.width, rows = parts_of(of->layer.height - phase, d);
    const int64_t begin = task * of->layer.span, end = least(rows, begin + of->layer.span);
    const int64_t floats = direct_floats(width, d);
    float *inputs = space, *gradient = space + 3 * floats;
    int64_t ready = begin ? begin - 1 : 0;
    for (int64_t y = begin; y < end; y++) {
        for (; ready < least(rows, y + 2); ready++) {
            const int64_t place = (phase + ready * d) * width * CH, ring = ready % 3 * floats + d * CH;
            activate(&of->layer, of->before + place, inputs + ring);
            through_norm(of->normalised, raw_row(&of->layer, phase, task, ready), of->raw + place, gradient + ring,
                         width);
        }
        add_weights(of, inputs, gradient + y % 3 * floats, y, rows, weights);
        put_row(of, gradient, phase, y, rows, sums);
    }
}

#undef room
#undef CHUNK
#undef add_weights
#undef put_inputs
#undef put_row
#undef middle
