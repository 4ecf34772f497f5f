// Values: formats in which a plain matrix and its activations are stored, and vectors as wide as the machine's. Knows no
// product.
#pragma once

#include <algorithm>

#include "vectors.h"

namespace ridgeline {

enum Format : int32_t { FLOAT32 = 0, BFLOAT16 = 1, FLOAT16 = 2 };

// WIDTH: of a register. MOST_ROWS: whose sums with four outputs there are registers for.
#if defined(__AVX512F__)
constexpr int WIDTH = 16, MOST_ROWS = 6;
#elif defined(__AVX2__)
constexpr int WIDTH = 8, MOST_ROWS = 2;
#elif defined(__aarch64__)
constexpr int WIDTH = 4, MOST_ROWS = 4;
#else
constexpr int WIDTH = 4, MOST_ROWS = 2;
#endif
constexpr int64_t STEP = 2 * WIDTH;  // inputs that are multiplied at a time

typedef float Lanes __attribute__((vector_size(4 * WIDTH)));
typedef uint32_t Words __attribute__((vector_size(4 * WIDTH)));

inline float from_float16(uint16_t value) {
    const uint32_t sign = (uint32_t)(value & 0x8000u) << 16, size = value & 0x7fffu;
    if (size >= 0x7c00u) return bits<float>(sign | 0x7f800000u | (size & 0x3ffu) << 13);
    // As if the exponent's bias were float32's, then times what it lacks: numbers below the normal ones come out too.
    return bits<float>(sign | bits<uint32_t>(bits<float>(size << 13) * 0x1p112f));
}

// A format's Weight, whether widened values come out in two halves by even and odd input (true) or in their order, and
// STEP values at once.
struct Float32 {
    typedef float Weight;
    static constexpr bool APART = false;
    static void widen(const float *from, Lanes (&to)[2]) {
        to[0] = load<Lanes>(from);
        to[1] = load<Lanes>(from + WIDTH);
    }
};

struct Bfloat16 {
    typedef uint16_t Weight;
    static constexpr bool APART = true;  // a shift and a mask widen two neighbours where they lie
    static void widen(const uint16_t *from, Lanes (&to)[2]) {
        const Words both = load<Words>(from);
        to[0] = bits<Lanes>(both << 16);
        to[1] = bits<Lanes>(both & 0xffff0000u);
    }
};

struct Float16 {
    typedef uint16_t Weight;
    static constexpr bool APART = false;
    static void widen(const uint16_t *from, Lanes (&to)[2]) {
        for (int half = 0; half < 2; half++) {
            const uint16_t *values = from + half * WIDTH;
#if defined(__AVX512F__)
            to[half] = (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)values));
#elif defined(__AVX2__) && defined(__F16C__)
            to[half] = (Lanes)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)values));
#else
            for (int lane = 0; lane < WIDTH; lane++) to[half][lane] = from_float16(values[lane]);
#endif
        }
    }
};

// 16 values of activations, or the `count` there are. is_bfloat16: or float32.
inline Floats load_some(bool is_bfloat16, const void *from, int64_t at, int64_t count) {
    const size_t some = (size_t)std::min(count, LANES);
    if (is_bfloat16) {
        Halves halves = {};
        std::memcpy(&halves, (const uint16_t *)from + at, some * 2);
        return from_bfloat16(halves);
    }
    Floats values = {};
    std::memcpy(&values, (const float *)from + at, some * 4);
    return values;
}

inline void store_some(bool is_bfloat16, void *to, int64_t at, int64_t count, Floats value) {
    const size_t some = (size_t)std::min(count, LANES);
    if (is_bfloat16) {
        const Halves halves = to_bfloat16(value);
        std::memcpy((uint16_t *)to + at, &halves, some * 2);
    } else {
        std::memcpy((float *)to + at, &value, some * 4);
    }
}

}  // namespace ridgeline
