// Products: rows of some blocks with strips side by side, on vectors or tiles. Knows not who does which.
#pragma once

#include "finish.h"

namespace ridgeline {

// Rows that are multiplied with weights in registers. More of them share weights that were widened once.
constexpr int64_t FEW = 4;
// From so many rows the matrix unit is faster than vectors.
constexpr int64_t TILED = 5;
constexpr int64_t MOST_STRIPS = 4;

template <int ROWS>
void few_of(const Call &call, int64_t strip, const uint8_t *weights, bool is_wide, int64_t block, int64_t row) {
    alignas(64) int32_t sums[ROWS * LANES];
    const Rows &rows = call.rows;
    const uint8_t *x = rows.block(block) + row * CHUNK;
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    if (is_wide)
        dot8<ROWS>(weights, x, rows.height, rows.chunks, sums);
    else
        dot4<ROWS>(weights, x, rows.height, rows.chunks, sums);
#else
    (void)is_wide;
    dot8<ROWS>(weights, x, rows.height, rows.chunks, sums);
#endif
    finish(call, strip, block * TILE_ROWS + row, ROWS, sums);
}

// count: at most FEW.
inline void few(const Call &call, int64_t strip, const uint8_t *weights, bool is_wide, int64_t block, int64_t row, int64_t count) {
    switch (count) {
        case 1: return few_of<1>(call, strip, weights, is_wide, block, row);
        case 2: return few_of<2>(call, strip, weights, is_wide, block, row);
        case 3: return few_of<3>(call, strip, weights, is_wide, block, row);
        default: return few_of<4>(call, strip, weights, is_wide, block, row);
    }
}

// Rows of some blocks with one strip, on vectors.
inline void by_vectors(const Call &call, int64_t strip, const uint8_t *weights, int64_t first, int64_t last) {
    for (int64_t block = first; block < last; block++) {
        const int64_t count = std::min(TILE_ROWS, call.rows.count - block * TILE_ROWS);
        int64_t row = 0;
        for (; row + 8 <= count; row += 8) few_of<8>(call, strip, weights, true, block, row);
        for (; row < count; row += FEW) few(call, strip, weights, true, block, row, std::min(FEW, count - row));
    }
}

#if RIDGELINE_TILES
inline void by_tiles(const Call &call, int64_t strip, const uint8_t *const *weights, int64_t strips, int64_t first, int64_t last) {
    alignas(64) int32_t sums[4 * TILE_ROWS * LANES];
    const Rows &rows = call.rows;
    int64_t block = first;
    for (; strips == 2 && block + 2 <= last; block += 2) {
        tiles_2x2(weights, rows.block(block), rows.chunks, sums);
        for (int64_t i = 0; i < 2; i++)
            finish(call, strip + i, block * TILE_ROWS, 2 * TILE_ROWS, sums + i * 2 * TILE_ROWS * LANES);
    }
    for (; block < last; block++) {
        int64_t done = 0;
        if (strips == 4) {
            tiles_1x4(weights, rows.block(block), rows.height, rows.chunks, sums);
            for (; done < 4; done++)
                finish(call, strip + done, block * TILE_ROWS, rows.height, sums + done * rows.height * LANES);
        }
        for (; done < strips; done++) {
            tiles_1x1(weights[done], rows.block(block), rows.height, rows.chunks, sums);
            finish(call, strip + done, block * TILE_ROWS, rows.height, sums);
        }
    }
}
#endif

}  // namespace ridgeline
