/* The middle layers without transforms; part of can_width.h. Weights: (9, C, C). */

#define room SIZED(room, M)
static int64_t room(int64_t width, int64_t dilation) { return 3 * direct_floats(width, dilation); }

#define layer SIZED(layer, M)
static void layer(const Layer *of, int64_t phase, int64_t task, double *moments, float *space) {
    const int64_t d = of->dilation, width = of->width, rows = parts_of(of->height - phase, d);
    const int64_t begin = task * of->span, end = least(rows, begin + of->span);
    float *ring = space;
    int64_t ready = begin ? begin - 1 : 0;
    for (int64_t y = begin; y < end; y++) {
        for (; ready < least(rows, y + 2); ready++)
            activate(of, raw_row(of, phase, task, ready), ring + ready % 3 * direct_floats(width, d) + d * CH);
        Sums sums;
        double *own = moments + y / of->rows * (1 + 2 * CH);
        begin_sums(&sums, own);
        float *to = of->image + (phase + y * d) * width * CH;
        for (int64_t x = 0; x < width; x += BLOCK) {
            vec found[BLOCK][VECTORS];
            convolve_block(found, ring, y, x, rows, width, d, of->weights);
            put_block(to + x * CH, found, width - x, &sums, own[0] == 0 && x == 0);
        }
        end_sums(&sums, own);
    }
}
#undef room
#undef layer
