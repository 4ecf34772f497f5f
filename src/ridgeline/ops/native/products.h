// Products: rows of some blocks with strips side by side, on vectors or tiles. Knows not who does which.
#pragma once

#include "finish.h"

namespace ridgeline {

// Rows that are multiplied with weights in registers. More of them share weights that were widened once.
constexpr int64_t FEW = 4;
// From so many rows the matrix unit is faster than vectors.
constexpr int64_t TILED = 5;
constexpr int64_t MOST_STRIPS = 4;

template <int ROWS>
void few_of(const Call &call, int64_t strip, const uint8_t *weights, bool is_wide, int64_t block, int64_t row) {
    alignas(64) int32_t sums[ROWS * LANES];
    const Rows &rows = call.rows;
    const uint8_t *x = rows.block(block) + row * CHUNK;
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    if (is_wide)
        dot8<ROWS>(weights, x, rows.height, rows.chunks, sums);
    else
        dot4<ROWS>(weights, x, rows.height, rows.chunks, sums);
#else
    (void)is_wide;
    dot8<ROWS>(weights, x, rows.height, rows.chunks, sums);
#endif
    finish(call, strip, block * TILE_ROWS + row, ROWS, sums);
}

// count: at most FEW.
inline void few(const Call &call, int64_t strip, const uint8_t *weights, bool is_wide, int64_t block, int64_t row, int64_t count) {
    switch (count) {
        case 1: return few_of<1>(call, strip, weights, is_wide, block, row);
        case 2: return few_of<2>(call, strip, weights, is_wide, block, row);
        case 3: return few_of<3>(call, strip, weights, is_wide, block, row);
        default: return few_of<4>(call, strip, weights, is_wide, block, row);
    }
}

// Rows of a block with two strips, which lie side by side.
template <int ROWS>
void two_of(const Call &call, int64_t strip, const uint8_t *const *weights, int64_t block, int64_t row) {
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
    alignas(64) int32_t sums[2 * ROWS * LANES];
    const Rows &rows = call.rows;
    two_dot8<ROWS>(weights, rows.block(block) + row * CHUNK, rows.height, rows.chunks, sums);
    for (int64_t i = 0; i < 2; i++) finish(call, strip + i, block * TILE_ROWS + row, ROWS, sums + i * ROWS * LANES);
#else
    for (int64_t i = 0; i < 2; i++) few_of<ROWS>(call, strip + i, weights[i], true, block, row);
#endif
}

// Rows of some blocks with one strip or two, on vectors.
inline void by_vectors(const Call &call, int64_t strip, const uint8_t *const *weights, int64_t strips, int64_t first, int64_t last) {
    for (int64_t block = first; block < last; block++) {
        const int64_t count = std::min(TILE_ROWS, call.rows.count - block * TILE_ROWS);
        int64_t row = 0;
        for (; row + 8 <= count; row += 8)
            strips == 2 ? two_of<8>(call, strip, weights, block, row) : few_of<8>(call, strip, weights[0], true, block, row);
        for (; row < count; row += FEW)
            for (int64_t i = 0; i < strips; i++) few(call, strip + i, weights[i], true, block, row, std::min(FEW, count - row));
    }
}

#if RIDGELINE_TILES
// What is done of a pair of strips while the matrix unit multiplies: the sums of the two blocks before become values, and
// the strips that come next are asked for, all of them by the end of these rows.
template <class Finish>
class Meanwhile {
  public:
    Meanwhile(const Call &call, int64_t strip, int64_t pairs) : count_(call.rows.count), left_(call, strip), right_(call, strip + 1) {
        const int64_t turns = std::max<int64_t>(1, pairs * call.rows.chunks);
        rows_ = (2 * TILE_ROWS + call.rows.chunks - 1) / call.rows.chunks;
        const int64_t size = 2 * call.matrix.strip_bytes;
        next_ = call.matrix.strips + (strip + 2) * call.matrix.strip_bytes;
        lines_ = strip + 2 < strips_of(call.matrix) ? std::min(MOST_LINES, (size / LINE + turns - 1) / turns) : 0;
    }
    RIDGELINE_INLINE void operator()() {
        for (int64_t line = 0; line < lines_; line++, next_ += LINE) ask_for(next_);
        finish_to(std::min(done_ + rows_, end_));
    }
    // Sums that are to be finished: [2 strips][32][16], from row `first` on. Those before are.
    void take(const int32_t *sums, int64_t first) {
        rest();
        sums_ = sums, first_ = first, done_ = 0, end_ = std::min(2 * TILE_ROWS, count_ - first);
    }
    void rest() { finish_to(end_); }

  private:
    static constexpr int64_t MOST_LINES = 8;  // a turn: of few rows memory is what is waited for
    RIDGELINE_INLINE void finish_to(int64_t end) {
        for (; done_ < end; done_++) {
            left_(first_ + done_, sums_ + done_ * LANES);
            right_(first_ + done_, sums_ + (2 * TILE_ROWS + done_) * LANES);
        }
    }
    const int64_t count_;
    const Finish left_, right_;
    const uint8_t *next_;
    const int32_t *sums_ = nullptr;
    int64_t rows_, lines_, first_ = 0, done_ = 0, end_ = 0;
};

template <class Finish>
void pairs_by_tiles(const Call &call, int64_t strip, const uint8_t *const *weights, int64_t first, int64_t last) {
    alignas(64) int32_t sums[4 * TILE_ROWS * LANES], others[4 * TILE_ROWS * LANES];
    const Rows &rows = call.rows;
    Meanwhile<Finish> meanwhile(call, strip, (last - first) / 2);
    for (int64_t block = first; block + 2 <= last; block += 2) {
        int32_t *to = block / 2 % 2 ? others : sums;
        tiles_2x2(weights, rows.block(block), rows.chunks, to, meanwhile);
        meanwhile.take(to, block * TILE_ROWS);
    }
    meanwhile.rest();
}

inline void by_tiles(const Call &call, int64_t strip, const uint8_t *const *weights, int64_t strips, int64_t first, int64_t last) {
    alignas(64) int32_t sums[4 * TILE_ROWS * LANES];
    const Rows &rows = call.rows;
    int64_t block = first;
    if (strips == 2 && last - first > 1) {
        for_kind_of(call.matrix, [&](auto *kind) {
            pairs_by_tiles<std::remove_pointer_t<decltype(kind)>>(call, strip, weights, first, last);
        });
        block += (last - first) / 2 * 2;
    }
    for (; block < last; block++) {
        int64_t done = 0;
        if (strips == 4) {
            tiles_1x4(weights, rows.block(block), rows.height, rows.chunks, sums);
            for (; done < 4; done++)
                finish(call, strip + done, block * TILE_ROWS, rows.height, sums + done * rows.height * LANES);
        }
        for (; done < strips; done++) {
            tiles_1x1(weights[done], rows.block(block), rows.height, rows.chunks, sums);
            finish(call, strip + done, block * TILE_ROWS, rows.height, sums);
        }
    }
}
#endif

}  // namespace ridgeline
