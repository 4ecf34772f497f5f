// Division: which products of a call a thread makes, and in what memory. Knows no instruction.
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

// How a call is divided: items are strips side by side times parts of the rows; a thread takes items that follow each
// other, so that it reads weights in one run.
struct Division {
    int64_t strips, width, parts, blocks;
    bool tiled, in_registers;

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
        width = tiled ? (blocks == 1 ? 4 : 2) : 1;
        // Few strips for many threads: rows are divided as well.
        const int64_t wanted = 4 * (int64_t)matrix.threads;
        parts = std::max<int64_t>(1, std::min((blocks + 1) / 2, wanted / std::max<int64_t>(1, strips / width)));
    }
    int64_t items() const { return (strips + width - 1) / width * parts; }
};

inline void work(const Call &call, const Division &by, int64_t begin, int64_t end) {
    const Matrix &matrix = call.matrix;
    const int64_t wide_bytes = call.rows.chunks * TILE_BYTES;
    uint8_t *wide = matrix.bits == 4 && !by.in_registers ? widened.at_least((size_t)(by.width * wide_bytes)) : nullptr;
    int64_t held = -1;
    for (int64_t item = begin; item < end; item++) {
        const int64_t strip = item / by.parts * by.width, part = item % by.parts;
        const int64_t pairs = (by.blocks + 1) / 2;  // blocks stay together in pairs
        const int64_t first = pairs * part / by.parts * 2, last = std::min(by.blocks, pairs * (part + 1) / by.parts * 2);
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
        by_vectors(call, strip, weights[0], first, last);
    }
}

}  // namespace ridgeline
