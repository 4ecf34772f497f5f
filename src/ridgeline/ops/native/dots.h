// Integer dot products of a strip of weights (16 outputs) with a few rows of activations. Knows no scales, no threads.
//
// A strip of 8 bits: [d_in / 4][16 outputs][4 inputs], signed. A strip of 4 bits: multipliers [d_in / 32][16], filled up
// to whole cache lines, then codes [d_in / 8][16][4]: the low half of byte b is input b, the high half input 4 + b, and a
// weight is multiplier * (code - 8), which fits 8 bits. Multipliers are those of 16 inputs, 1 to 16: one less stands in
// the low half of a byte for the first 16 of 32 inputs, in the high half for the others. Activations are unsigned bytes
// in chunks of 64 inputs: [d_in / 64][height rows][64]. d_in is a multiple of 64 here. Sums are exact in 32 bits, so
// every way to compute them gives the same.
#pragma once

#include "vectors.h"

namespace ridgeline {

constexpr int64_t CHUNK = 64;
constexpr int64_t GROUP = 16;  // inputs that share a multiplier
constexpr int64_t PAIR = 2 * GROUP;
constexpr int64_t LINE = 64;
constexpr int64_t STEPS = CHUNK / 4;

inline int64_t multiplier_bytes(int64_t chunks) { return (chunks * 2 * LANES + LINE - 1) / LINE * LINE; }

// Of output `lane` of a strip for input k.
inline int multiplier_at(const uint8_t *strip, int64_t lane, int64_t k) {
    return 1 + (strip[k / PAIR * LANES + lane] >> (k % PAIR < GROUP ? 0 : 4) & 15);
}

// By what stands for a multiplier in half a byte: eight times it, which as two equal bytes of 16 bits is it << 11 and more.
#define RIDGELINE_EIGHTS 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, -128

// How far ahead of the reader a line is asked for: the hardware's own prefetching stops at the end of a page.
constexpr int64_t AHEAD = 4096;
inline void ask_for(const void *line) { __builtin_prefetch(line, 0, 2); }

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)

inline __m512i spread(const uint8_t *four) {
    int32_t word;
    std::memcpy(&word, four, 4);
    return _mm512_set1_epi32(word);
}

// A group's multipliers: in the 16-bit halves of each output's word, and 8 times in each of its bytes.
struct Multipliers {
    __m512i pairs, eights;
    Multipliers() = default;
    explicit Multipliers(__m512i halves) {
        eights = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_setr_epi8(RIDGELINE_EIGHTS)), halves);
        pairs = _mm512_srli_epi16(eights, 11);
    }
    // Two codes in a 16-bit lane are multiplied at once: 15 * 16 carries nothing into the upper.
    __m512i weights(__m512i codes) const { return _mm512_sub_epi8(_mm512_mullo_epi16(codes, pairs), eights); }
};

// Those of 32 inputs.
struct TwoGroups {
    Multipliers of[2];
    explicit TwoGroups(const uint8_t *from) {
        const __m512i low = _mm512_set1_epi8(15);
        const __m512i four = _mm512_set4_epi32(0x03030303, 0x02020202, 0x01010101, 0);  // each output's byte, 4 times
        const __m512i quarters = _mm512_inserti32x4(_mm512_inserti32x4(_mm512_inserti32x4(
            _mm512_setzero_si512(), _mm_set1_epi8(4), 1), _mm_set1_epi8(8), 2), _mm_set1_epi8(12), 3);
        const __m512i bytes = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)from));
        const __m512i each = _mm512_shuffle_epi8(bytes, _mm512_add_epi8(four, quarters));
        of[0] = Multipliers(_mm512_and_si512(each, low));
        of[1] = Multipliers(_mm512_and_si512(_mm512_srli_epi16(each, 4), low));
    }
};

template <int ROWS>
inline void dot8(const uint8_t *strip, const uint8_t *x, int64_t height, int64_t chunks, int32_t *out) {
    constexpr int SUMS = ROWS < 3 ? 4 / ROWS : 1;  // enough chains to hide the latency of 5 cycles
    __m512i sums[SUMS][ROWS];
    for (auto &part : sums)
        for (auto &sum : part) sum = _mm512_setzero_si512();
    for (int64_t chunk = 0; chunk < chunks; chunk++, x += height * CHUNK, strip += CHUNK * LANES) {
#pragma GCC unroll 16
        for (int64_t step = 0; step < STEPS; step++) {
            ask_for(strip + AHEAD + step * LINE);
            const __m512i weights = _mm512_loadu_si512(strip + step * LINE);
#pragma GCC unroll 8
            for (int64_t row = 0; row < ROWS; row++) {
                __m512i &sum = sums[step % SUMS][row];
                sum = _mm512_dpbusd_epi32(sum, spread(x + row * CHUNK + step * 4), weights);
            }
        }
    }
    for (int64_t row = 0; row < ROWS; row++) {
        __m512i sum = sums[0][row];
        for (int part = 1; part < SUMS; part++) sum = _mm512_add_epi32(sum, sums[part][row]);
        _mm512_storeu_si512(out + row * LANES, sum);
    }
}

// Two strips at once: of 8 rows as many loads as products, of one strip there are a quarter more. out: [2][ROWS][16].
template <int ROWS>
inline void two_dot8(const uint8_t *const *strips, const uint8_t *x, int64_t height, int64_t chunks, int32_t *out) {
    const uint8_t *left = strips[0], *right = strips[1];
    __m512i sums[2][ROWS];
    for (auto &strip : sums)
        for (auto &sum : strip) sum = _mm512_setzero_si512();
    for (int64_t chunk = 0; chunk < chunks; chunk++, x += height * CHUNK, left += CHUNK * LANES, right += CHUNK * LANES) {
#pragma GCC unroll 4
        for (int64_t step = 0; step < STEPS; step++) {
            ask_for(left + AHEAD + step * LINE);
            ask_for(right + AHEAD + step * LINE);
            const __m512i first = _mm512_loadu_si512(left + step * LINE), second = _mm512_loadu_si512(right + step * LINE);
#pragma GCC unroll 8
            for (int64_t row = 0; row < ROWS; row++) {
                const __m512i four = spread(x + row * CHUNK + step * 4);
                sums[0][row] = _mm512_dpbusd_epi32(sums[0][row], four, first);
                sums[1][row] = _mm512_dpbusd_epi32(sums[1][row], four, second);
            }
        }
    }
    for (int64_t row = 0; row < 2 * ROWS; row++) _mm512_storeu_si512(out + row * LANES, sums[row / ROWS][row % ROWS]);
}

template <int ROWS>
inline void dot4(const uint8_t *strip, const uint8_t *x, int64_t height, int64_t chunks, int32_t *out) {
    constexpr int SUMS = ROWS < 3 ? 4 / ROWS : 2;
    const uint8_t *multipliers = strip, *codes = strip + multiplier_bytes(chunks);
    const __m512i low = _mm512_set1_epi8(15);
    __m512i sums[SUMS][ROWS];
    for (auto &part : sums)
        for (auto &sum : part) sum = _mm512_setzero_si512();
    for (int64_t chunk = 0; chunk < chunks; chunk++, x += height * CHUNK) {
#pragma GCC unroll 2
        for (int64_t pair = 0; pair < 2; pair++, multipliers += LANES) {
            const TwoGroups by(multipliers);
#pragma GCC unroll 4
            for (int64_t pack = 0; pack < 4; pack++, codes += LINE) {
                ask_for(codes + AHEAD);
                const __m512i both = _mm512_loadu_si512(codes);
                const __m512i first = by.of[pack / 2].weights(_mm512_and_si512(both, low));
                const __m512i second = by.of[pack / 2].weights(_mm512_and_si512(_mm512_srli_epi16(both, 4), low));
                const uint8_t *at = x + pair * PAIR + pack * 8;
#pragma GCC unroll 8
                for (int64_t row = 0; row < ROWS; row++) {
                    __m512i &one = sums[(2 * pack) % SUMS][row], &two = sums[(2 * pack + 1) % SUMS][row];
                    one = _mm512_dpbusd_epi32(one, spread(at + row * CHUNK), first);
                    two = _mm512_dpbusd_epi32(two, spread(at + row * CHUNK + 4), second);
                }
            }
        }
    }
    for (int64_t row = 0; row < ROWS; row++) {
        __m512i sum = sums[0][row];
        for (int part = 1; part < SUMS; part++) sum = _mm512_add_epi32(sum, sums[part][row]);
        _mm512_storeu_si512(out + row * LANES, sum);
    }
}

// A strip of 4 bits as one of 8.
inline void widen(const uint8_t *strip, int64_t chunks, uint8_t *out) {
    const uint8_t *multipliers = strip, *codes = strip + multiplier_bytes(chunks);
    const __m512i low = _mm512_set1_epi8(15);
    for (int64_t pair = 0; pair < 2 * chunks; pair++, multipliers += LANES) {
        const TwoGroups by(multipliers);
#pragma GCC unroll 4
        for (int64_t pack = 0; pack < 4; pack++, codes += LINE, out += 2 * LINE) {
            ask_for(codes + AHEAD);
            const Multipliers &some = by.of[pack / 2];
            const __m512i both = _mm512_loadu_si512(codes);
            _mm512_storeu_si512(out, some.weights(_mm512_and_si512(both, low)));
            _mm512_storeu_si512(out + LINE, some.weights(_mm512_and_si512(_mm512_srli_epi16(both, 4), low)));
        }
    }
}

#elif defined(__AVX2__)

// Half a line, [8 outputs][4 inputs], times four inputs that are repeated. Two outputs a 64-bit lane come out where there
// is no VNNI: bytes are widened to 16 bits first, because the instruction that multiplies bytes saturates.
#if defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__))
constexpr int HALVES = 2;
struct Four {
    __m256i value;
    explicit Four(const uint8_t *from) {
        int32_t word;
        std::memcpy(&word, from, 4);
        value = _mm256_set1_epi32(word);
    }
};
inline void add(__m256i *sums, const uint8_t *line, const Four &x) {
    for (int half = 0; half < 2; half++) {
        const __m256i weights = _mm256_loadu_si256((const __m256i *)(line + 32 * half));
#if defined(__AVXVNNI__)
        sums[half] = _mm256_dpbusd_avx_epi32(sums[half], x.value, weights);
#else
        sums[half] = _mm256_dpbusd_epi32(sums[half], x.value, weights);
#endif
    }
}
inline void write(const __m256i *sums, int32_t *out) {
    for (int half = 0; half < 2; half++) _mm256_storeu_si256((__m256i *)(out + 8 * half), sums[half]);
}
#else
constexpr int HALVES = 4;  // of 4 outputs each, two sums an output
struct Four {
    __m256i value;
    explicit Four(const uint8_t *from) {
        int32_t word;
        std::memcpy(&word, from, 4);
        value = _mm256_cvtepu8_epi16(_mm_set1_epi32(word));
    }
};
inline void add(__m256i *sums, const uint8_t *line, const Four &x) {
    for (int quarter = 0; quarter < 4; quarter++) {
        const __m256i weights = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(line + 16 * quarter)));
        sums[quarter] = _mm256_add_epi32(sums[quarter], _mm256_madd_epi16(weights, x.value));
    }
}
inline void write(const __m256i *sums, int32_t *out) {
    for (int half = 0; half < 2; half++) {
        const __m256i mixed = _mm256_hadd_epi32(sums[2 * half], sums[2 * half + 1]);  // outputs 0 1 4 5 2 3 6 7
        _mm256_storeu_si256((__m256i *)(out + 8 * half), _mm256_permute4x64_epi64(mixed, 0xd8));
    }
}
#endif

template <int ROWS>
inline void dot8(const uint8_t *strip, const uint8_t *x, int64_t height, int64_t chunks, int32_t *out) {
    if constexpr (ROWS > 2) {  // as many sums as there are registers for
        dot8<2>(strip, x, height, chunks, out);
        dot8<ROWS - 2>(strip, x + 2 * CHUNK, height, chunks, out + 2 * LANES);
    } else {
        __m256i sums[ROWS][HALVES];
        for (auto &row : sums)
            for (auto &sum : row) sum = _mm256_setzero_si256();
        for (int64_t chunk = 0; chunk < chunks; chunk++, x += height * CHUNK, strip += CHUNK * LANES)
            for (int64_t step = 0; step < STEPS; step++) {
                ask_for(strip + AHEAD + step * LINE);
                for (int64_t row = 0; row < ROWS; row++)
                    add(sums[row], strip + step * LINE, Four(x + row * CHUNK + step * 4));
            }
        for (int64_t row = 0; row < ROWS; row++) write(sums[row], out + row * LANES);
    }
}

// A strip of 4 bits as one of 8: two codes in a 16-bit lane are multiplied at once, 15 * 16 carries nothing.
inline void widen(const uint8_t *strip, int64_t chunks, uint8_t *out) {
    const uint8_t *multipliers = strip, *codes = strip + multiplier_bytes(chunks);
    const __m256i low = _mm256_set1_epi8(15);
    // Each of 8 outputs' bytes, 4 times.
    const __m256i lower = _mm256_setr_epi32(
        0, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505, 0x06060606, 0x07070707);
    const __m256i upper = _mm256_add_epi8(lower, _mm256_set1_epi8(8));
    for (int64_t pair = 0; pair < 2 * chunks; pair++, multipliers += LANES) {
        const __m256i bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)multipliers));
        for (int64_t group = 0; group < 2; group++) {
            const __m256i halves = _mm256_and_si256(group ? _mm256_srli_epi16(bytes, 4) : bytes, low);
            const __m256i eight = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_setr_epi8(RIDGELINE_EIGHTS)), halves);
            __m256i pairs[2], eights[2];
            for (int half = 0; half < 2; half++) {
                eights[half] = _mm256_shuffle_epi8(eight, half ? upper : lower);
                pairs[half] = _mm256_srli_epi16(eights[half], 11);
            }
            for (int64_t pack = 0; pack < 2; pack++, codes += LINE, out += 2 * LINE) {
                ask_for(codes + AHEAD);
                for (int half = 0; half < 2; half++) {
                    const __m256i both = _mm256_loadu_si256((const __m256i *)(codes + 32 * half));
                    const __m256i first = _mm256_and_si256(both, low);
                    const __m256i second = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
                    _mm256_storeu_si256(
                        (__m256i *)(out + 32 * half),
                        _mm256_sub_epi8(_mm256_mullo_epi16(first, pairs[half]), eights[half]));
                    _mm256_storeu_si256(
                        (__m256i *)(out + LINE + 32 * half),
                        _mm256_sub_epi8(_mm256_mullo_epi16(second, pairs[half]), eights[half]));
                }
            }
        }
    }
}

#else

template <int ROWS>
inline void dot8(const uint8_t *strip, const uint8_t *x, int64_t height, int64_t chunks, int32_t *out) {
    const int8_t *weights = (const int8_t *)strip;
    for (int64_t row = 0; row < ROWS; row++) {
        int32_t sums[LANES] = {0};
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            const uint8_t *at = x + (chunk * height + row) * CHUNK;
            for (int64_t k = 0; k < CHUNK; k++) {
                const int8_t *line = weights + chunk * CHUNK * LANES + k / 4 * LINE + k % 4;
                for (int64_t lane = 0; lane < LANES; lane++) sums[lane] += (int32_t)at[k] * line[lane * 4];
            }
        }
        std::memcpy(out + row * LANES, sums, sizeof(sums));
    }
}

inline void widen(const uint8_t *strip, int64_t chunks, uint8_t *out) {
    const uint8_t *codes = strip + multiplier_bytes(chunks);
    for (int64_t k = 0; k < chunks * CHUNK; k += 8, codes += LINE, out += 2 * LINE)
        for (int64_t at = 0; at < LINE; at++) {
            const int multiplier = multiplier_at(strip, at / 4, k);
            out[at] = (uint8_t)(((codes[at] & 15) - 8) * multiplier);
            out[at + LINE] = (uint8_t)(((codes[at] >> 4) - 8) * multiplier);
        }
}

#endif

}  // namespace ridgeline
