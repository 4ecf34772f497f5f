// Rows: the activations of a call as unsigned bytes, each row with a scale and a zero of its own. Knows no weight.
#pragma once

#include "matrix.h"
#include "tiles.h"

namespace ridgeline {

// The activations of a call: bytes in blocks of at most 16 rows, [d_in / 64][height][64] each.
struct Rows {
    uint8_t *bytes;
    float *scales;
    int32_t *zeros;
    int64_t count, height, chunks;

    int64_t blocks() const { return (count + TILE_ROWS - 1) / TILE_ROWS; }
    const uint8_t *block(int64_t at) const { return bytes + at * TILE_ROWS * chunks * CHUNK; }
};

inline void quantise(const Matrix &matrix, const void *x, const Rows &rows, int64_t row) {
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    const int64_t d_in = matrix.d_in;
    const void *from = (const uint8_t *)x + row * d_in * (matrix.is_bfloat16 ? 2 : 4);
    Floats low = {}, high = {};
    for (int64_t at = 0; at < d_in; at += LANES) {
        const Floats some = load_row(matrix, from, at, d_in - at);
        low = least(low, some);
        high = most(high, some);
    }
    float bottom = 0.0f, top = 0.0f;
    for (int64_t lane = 0; lane < LANES; lane++) {
        bottom = std::min(bottom, low[lane]);
        top = std::max(top, high[lane]);
    }
    const float scale = (top - bottom) / 255.0f, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    const int32_t zero = nearest(all(-bottom * inverse))[0];
    rows.scales[row] = scale;
    rows.zeros[row] = zero;
    uint8_t *to = rows.bytes + row / TILE_ROWS * TILE_ROWS * rows.chunks * CHUNK + row % TILE_ROWS * CHUNK;
    for (int64_t chunk = 0; chunk < rows.chunks; chunk++, to += rows.height * CHUNK)
        for (int64_t at = 0; at < CHUNK; at += LANES) {
            const int64_t begin = chunk * CHUNK + at;
            const Floats some = begin < d_in ? load_row(matrix, from, begin, d_in - begin) : Floats{};
            const Ints whole = nearest(some * inverse) + zero, bounded = whole < 0 ? Ints{} : whole;
            store(to + at, __builtin_convertvector(bounded > 255 ? Ints{} + 255 : bounded, Bytes));
        }
}

// What is behind the last row of the last block, where blocks are full.
inline void clear_rest(const Rows &rows) {
    for (int64_t row = rows.count; row < rows.blocks() * rows.height; row++) {
        uint8_t *to = rows.bytes + row / TILE_ROWS * TILE_ROWS * rows.chunks * CHUNK + row % TILE_ROWS * CHUNK;
        for (int64_t chunk = 0; chunk < rows.chunks; chunk++) std::memset(to + chunk * rows.height * CHUNK, 0, CHUNK);
    }
}

}  // namespace ridgeline
