// Plain: rows that are looked up and added, and rows that are normalised, with values as they are. Knows no product.
#pragma once

#include <cmath>

#include "streams.h"
#include "team.h"

extern "C" {

// What a call is told of a norm. weight, bias: float32 [d].
struct PlainNorm {
    const float *weight, *bias;
    ridgeline::Team *team;  // or null: the caller alone
    int64_t d;
    float eps;
    int32_t is_bfloat16;
};

// Of two tables [ids][d] in one format; the second may be null.
struct PlainRows {
    const void *first, *second;
    ridgeline::Team *team;
    int64_t d;
    int32_t format, is_bfloat16;
};

}  // extern "C"

namespace ridgeline {

constexpr Runs A_FEW_ALONE = {8, INT64_MAX};  // rows that are not worth a meeting

// What is left of sixteen values without the mean; 0 behind the row's end.
inline Floats apart(Floats value, float mean, int64_t left) {
    value -= mean;
    for (int64_t lane = left; lane < LANES; lane++) value[lane] = 0.0f;
    return value;
}

inline void normalise(const PlainNorm &norm, const void *x, void *y, int64_t row) {
    const int64_t d = norm.d, first = row * d;
    Floats sum = {}, squares = {};
    for (int64_t at = 0; at < d; at += LANES) sum += load_some(norm.is_bfloat16, x, first + at, d - at);
    const float mean = total(sum) / (float)d;
    for (int64_t at = 0; at < d; at += LANES) {
        const Floats some = apart(load_some(norm.is_bfloat16, x, first + at, d - at), mean, d - at);
        squares += some * some;
    }
    const float by = 1.0f / std::sqrt(total(squares) / (float)d + norm.eps);
    for (int64_t at = 0; at < d; at += LANES) {
        const Floats some = apart(load_some(norm.is_bfloat16, x, first + at, d - at), mean, d - at) * by;
        const Floats weight = load_some(false, norm.weight, at, d - at), bias = load_some(false, norm.bias, at, d - at);
        store_some(norm.is_bfloat16, y, first + at, d - at, some * weight + bias);
    }
}

// Sixteen values of a table, from `at` on.
inline Floats looked_up(int32_t format, const void *table, int64_t at, int64_t count) {
    if (format != FLOAT16) return load_some(format == BFLOAT16, table, at, count);
    Floats values = {};
    for (int64_t lane = 0; lane < std::min(count, LANES); lane++) values[lane] = from_float16(((const uint16_t *)table)[at + lane]);
    return values;
}

inline void look_up(const PlainRows &rows, int64_t id, int64_t place, void *y, int64_t row) {
    const int64_t d = rows.d;
    for (int64_t at = 0; at < d; at += LANES) {
        Floats value = looked_up(rows.format, rows.first, id * d + at, d - at);
        if (rows.second) value += looked_up(rows.format, rows.second, place * d + at, d - at);
        store_some(rows.is_bfloat16, y, row * d + at, d - at, value);
    }
}

}  // namespace ridgeline
