/* The first and the last layer of a CAN; part of can_width.h. */

#define first_row NAMED(first_row)
INLINE int64_t first_row(int64_t width) { return width + 2 + BLOCK; }

#define first_room NAMED(first_room)
static int64_t first_room(int64_t width, int64_t planes) { return 3 * planes * first_row(width); }

/* A ring of three rows of each plane. */
#define first NAMED(first)
static void first(const First *of, int64_t part, double *moments, float *ring) {
    const int64_t width = of->width, floats = first_row(width);
    const int64_t begin = part * of->rows, end = least(of->height, begin + of->rows);
    int64_t ready = begin ? begin - 1 : 0;
    for (int64_t y = begin; y < end; y++) {
        for (; ready < least(of->height, y + 2); ready++)
            for (int64_t c = 0; c < of->planes; c++) {
                float *to = ring + (ready % 3 * of->planes + c) * floats + 1;
                const float *from = of->pixels + c * of->plane + ready * of->row;
                for (int64_t x = 0; x < width; x++) to[x] = from[x * of->column];
            }
        Sums sums;
        begin_sums(&sums, moments);
        float *to = of->image + y * width * CH;
        for (int64_t x = 0; x < width; x += BLOCK) {
            vec found[BLOCK][VECTORS];
            clear(found);
            for (int tap = 0; tap < 9; tap++) {
                const int64_t row = y + tap / 3 - 1;
                if (row < 0 || row >= of->height) continue;
                for (int64_t c = 0; c < of->planes; c++) {
                    const float *from = ring + (row % 3 * of->planes + c) * floats + x + tap % 3;
                    const float *w = of->weights + (tap * of->planes + c) * CH;
                    vec weights[VECTORS];
                    UNROLLED for (int n = 0; n < VECTORS; n++) weights[n] = load(w + n * WIDE);
                    UNROLLED for (int i = 0; i < BLOCK; i++) {
                        const vec each = all(from[i]);
                        UNROLLED for (int n = 0; n < VECTORS; n++) found[i][n] += each * weights[n];
                    }
                }
            }
            put_block(to + x * CH, found, width - x, &sums, moments[0] == 0 && x == 0);
        }
        end_sums(&sums, moments);
    }
}

/* The sum of all lanes, by halves. */
#define lanes NAMED(lanes)
INLINE float lanes(vec x) {
    typedef float half __attribute__((vector_size(2 * WIDE)));
    typedef float quarter __attribute__((vector_size(WIDE)));
    half low, high;
    memcpy(&low, &x, sizeof low);
    memcpy(&high, (const char *)&x + sizeof low, sizeof high);
    low += high;
    quarter even, odd;
    memcpy(&even, &low, sizeof even);
    memcpy(&odd, (const char *)&low + sizeof even, sizeof odd);
    even += odd;
    float sum = 0;
    UNROLLED for (int i = 0; i < WIDE / 8; i++) sum += even[i] + even[i + WIDE / 8];
    return sum;
}

/* Pixel by pixel: the sum over its channels, for every plane. */
#define last NAMED(last)
static void last(const Last *of, int64_t part) {
    const int64_t begin = part * of->rows, end = least(of->height, begin + of->rows);
    vec scale[VECTORS], shift[VECTORS];
    const vec slope = all(of->slope);
    for (int n = 0; n < VECTORS; n++) scale[n] = load(of->scale + n * WIDE), shift[n] = load(of->shift + n * WIDE);
    for (int64_t y = begin; y < end; y++) {
        const float *from = of->image + y * of->width * CH;
        for (int64_t x = 0; x < of->width; x++, from += CH) {
            vec values[VECTORS];
            UNROLLED for (int n = 0; n < VECTORS; n++)
                values[n] = activated(load(from + n * WIDE), scale[n], shift[n], slope);
            for (int64_t c = 0; c < of->planes; c++) {
                vec sum = {0};
                UNROLLED for (int n = 0; n < VECTORS; n++) sum += values[n] * load(of->weights + c * CH + n * WIDE);
                of->out[c * of->plane + y * of->row + x * of->column] = of->bias[c] + lanes(sum);
            }
        }
    }
}
#undef first_row
#undef lanes
