/* The names of can_tiles.h become free for tiles of another size. */

#undef N
#undef APART
#undef ends
#undef pair
#undef outputs
#undef row_to_points
#undef to_points
#undef from_points
#undef multiply
#undef across
#undef tiles_of
#undef first_column
#undef row_floats
#undef fetch
