// Streams: sums of products of four rows of a plain matrix with a few rows of activations. Knows no bias and no thread.
//
// Activations are float32, filled up with zeros to whole steps; where a format's values come apart, so are they.
#pragma once

#include "values.h"

namespace ridgeline {

constexpr int OUTPUTS = 4;  // rows of the matrix that are read side by side
constexpr int64_t LINE_BYTES = 64;

inline int64_t padded(int64_t d_in) { return (d_in + STEP - 1) / STEP * STEP; }

// One step of activations. Those of 16 bits only go with weights that come apart, as they do.
template <class Kind>
inline void spread_step(bool is_bfloat16, const void *x, float *to) {
    Lanes two[2];
    if (is_bfloat16)
        Bfloat16::widen((const uint16_t *)x, two);
    else if (Kind::APART)
        for (int lane = 0; lane < WIDTH; lane++) {
            two[0][lane] = ((const float *)x)[2 * lane];
            two[1][lane] = ((const float *)x)[2 * lane + 1];
        }
    else
        Float32::widen((const float *)x, two);
    store(to, two[0]);
    store(to + WIDTH, two[1]);
}

// x: one row; to: [padded d_in].
template <class Kind>
inline void spread(bool is_bfloat16, const void *x, int64_t d_in, float *to) {
    const int64_t whole = d_in / STEP * STEP, bytes = is_bfloat16 ? 2 : 4;
    const uint8_t *from = (const uint8_t *)x;
    for (int64_t at = 0; at < whole; at += STEP) spread_step<Kind>(is_bfloat16, from + at * bytes, to + at);
    if (whole < d_in) {
        float rest[STEP] = {};
        std::memcpy(rest, from + whole * bytes, (size_t)((d_in - whole) * bytes));
        spread_step<Kind>(is_bfloat16, rest, to + whole);
    }
}

inline float sum_of_lanes(Lanes value) {
    float some[WIDTH];
    store(some, value);
    for (int width = WIDTH / 2; width; width /= 2)
        for (int lane = 0; lane < width; lane++) some[lane] += some[lane + width];
    return some[0];
}

template <class Kind, int ROWS>
struct Sums {
    Lanes of[ROWS][OUTPUTS] = {};

    // Half after half, so that every sum is one chain whatever ROWS is.
    inline void add(const typename Kind::Weight *const *weights, int64_t at, const float *x, int64_t row_values) {
        Lanes wide[OUTPUTS][2];
        for (int output = 0; output < OUTPUTS; output++) Kind::widen(weights[output] + at, wide[output]);
        for (int half = 0; half < 2; half++)
            for (int row = 0; row < ROWS; row++) {
                const Lanes values = load<Lanes>(x + row * row_values + half * WIDTH);
                for (int output = 0; output < OUTPUTS; output++) of[row][output] += wide[output][half] * values;
            }
    }
};

// weights: where four rows begin; ahead: from there to what is read after them. x: [ROWS][padded d_in]. Sums go to
// out[row * LANES + output].
template <class Kind, int ROWS>
void dots(const typename Kind::Weight *const *weights, int64_t ahead, const float *x, int64_t d_in, float *out) {
    typedef typename Kind::Weight Weight;
    const int64_t whole = d_in / STEP * STEP, row_values = padded(d_in);
    Sums<Kind, ROWS> sums;
    for (int64_t at = 0; at < whole; at += STEP) {
        // The hardware's own prefetching begins anew at every row.
        for (int output = 0; output < OUTPUTS; output++)
            for (int64_t byte = 0; byte < STEP * (int64_t)sizeof(Weight); byte += LINE_BYTES)
                __builtin_prefetch((const uint8_t *)(weights[output] + at + ahead) + byte, 0, 2);
        sums.add(weights, at, x + at, row_values);
    }
    if (whole < d_in) {
        Weight rest[OUTPUTS][STEP] = {};
        const Weight *each[OUTPUTS];
        for (int output = 0; output < OUTPUTS; output++) {
            std::memcpy(rest[output], weights[output] + whole, (size_t)(d_in - whole) * sizeof(Weight));
            each[output] = rest[output];
        }
        sums.add(each, 0, x + whole, row_values);
    }
    for (int row = 0; row < ROWS; row++)
        for (int output = 0; output < OUTPUTS; output++)
            out[row * LANES + output] = sum_of_lanes(sums.of[row][output]);
}

// As dots, of any number of rows.
template <class Kind>
void dots_of(
    const typename Kind::Weight *const *weights, int64_t ahead, const float *x, int64_t count, int64_t d_in, float *out) {
    const int64_t row_values = padded(d_in);
    for (int64_t row = 0; row < count; ahead = 0) {
        const int64_t left = count - row;
        const float *from = x + row * row_values;
        float *to = out + row * LANES;
        if (MOST_ROWS >= 6 && left >= 6) {
            dots<Kind, std::min(6, MOST_ROWS)>(weights, ahead, from, d_in, to);
            row += 6;
        } else if (MOST_ROWS >= 4 && left >= 4) {
            dots<Kind, std::min(4, MOST_ROWS)>(weights, ahead, from, d_in, to);
            row += 4;
        } else if (left >= 2) {
            dots<Kind, 2>(weights, ahead, from, d_in, to);
            row += 2;
        } else {
            dots<Kind, 1>(weights, ahead, from, d_in, to);
            row += 1;
        }
    }
}

}  // namespace ridgeline
