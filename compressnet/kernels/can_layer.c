/* The layers of a CAN (models/can.py), each fused with the normalisation and activation before it and with the
   moments of what it gives. Contiguous float32 images (H, W, C) of 24 or 32 channels.

   One library for several processors. target_clones is no way here: it lowers vectors to those of the oldest
   processor before it copies a function (12 to 18 % slower). So the source is included once for each. */

#include "can_layer.h"

#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define PROCESSOR any
#define WIDE 8
#define CH 24
#include "can_width.h"
#undef CH
#define CH 32
#include "can_width.h"
#undef CH
#undef PROCESSOR

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define IS_X86 1
#pragma GCC push_options
#pragma GCC target("arch=x86-64-v3")
#define PROCESSOR v3
#define CH 24
#include "can_width.h"
#undef CH
#define CH 32
#include "can_width.h"
#undef CH
#undef PROCESSOR
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=x86-64-v4")
#define PROCESSOR v4
#define CH 24
#include "can_width.h"
#undef CH
#undef WIDE
#define WIDE 16
#define CH 32
#include "can_width.h"
#undef CH
#undef PROCESSOR
#pragma GCC pop_options
#endif

/* The x86-64 level of this processor whose version runs; 1: the one for all. At most `limit`. */
int64_t compressnet_can_level(int64_t limit) {
#ifdef IS_X86
    if (limit >= 4 && __builtin_cpu_supports("x86-64-v4")) return 4;
    if (limit >= 3 && __builtin_cpu_supports("x86-64-v3")) return 3;
#endif
    (void)limit;
    return 1;
}

static const Version *version(int64_t channels, int64_t level) {
#ifdef IS_X86
    if (level == 4) return channels == 24 ? &version_24_v4 : &version_32_v4;
    if (level == 3) return channels == 24 ? &version_24_v3 : &version_32_v3;
#endif
    (void)level;
    return channels == 24 ? &version_24_any : &version_32_any;
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

static int thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* `moments`: parts x phases + 1 sets; the last one is the result, in a fixed order whatever the threads. Room of
   `threads` times room[...] zeros. */
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

void compressnet_can_first(const float *pixels, float *image, const float *weights, double *moments, float *room,
                           int64_t channels, int64_t level, int64_t height, int64_t width, int64_t planes,
                           int64_t plane, int64_t row, int64_t column, int64_t rows, int threads) {
    const Version *with = version(channels, level);
    const First of = {pixels, plane, row, column, planes, image, height, width, weights, rows};
    const int64_t parts = parts_of(height, rows), size = 1 + 2 * channels, each = with->first_room(width, planes);
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1 && parts > 1)
#endif
    for (int64_t part = 0; part < parts; part++)
        with->first(&of, part, moments + part * size, room + thread() * each);
    sum_up(moments, parts, channels);
}

void compressnet_can_layer(float *image, const float *scale, const float *shift, const float *weights,
                           float *saved, double *moments, float *room, int64_t channels, int64_t level,
                           int64_t tiles, int64_t height, int64_t width, int64_t dilation, int64_t rows,
                           int64_t span, int threads, float slope) {
    const Version *with = version(channels, level);
    const int64_t longest = parts_of(height, dilation), parts = parts_of(longest, rows);
    const int64_t phases = least(dilation, height), size = 1 + 2 * channels;
    const int64_t tasks = parts_of(longest, span), cuts = tasks - 1;
    const Layer of = {image, height, width, dilation, scale, shift, slope, weights, saved, rows, span, tasks};
    const int64_t each = with->room[tiles / 2](width, dilation), floats = width * channels;
    (void)threads;
    for (int64_t cut = 0; cut < phases * cuts; cut++)
        for (int64_t i = 0; i < 2; i++) {
            const int64_t y = cut / cuts + ((cut % cuts + 1) * span - 1 + i) * dilation;
            if (y < height)
                memcpy(saved + (cut * 2 + i) * floats, image + y * floats, sizeof(float) * (size_t)floats);
        }
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (threads > 1 && phases * tasks > 1)
#endif
    for (int64_t i = 0; i < phases * tasks; i++)
        with->layer[tiles / 2](&of, i / tasks, i % tasks, moments + i / tasks * parts * size,
                               room + thread() * each);
    sum_up(moments, phases * parts, channels);
}

void compressnet_can_last(const float *image, const float *scale, const float *shift, const float *weights,
                          const float *bias, float *out, int64_t channels, int64_t level, int64_t height,
                          int64_t width, int64_t planes, int64_t plane, int64_t row, int64_t column, int64_t rows,
                          int threads, float slope) {
    const Version *with = version(channels, level);
    const Last of = {image, height, width, scale, shift, slope, weights, bias, out, plane, row, column, planes, rows};
    const int64_t parts = parts_of(height, rows);
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && parts > 1)
#endif
    for (int64_t part = 0; part < parts; part++) with->last(&of, part);
}
