// Rows: the activations of a call as unsigned bytes, each row with a scale and a zero of its own. Knows no weight.
#pragma once

#include <cmath>

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

// What a row goes through before it becomes bytes; weight and bias are filled up to whole vectors.
struct Norm {
    const float *weight, *bias;
    float eps;
};

// x: values of one row; to: filled up with zeros to whole vectors. Returns the mean.
template <class Format>
inline float read_row(const void *x, int64_t width, float *to) {
    Floats sum = {};
    for (int64_t at = 0; at < width; at += LANES) {
        const Floats some = load_some<Format>(x, at, width - at);
        sum += some;
        store(to + at, some);
    }
    return total(sum) / (float)width;
}

// The row that read_row left, in its place.
inline void normalise(const Norm &norm, float mean, int64_t width, float *row) {
    Floats squares = {};
    const int64_t whole = width / LANES * LANES;
    for (int64_t at = 0; at < width; at += LANES) {
        Floats apart = load<Floats>(row + at) - mean;
        if (at == whole)
            for (int64_t lane = width - whole; lane < LANES; lane++) apart[lane] = 0.0f;
        squares += apart * apart;
        store(row + at, apart);
    }
    const float by = 1.0f / std::sqrt(total(squares) / (float)width + norm.eps);
    for (int64_t at = 0; at < width; at += LANES)
        store(row + at, load<Floats>(row + at) * by * load<Floats>(norm.weight + at) + load<Floats>(norm.bias + at));
}

// value_at: of a row, the sixteen values from a place on; zeros behind its end.
template <class Values>
inline void quantise_values(const Rows &rows, int64_t row, int64_t d_in, const Values &value_at) {
    Floats low = {}, high = {};
    for (int64_t at = 0; at < d_in; at += LANES) {
        const Floats some = value_at(at);
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
            const Floats some = begin < d_in ? value_at(begin) : Floats{};
            store(to + at, to_bytes(nearest(some * inverse) + zero));
        }
}

template <class Format>
inline void quantise_as(const Matrix &matrix, const void *x, const Norm *norm, const Rows &rows, int64_t row, float *room) {
    const int64_t d_in = matrix.d_in;
    const void *from = (const typename Format::Value *)x + row * d_in;
    if (!norm) {
        quantise_values(rows, row, d_in, [=](int64_t at) { return load_some<Format>(from, at, d_in - at); });
        return;
    }
    normalise(*norm, read_row<Format>(from, d_in, room), d_in, room);
    quantise_values(rows, row, d_in, [=](int64_t at) { return load<Floats>(room + at); });
}

// x: all rows. norm: null where rows are taken as they are. room: a row's values, for a norm.
inline void quantise(const Matrix &matrix, const void *x, const Norm *norm, const Rows &rows, int64_t row, float *room) {
    (matrix.is_bfloat16 ? quantise_as<Short> : quantise_as<Long>)(matrix, x, norm, rows, row, room);
}

// What is behind the last row of the last block, where blocks are full.
inline void clear_rest(const Rows &rows) {
    for (int64_t row = rows.count; row < rows.blocks() * rows.height; row++) {
        uint8_t *to = rows.bytes + row / TILE_ROWS * TILE_ROWS * rows.chunks * CHUNK + row % TILE_ROWS * CHUNK;
        for (int64_t chunk = 0; chunk < rows.chunks; chunk++) std::memset(to + chunk * rows.height * CHUNK, 0, CHUNK);
    }
}

}  // namespace ridgeline
