/* PARTS (what the including source has of a CAN) for each processor and number of channels, as tables of type
   `Version`.

   One library for several processors. target_clones is no way here: it lowers vectors to those of the oldest
   processor before it copies a function (12 to 18 % slower). So the source is included once for each. */

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

static const Version *version(int64_t channels, int64_t level) {
#ifdef IS_X86
    if (level == 4) return channels == 24 ? &version_24_v4 : &version_32_v4;
    if (level == 3) return channels == 24 ? &version_24_v3 : &version_32_v3;
#endif
    (void)level;
    return channels == 24 ? &version_24_any : &version_32_any;
}
