/* The layers of a CAN (models/can.py), each fused with the normalisation and activation before it and with the
   moments of what it gives. Contiguous float32 images (H, W, C) of 24 or 32 channels. Their gradients:
   can_gradient.c. */

#include "can_layer.h"

/* For a processor and number of channels: how much room a thread needs, in floats of zeros, and one task of the
   work; of layers for tiles of 0 (direct), 2, 4 and 6 outputs. `moments`: 1 + 2 C doubles of some outputs: how
   many, means, sums of squares around them; of a layer one set for each `rows` rows of the phase. */
typedef struct {
    int64_t (*room[4])(int64_t width, int64_t dilation);
    void (*layer[4])(const Layer *of, int64_t phase, int64_t task, double *moments, float *room);
    int64_t (*first_room)(int64_t width, int64_t planes);
    void (*first)(const First *of, int64_t part, double *moments, float *room);
    void (*last)(const Last *of, int64_t part);
} Version;

#define PARTS "can_forward.h"
#include "can_processors.h"

/* The x86-64 level of this processor whose version runs; 1: the one for all. At most `limit`. */
int64_t compressnet_can_level(int64_t limit) {
#ifdef IS_X86
    if (limit >= 4 && __builtin_cpu_supports("x86-64-v4")) return 4;
    if (limit >= 3 && __builtin_cpu_supports("x86-64-v3")) return 3;
#endif
    (void)limit;
    return 1;
}

/* Moments of one part into those of all, 1 + 2 C doubles each. */
static void merge(double *to, const double *from, int64_t channels) {
    if (from[0] == 0) return;
    const double sum = to[0] + from[0];
    for (int64_t c = 1; c <= channels; c++) {
        const double off = from[c] - to[c];
        to[c] += off * (from[0] / sum);
        to[c + channels] += from[c + channels] + off * off * (to[0] * from[0] / sum);
    }
    to[0] = sum;
}

/* `moments`: `count` + 1 sets; the last one is the result, in a fixed order whatever the threads. */
static void sum_up(double *moments, int64_t count, int64_t channels) {
    const int64_t size = 1 + 2 * channels;
    for (int64_t i = 0; i < count; i++) merge(moments + count * size, moments + i * size, channels);
}

int64_t compressnet_can_room(int64_t channels, int64_t level, int64_t tiles, int64_t width, int64_t dilation) {
    return version(channels, level)->room[tiles / 2](width, dilation);
}

int64_t compressnet_can_first_room(int64_t channels, int64_t level, int64_t width, int64_t planes) {
    return version(channels, level)->first_room(width, planes);
}

/* All take a batch of images. `room`: `threads` times room[...] zeros. `moments`: of every image one set of zeros for
   each part, and one for the result. `scale`, `shift`: of the images, `apart` floats from one to the next. */
void compressnet_can_first(const float *pixels, float *image, const float *weights, double *moments, float *room,
                           int64_t channels, int64_t level, int64_t batch, int64_t height, int64_t width,
                           int64_t planes, int64_t sample, int64_t plane, int64_t row, int64_t column, int64_t rows,
                           int threads) {
    const Version *with = version(channels, level);
    const int64_t parts = parts_of(height, rows), size = 1 + 2 * channels, each = with->first_room(width, planes);
    const int64_t floats = height * width * channels;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1 && batch * parts > 1)
#endif
    for (int64_t i = 0; i < batch * parts; i++) {
        const int64_t b = i / parts;
        const First of = {pixels + b * sample, plane,  row,   column,  planes,
                          image + b * floats,  height, width, weights, rows};
        with->first(&of, i % parts, moments + (b + i) * size, room + thread() * each);
    }
    for (int64_t b = 0; b < batch; b++) sum_up(moments + b * (parts + 1) * size, parts, channels);
}

void compressnet_can_layer(const float *source, float *image, const float *scale, const float *shift,
                           const float *weights, float *saved, double *moments, float *room, int64_t channels,
                           int64_t level, int64_t tiles, int64_t batch, int64_t height, int64_t width,
                           int64_t dilation, int64_t rows, int64_t span, int64_t apart, int threads, float slope) {
    const Version *with = version(channels, level);
    const int64_t longest = parts_of(height, dilation), parts = parts_of(longest, rows);
    const int64_t phases = least(dilation, height), tasks = parts_of(longest, span);
    const int64_t own = phases * tasks, sets = phases * parts + 1, size = 1 + 2 * channels;
    const int64_t floats = height * width * channels, cuts = phases * (tasks - 1) * 2 * width * channels;
    const int64_t each = with->room[tiles / 2](width, dilation);
    const Layer first = {source, image,   height, width, dilation, scale, shift,
                         slope,  weights, saved,  rows,  span,     tasks};
    (void)threads;
    for (int64_t b = 0; b < batch && source == image; b++) {
        Layer of = first;
        of.source += b * floats;
        save_cuts(&of, saved + b * cuts, channels);
    }
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1 && batch * own > 1)
#endif
    for (int64_t i = 0; i < batch * own; i++) {
        const int64_t b = i / own, phase = i % own / tasks;
        Layer of = first;
        of.source += b * floats, of.image += b * floats, of.saved += b * cuts;
        of.scale += b * apart, of.shift += b * apart;
        with->layer[tiles / 2](&of, phase, i % tasks, moments + (b * sets + phase * parts) * size,
                               room + thread() * each);
    }
    for (int64_t b = 0; b < batch; b++) sum_up(moments + b * sets * size, sets - 1, channels);
}

void compressnet_can_last(const float *image, const float *scale, const float *shift, const float *weights,
                          const float *bias, float *out, int64_t channels, int64_t level, int64_t batch,
                          int64_t height, int64_t width, int64_t planes, int64_t sample, int64_t plane, int64_t row,
                          int64_t column, int64_t rows, int64_t apart, int threads, float slope) {
    const Version *with = version(channels, level);
    const int64_t parts = parts_of(height, rows);
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && batch * parts > 1)
#endif
    for (int64_t i = 0; i < batch * parts; i++) {
        const int64_t b = i / parts;
        const Last of = {image + b * height * width * channels, height, width,
                         scale + b * apart, shift + b * apart, slope, weights, bias,
                         out + b * sample, plane, row, column, planes, rows};
        with->last(&of, i % parts);
    }
}
