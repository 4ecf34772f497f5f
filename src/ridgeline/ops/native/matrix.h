// Matrix: what a call is told of a layer, and how values of its activations are read and written. Knows no sum.
#pragma once

#include <algorithm>

#include "dots.h"
#include "team.h"

extern "C" {

// Strips lie one after the other; scales, sums (of an output's weights) and bias have a value for every output of every
// strip. 16-byte fields first, as ctypes lays them out too.
struct Matrix {
    const uint8_t *strips;
    const float *scales;
    const int32_t *sums;
    const float *bias;
    ridgeline::Team *team;  // or null: the caller alone
    int64_t d_in, d_out, strip_bytes;
    int32_t bits, activation, is_bfloat16, unused;
};

}  // extern "C"

namespace ridgeline {

enum Activation : int32_t { PLAIN = 0, GELU_NEW = 1, GELU = 2, RELU = 3 };

inline int64_t chunks_of(const Matrix &matrix) { return (matrix.d_in + CHUNK - 1) / CHUNK; }
inline int64_t strips_of(const Matrix &matrix) { return (matrix.d_out + LANES - 1) / LANES; }

// Formats of activations. Whoever reads many values is told the format once, not at every sixteen.
struct Short {
    typedef uint16_t Value;
    static Floats load(const Value *from) { return from_bfloat16(ridgeline::load<Halves>(from)); }
    static void store(Value *to, Floats value) { ridgeline::store(to, to_bfloat16(value)); }
};
struct Long {
    typedef float Value;
    static Floats load(const Value *from) { return ridgeline::load<Floats>(from); }
    static void store(Value *to, Floats value) { ridgeline::store(to, value); }
};

// Up to sixteen values, zeros behind them.
template <class Format>
RIDGELINE_INLINE Floats load_some(const void *from, int64_t at, int64_t count) {
    typedef typename Format::Value Value;
    const Value *values = (const Value *)from + at;
    if (count >= LANES) return Format::load(values);
    Value some[LANES] = {};
    std::memcpy(some, values, (size_t)count * sizeof(Value));
    return Format::load(some);
}

template <class Format>
RIDGELINE_INLINE void store_some(void *to, int64_t at, int64_t count, Floats value) {
    typedef typename Format::Value Value;
    Value *values = (Value *)to + at;
    if (count >= LANES) return Format::store(values, value);
    Value some[LANES];
    Format::store(some, value);
    std::memcpy(values, some, (size_t)count * sizeof(Value));
}

inline Floats load_row(const Matrix &matrix, const void *from, int64_t at, int64_t count) {
    return matrix.is_bfloat16 ? load_some<Short>(from, at, count) : load_some<Long>(from, at, count);
}

inline void store_row(const Matrix &matrix, void *to, int64_t at, int64_t count, Floats value) {
    matrix.is_bfloat16 ? store_some<Short>(to, at, count, value) : store_some<Long>(to, at, count, value);
}

}  // namespace ridgeline
