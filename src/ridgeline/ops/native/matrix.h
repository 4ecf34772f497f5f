// Matrix: what a call is told of a layer, and how values of its activations are read and written. Knows no sum.
#pragma once

#include <algorithm>

#include "dots.h"

extern "C" {

// Strips lie one after the other; scales, sums (of an output's weights) and bias have a value for every output of every
// strip. 16-byte fields first, as ctypes lays them out too.
struct Matrix {
    const uint8_t *strips;
    const float *scales;
    const int32_t *sums;
    const float *bias;
    int64_t d_in, d_out, strip_bytes;
    int32_t bits, activation, is_bfloat16, threads;
};

}  // extern "C"

namespace ridgeline {

enum Activation : int32_t { PLAIN = 0, GELU_NEW = 1, GELU = 2, RELU = 3 };

inline int64_t chunks_of(const Matrix &matrix) { return (matrix.d_in + CHUNK - 1) / CHUNK; }
inline int64_t strips_of(const Matrix &matrix) { return (matrix.d_out + LANES - 1) / LANES; }

inline Floats load_row(const Matrix &matrix, const void *from, int64_t at, int64_t count) {
    if (matrix.is_bfloat16) {
        const uint16_t *values = (const uint16_t *)from + at;
        if (count >= LANES) return from_bfloat16(load<Halves>(values));
        Halves some = {};
        std::memcpy(&some, values, (size_t)count * 2);
        return from_bfloat16(some);
    }
    const float *values = (const float *)from + at;
    if (count >= LANES) return load<Floats>(values);
    Floats some = {};
    std::memcpy(&some, values, (size_t)count * 4);
    return some;
}

inline void store_row(const Matrix &matrix, void *to, int64_t at, int64_t count, Floats value) {
    if (matrix.is_bfloat16) {
        const Halves halves = to_bfloat16(value);
        uint16_t *values = (uint16_t *)to + at;
        if (count >= LANES) return store(values, halves);
        std::memcpy(values, &halves, (size_t)count * 2);
        return;
    }
    float *values = (float *)to + at;
    if (count >= LANES) return store(values, value);
    std::memcpy(values, &value, (size_t)count * 4);
}

}  // namespace ridgeline
