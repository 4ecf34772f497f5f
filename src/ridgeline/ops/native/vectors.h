// Vectors of 16 values in the compiler's own vector types, which it maps to whatever registers the machine has, and the
// functions that an epilogue needs. Knows no matrix. Every function treats its lanes alike, so a value's result does not
// depend on where in a vector it lies.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ridgeline {

#define RIDGELINE_INLINE inline __attribute__((always_inline))

constexpr int64_t LANES = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

template <class To, class From>
inline To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "a value keeps its size");
    To to;
    std::memcpy(&to, &from, sizeof(to));
    return to;
}

template <class Vector>
inline Vector load(const void *from) {
    Vector value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

template <class Vector>
inline void store(void *to, Vector value) {
    std::memcpy(to, &value, sizeof(value));
}

inline Floats all(float value) { return Floats{} + value; }
#if defined(__AVX512F__)
inline Floats least(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
inline Floats most(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
#else
inline Floats least(Floats a, Floats b) { return a < b ? a : b; }
inline Floats most(Floats a, Floats b) { return a > b ? a : b; }
#endif
inline float total(Floats value) {
    for (int64_t width = LANES / 2; width; width /= 2)
        for (int64_t lane = 0; lane < width; lane++) value[lane] += value[lane + width];
    return value[0];
}
inline Floats floats(Ints value) { return __builtin_convertvector(value, Floats); }

// Added to a value below 2^22, 1.5 * 2^23 leaves no room for a fraction; the sum's lowest bits are the integer's.
constexpr float ROUNDING = 12582912.0f;

// The nearest integer, the even one of two. No addition is involved that a compiler could join with a product before it,
// so the product is rounded first, as it is everywhere else.
inline Ints nearest(Floats value) {
#if defined(__AVX512F__)
    return (Ints)_mm512_cvtps_epi32((__m512)value);
#else
    Ints whole;
    for (int64_t lane = 0; lane < LANES; lane++) whole[lane] = (int32_t)__builtin_rintf(value[lane]);
    return whole;
#endif
}

typedef uint8_t Bytes __attribute__((vector_size(16)));

// What is outside of 0 to 255 becomes the nearer of the two.
inline Bytes to_bytes(Ints value) {
#if defined(__AVX512F__)
    return (Bytes)_mm512_cvtusepi32_epi8(_mm512_max_epi32((__m512i)value, _mm512_setzero_si512()));
#else
    const Ints positive = value < 0 ? Ints{} : value;
    return __builtin_convertvector(positive > 255 ? Ints{} + 255 : positive, Bytes);
#endif
}

inline Floats reciprocal(Floats value) {
#if defined(__AVX512F__)
    // 14 bits and one step of Newton's: a division takes the port for 16 cycles.
    const Floats guess = (Floats)_mm512_rcp14_ps((__m512)value);
    return guess * (2.0f - value * guess);
#else
    return 1.0f / value;
#endif
}

// 2^n times a polynomial in the fraction (minimax on [-0.5, 0.5], 2e-7).
inline Floats power_of_two(Floats value) {
    const Floats power = least(most(value, all(-125.0f)), all(125.0f));
    const Floats shifted = power + ROUNDING, f = power - (shifted - ROUNDING);
    Floats p = all(1.33952e-3f);
    p = p * f + 9.61843e-3f;
    p = p * f + 5.550332e-2f;
    p = p * f + 2.4022650e-1f;
    p = p * f + 6.9314720e-1f;
    p = p * f + 1.0f;
    return bits<Floats>(bits<Ints>(p) + (bits<Ints>(shifted) << 23));
}

inline Floats exponential(Floats value) { return power_of_two(value * 1.44269504f); }

// x over 1 + e^-u with u = 2 sqrt(2 / pi) (x + 0.044715 x^3).
inline Floats gelu_new(Floats x) {
    const Floats power = x * (-2.3022082f - 0.10294324f * x * x);  // -u in powers of two
    return x * reciprocal(1.0f + power_of_two(power));
}

// The error function by Abramowitz and Stegun, 7.1.26 (1.5e-7).
inline Floats gelu(Floats x) {
    const Floats z = x * 0.70710678f, size = z < 0.0f ? -z : z;
    const Floats t = reciprocal(1.0f + 0.3275911f * size);
    Floats p = all(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Floats tail = 0.5f * p * t * exponential(-z * z);  // half of 1 - erf |z|
    return x * (z < 0.0f ? tail : 1.0f - tail);
}

inline Floats from_bfloat16(Halves value) {
    typedef uint32_t Words __attribute__((vector_size(64)));
    return bits<Floats>(__builtin_convertvector(value, Words) << 16);
}

// To the nearest, the even one of two; what is no number stays none.
inline Halves to_bfloat16(Floats value) {
#if defined(__AVX512BF16__)
    return bits<Halves>(_mm512_cvtneps_pbh((__m512)value));
#else
    typedef uint32_t Words __attribute__((vector_size(64)));
    const Words word = bits<Words>(value);
    const Words rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
    const Words none = (word >> 16) | 0x40u;
    return __builtin_convertvector((value == value) ? rounded : none, Halves);
#endif
}

}  // namespace ridgeline
