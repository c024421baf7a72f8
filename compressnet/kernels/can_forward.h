/* The layers of a CAN; part of can_width.h. */

#define M 2
#include "can_winograd.h"
#undef M
#define M 4
#include "can_winograd.h"
#undef M
#define M 6
#include "can_winograd.h"
#undef M
#define M 0
#include "can_direct.h"
#undef M
#include "can_ends.h"

static const Version NAMED(version) = {
    {SIZED(room, 0), SIZED(room, 2), SIZED(room, 4), SIZED(room, 6)},
    {SIZED(layer, 0), SIZED(layer, 2), SIZED(layer, 4), SIZED(layer, 6)},
    first_room,
    first,
    last,
};

#undef first_room
#undef first
#undef last
