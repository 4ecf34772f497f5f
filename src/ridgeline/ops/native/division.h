// Division: into which items the products of a call are cut, and in what memory they are made. Knows no instruction.
#pragma once

#include <new>

#include "products.h"

namespace ridgeline {

// Memory that a thread keeps from call to call.
class Scratch {
  public:
    uint8_t *at_least(size_t bytes) {
        if (bytes > size_) {
            release();
            data_ = (uint8_t *)::operator new(bytes, std::align_val_t(LINE));
            size_ = bytes;
        }
        return data_;
    }
    ~Scratch() { release(); }

  private:
    void release() {
        if (data_) ::operator delete(data_, std::align_val_t(LINE));
        data_ = nullptr;
        size_ = 0;
    }
    uint8_t *data_ = nullptr;
    size_t size_ = 0;
};

thread_local Scratch activations, widened;

// Pairs of blocks of a part at least where rows are divided and not strips.
constexpr int64_t OWN_PAIRS = 4;

// How a call is divided: items are strips side by side times parts of the rows; a thread takes runs of items, so that it
// reads weights one after the other. Of many rows it takes all strips of a part: bytes and values of a row then stay in
// its own cache, and nobody waits until all rows are bytes.
struct Division {
    int64_t strips, width, parts, blocks;
    bool tiled, in_registers, own_rows;

    Division(const Matrix &matrix, const Rows &rows) {
        strips = strips_of(matrix);
        blocks = rows.blocks();
        tiled = false;
#if RIDGELINE_TILES
        tiled = rows.count >= TILED && tiles_granted();
#endif
        in_registers = !tiled && rows.count <= FEW;
#if !(defined(__AVX512VNNI__) && defined(__AVX512BW__))
        in_registers = in_registers && matrix.bits == 8;
#endif
        width = tiled ? (blocks == 1 ? 4 : 2) : in_registers ? 1 : 2;
        // Few strips for many threads: rows are divided as well.
        const int64_t threads = threads_of(matrix.team), wanted = 4 * threads;
        own_rows = tiled && pairs() >= OWN_PAIRS * threads;
        parts = std::max<int64_t>(1, std::min(pairs(), wanted / std::max<int64_t>(1, strips / width)));
        if (own_rows) parts = std::min(2 * threads, pairs() / OWN_PAIRS);
    }
    int64_t pairs() const { return (blocks + 1) / 2; }  // blocks stay together in pairs
    int64_t groups() const { return (strips + width - 1) / width; }
    int64_t items() const { return groups() * parts; }
    int64_t strip(int64_t item) const { return (own_rows ? item % groups() : item / parts) * width; }
    int64_t part(int64_t item) const { return own_rows ? item / groups() : item % parts; }
    int64_t first_block(int64_t part) const { return std::min(blocks, pairs() * part / parts * 2); }
};

inline void work(const Call &call, const Division &by, int64_t begin, int64_t end) {
    const Matrix &matrix = call.matrix;
    const int64_t wide_bytes = call.rows.chunks * TILE_BYTES;
    uint8_t *wide = matrix.bits == 4 && !by.in_registers ? widened.at_least((size_t)(by.width * wide_bytes)) : nullptr;
    int64_t held = -1;
    for (int64_t item = begin; item < end; item++) {
        const int64_t strip = by.strip(item), part = by.part(item);
        const int64_t first = by.first_block(part), last = by.first_block(part + 1);
        const int64_t count = std::min(by.width, by.strips - strip);
        const uint8_t *weights[MOST_STRIPS];
        for (int64_t i = 0; i < count; i++) {
            weights[i] = matrix.strips + (strip + i) * matrix.strip_bytes;
            if (!wide) continue;
            if (held != strip) widen(weights[i], call.rows.chunks, wide + i * wide_bytes);
            weights[i] = wide + i * wide_bytes;
        }
        held = strip;
        if (by.in_registers) {
            few(call, strip, weights[0], matrix.bits == 8, 0, 0, call.rows.count);
            continue;
        }
#if RIDGELINE_TILES
        if (by.tiled) {
            by_tiles(call, strip, weights, count, first, last);
            continue;
        }
#endif
        by_vectors(call, strip, weights, count, first, last);
    }
}

}  // namespace ridgeline
