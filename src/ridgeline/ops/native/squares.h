// Squares: sums of products of 16 or 32 rows of a plain matrix of bfloat16 with 16 or 32 rows of activations by the matrix
// unit of Intel's processors (AMX). Knows no bias and no thread.
//
// A tile of the matrix is 16 of its rows, 32 inputs of each, as they lie. Activations are turned: a tile of them holds
// [16 pairs of inputs][16 rows][2], so that sums come out as [16 outputs][16 rows].
#pragma once

#include "tiles.h"
#include "values.h"

#if RIDGELINE_TILES && defined(__AMX_BF16__)
#define RIDGELINE_SQUARES 1
#else
#define RIDGELINE_SQUARES 0
#endif

namespace ridgeline {

#if RIDGELINE_SQUARES

constexpr int64_t DEPTH = 32;  // inputs of a tile
constexpr int64_t SIDE = 16;
constexpr int64_t AREA = SIDE * SIDE;  // sums of a tile, or pairs of inputs

// One chunk of 32 inputs of the `count` rows of a block; what is behind them becomes zeros. d_in is even.
inline void turn(const uint16_t *x, int64_t d_in, int64_t chunk, int64_t count, uint32_t *tile) {
    const __m512i rows = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32((int)(d_in / 2)));
    const __mmask16 some = (__mmask16)((1u << count) - 1);
    for (int64_t pair = 0; pair < SIDE; pair++) {
        const void *from = x + chunk * DEPTH + 2 * pair;
        _mm512_storeu_si512(
            tile + pair * SIDE, _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), some, rows, from, 4));
    }
}

inline void ask_for_rows(const uint16_t *weight, int64_t d_in) {
    for (int64_t row = 0; row < SIDE; row++) __builtin_prefetch(weight + row * d_in, 0, 2);
}

// weight: [16 STRIPS][d_in]; ahead: from it to what is read after it. x: BLOCKS times [d_in / 32] tiles. sums:
// [STRIPS][BLOCKS][16 outputs][16 rows].
template <int STRIPS, int BLOCKS>
void squares(const uint16_t *weight, int64_t ahead, const uint32_t *x, int64_t d_in, float *sums) {
    const uint16_t *below = weight + SIDE * d_in;
    const uint32_t *next = x + d_in / DEPTH * AREA;
    const int64_t row_bytes = d_in * 2;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t at = 0; at < d_in; at += DEPTH, x += AREA, next += AREA) {
        ask_for_rows(weight + at + ahead, d_in);
        _tile_loadd(6, x, LINE);
        _tile_loadd(4, weight + at, row_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (BLOCKS == 2) {
            _tile_loadd(7, next, LINE);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (STRIPS == 2) {
            ask_for_rows(below + at + ahead, d_in);
            _tile_loadd(5, below + at, row_bytes);
            _tile_dpbf16ps(2, 5, 6);
        }
        if constexpr (STRIPS == 2 && BLOCKS == 2) _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, sums, LINE);
    if constexpr (BLOCKS == 2) _tile_stored(1, sums + AREA, LINE);
    if constexpr (STRIPS == 2) _tile_stored(2, sums + BLOCKS * AREA, LINE);
    if constexpr (STRIPS == 2 && BLOCKS == 2) _tile_stored(3, sums + 3 * AREA, LINE);
}

// From [16 outputs][16 rows] to [count rows][16 outputs].
inline void turn_back(const float *sums, int64_t count, float *out) {
    const __m512i outputs = _mm512_slli_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 4);
    for (int64_t row = 0; row < count; row++)
        _mm512_storeu_ps(out + row * SIDE, _mm512_i32gather_ps(outputs, sums + row, 4));
}

#endif

}  // namespace ridgeline
