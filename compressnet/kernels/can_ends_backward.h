/* The backward pass of the first and the last layer of a CAN; part of can_width.h. */

#define first_row NAMED(first_row)
INLINE int64_t first_row(int64_t width) { return width + 2; }

#define first_room NAMED(first_room)
static int64_t first_room(int64_t width, int64_t planes) { return 3 * planes * first_row(width) + width * CH; }

/* Products of a row of gradients with `count` rows of pixels, added to (count, C). */
#define add_row_products NAMED(add_row_products)
INLINE void add_row_products(const float *const *pixels, const float *gradient, int64_t width, const int count,
                             double *to) {
    vec sums[PAIRS][VECTORS];
    UNROLLED for (int k = 0; k < count; k++)
        UNROLLED for (int n = 0; n < VECTORS; n++) sums[k][n] = (vec){0};
    for (int64_t x = 0; x < width; x++) {
        vec row[VECTORS];
        UNROLLED for (int n = 0; n < VECTORS; n++) row[n] = load(gradient + x * CH + n * WIDE);
        UNROLLED for (int k = 0; k < count; k++) {
            const vec each = all(pixels[k][x]);
            UNROLLED for (int n = 0; n < VECTORS; n++) sums[k][n] += each * row[n];
        }
    }
    for (int k = 0; k < count; k++) {
        float found[CH];
        for (int n = 0; n < VECTORS; n++) store(found + n * WIDE, sums[k][n]);
        for (int c = 0; c < CH; c++) to[k * CH + c] += found[c];
    }
}

/* A ring of three rows of each plane, and a row of D. */
#define first NAMED(first)
static void first(const FirstGradient *of, int64_t part, double *weights, float *ring) {
    const int64_t width = of->width, floats = first_row(width), planes = of->planes;
    const int64_t begin = part * of->rows, end = least(of->height, begin + of->rows);
    float *gradient = ring + 3 * planes * floats;
    int64_t ready = begin ? begin - 1 : 0;
    for (int64_t y = begin; y < end; y++) {
        for (; ready < least(of->height, y + 2); ready++)
            for (int64_t c = 0; c < planes; c++) {
                float *to = ring + (ready % 3 * planes + c) * floats + 1;
                const float *from = of->pixels + c * of->plane + ready * of->row;
                for (int64_t x = 0; x < width; x++) to[x] = from[x * of->column];
            }
        through_norm(of->normalised, of->gradient + y * width * CH, of->raw + y * width * CH, gradient, width);
        for (int64_t tap = 0; tap < 3; tap++) {
            const int64_t row = y + tap - 1;
            if (row < 0 || row >= of->height) continue;
            const float *pixels[3 * MOST_PLANES];
            for (int64_t k = 0; k < 3 * planes; k++)
                pixels[k] = ring + (row % 3 * planes + k % planes) * floats + k / planes;
            double *to = weights + tap * 3 * planes * CH;
            int64_t k = 0;
            for (; k + PAIRS <= 3 * planes; k += PAIRS)
                add_row_products(pixels + k, gradient, width, PAIRS, to + k * CH);
            for (; k < 3 * planes; k += 3) add_row_products(pixels + k, gradient, width, 3, to + k * CH);
        }
    }
}

#define CHUNK 512 /* pixels that are summed in float32 */

/* A piece of a row. */
#define last_piece NAMED(last_piece)
INLINE void last_piece(const LastGradient *of, const float *from, const float *before, float *to, int64_t count,
                       const int64_t planes, double *weights, double *sums) {
    Products own;
    begin_products(&own);
    vec found[MOST_PLANES][VECTORS];
    for (int64_t c = 0; c < planes; c++)
        for (int n = 0; n < VECTORS; n++) found[c][n] = (vec){0};
    for (int64_t x = 0; x < count; x++, from += of->column, before += CH, to += CH)
        UNROLLED for (int n = 0; n < VECTORS; n++) {
            const Slope at = {load(of->scale + n * WIDE), load(of->shift + n * WIDE), load(of->mean + n * WIDE),
                              load(of->least + n * WIDE), all(of->slope)};
            const vec active = activated(load(before + n * WIDE), at.scale, at.shift, at.slope);
            vec g = {0};
            UNROLLED for (int64_t c = 0; c < planes; c++) {
                const vec each = all(from[c * of->plane]);
                g += each * load(of->weights + c * CH + n * WIDE);
                found[c][n] += each * active;
            }
            put_gradient(to + n * WIDE, before + n * WIDE, g, &at, &own.g[n], &own.products[n]);
        }
    end_products(&own, sums);
    for (int64_t c = 0; c < planes; c++) {
        float total[CH];
        for (int n = 0; n < VECTORS; n++) store(total + n * WIDE, found[c][n]);
        for (int i = 0; i < CH; i++) weights[c * CH + i] += total[i];
    }
}

#define last NAMED(last)
static void last(const LastGradient *of, int64_t part, double *weights, double *sums) {
    const int64_t begin = part * of->rows, end = least(of->height, begin + of->rows), width = of->width;
    for (int64_t y = begin; y < end; y++)
        for (int64_t x = 0; x < width; x += CHUNK) {
            const float *from = of->planes_gradient + y * of->row + x * of->column;
            const int64_t place = (y * width + x) * CH, count = least(CHUNK, width - x);
            const int64_t planes = of->planes;
            if (planes == 3)
                last_piece(of, from, of->before + place, of->image + place, count, 3, weights, sums);
            else
                last_piece(of, from, of->before + place, of->image + place, count, planes, weights, sums);
        }
}

#undef CHUNK
#undef first_row
#undef add_row_products
#undef last_piece
