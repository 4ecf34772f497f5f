// y = residual + activation(x W^T + b) with weights of 8 or 4 bits. x and y are float32 or bfloat16.
//
// Every row of x becomes unsigned bytes with a scale and a zero of its own: x = scale * (byte - zero). A weight is an
// integer of 8 bits times a scale of its output, so sums are integers and exact, and a row's result is bitwise the same
// whatever other rows there are and whichever instructions made the sums.

#include <omp.h>

#include <algorithm>
#include <new>

#include "pack.h"
#include "tiles.h"

using namespace ridgeline;

namespace {

enum Activation : int32_t { PLAIN = 0, GELU_NEW = 1, GELU = 2, RELU = 3 };

}  // namespace

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

namespace {

// Rows that are multiplied with weights in registers. More of them share weights that were widened once.
constexpr int64_t FEW = 4;
// From so many rows the matrix unit is faster than vectors.
constexpr int64_t TILED = 5;
constexpr int64_t MOST_STRIPS = 4;

int64_t chunks_of(const Matrix &matrix) { return (matrix.d_in + CHUNK - 1) / CHUNK; }
int64_t strips_of(const Matrix &matrix) { return (matrix.d_out + LANES - 1) / LANES; }

// The activations of a call: bytes in blocks of at most 16 rows, [d_in / 64][height][64] each.
struct Rows {
    uint8_t *bytes;
    float *scales;
    int32_t *zeros;
    int64_t count, height, chunks;

    int64_t blocks() const { return (count + TILE_ROWS - 1) / TILE_ROWS; }
    const uint8_t *block(int64_t at) const { return bytes + at * TILE_ROWS * chunks * CHUNK; }
};

Floats load_row(const Matrix &matrix, const void *from, int64_t at, int64_t count) {
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

void store_row(const Matrix &matrix, void *to, int64_t at, int64_t count, Floats value) {
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

void quantise(const Matrix &matrix, const void *x, const Rows &rows, int64_t row) {
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    const int64_t d_in = matrix.d_in;
    const void *from = (const uint8_t *)x + row * d_in * (matrix.is_bfloat16 ? 2 : 4);
    Floats low = {}, high = {};
    for (int64_t at = 0; at < d_in; at += LANES) {
        const Floats some = load_row(matrix, from, at, d_in - at);
        low = least(low, some);
        high = most(high, some);
    }
    float bottom = 0.0f, top = 0.0f;
    for (int64_t lane = 0; lane < LANES; lane++) {
        bottom = std::min(bottom, low[lane]);
        top = std::max(top, high[lane]);
    }
    const float scale = (top - bottom) / 255.0f, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    const int32_t zero = nearest(all(-bottom * inverse))[0];
    rows.scales[row] = scale;
    rows.zeros[row] = zero;
    uint8_t *to = rows.bytes + row / TILE_ROWS * TILE_ROWS * rows.chunks * CHUNK + row % TILE_ROWS * CHUNK;
    for (int64_t chunk = 0; chunk < rows.chunks; chunk++, to += rows.height * CHUNK)
        for (int64_t at = 0; at < CHUNK; at += LANES) {
            const int64_t begin = chunk * CHUNK + at;
            const Floats some = begin < d_in ? load_row(matrix, from, begin, d_in - begin) : Floats{};
            const Ints whole = nearest(some * inverse) + zero, bounded = whole < 0 ? Ints{} : whole;
            store(to + at, __builtin_convertvector(bounded > 255 ? Ints{} + 255 : bounded, Bytes));
        }
}

// What is behind the last row of the last block, where blocks are full.
void clear_rest(const Rows &rows) {
    for (int64_t row = rows.count; row < rows.blocks() * rows.height; row++) {
        uint8_t *to = rows.bytes + row / TILE_ROWS * TILE_ROWS * rows.chunks * CHUNK + row % TILE_ROWS * CHUNK;
        for (int64_t chunk = 0; chunk < rows.chunks; chunk++) std::memset(to + chunk * rows.height * CHUNK, 0, CHUNK);
    }
}

struct Call {
    const Matrix &matrix;
    const Rows &rows;
    const void *residual;
    void *y;
};

// sums: [count][16], of one strip.
template <int ACTIVATION>
void finish_as(const Call &call, int64_t strip, int64_t first, int64_t count, const int32_t *sums) {
    const Matrix &matrix = call.matrix;
    const int64_t at = strip * LANES, left = matrix.d_out - at;
    const Floats scales = load<Floats>(matrix.scales + at);
    const Ints whole = load<Ints>(matrix.sums + at);
    const Floats bias = matrix.bias ? load<Floats>(matrix.bias + at) : Floats{};
    for (int64_t row = first; row < first + count; row++, sums += LANES) {
        const Ints exact = load<Ints>(sums) - call.rows.zeros[row] * whole;
        Floats value = floats(exact) * (scales * call.rows.scales[row]) + bias;
        if (ACTIVATION == GELU_NEW) value = gelu_new(value);
        if (ACTIVATION == GELU) value = gelu(value);
        if (ACTIVATION == RELU) value = most(value, Floats{});
        const int64_t to = row * matrix.d_out + at;
        if (call.residual) value += load_row(matrix, call.residual, to, left);
        store_row(matrix, call.y, to, left, value);
    }
}

void finish(const Call &call, int64_t strip, int64_t first, int64_t count, const int32_t *sums) {
    count = std::min(count, call.rows.count - first);
    switch (call.matrix.activation) {
        case GELU_NEW: return finish_as<GELU_NEW>(call, strip, first, count, sums);
        case GELU: return finish_as<GELU>(call, strip, first, count, sums);
        case RELU: return finish_as<RELU>(call, strip, first, count, sums);
        default: return finish_as<PLAIN>(call, strip, first, count, sums);
    }
}

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
void few(const Call &call, int64_t strip, const uint8_t *weights, bool is_wide, int64_t block, int64_t row, int64_t count) {
    switch (count) {
        case 1: return few_of<1>(call, strip, weights, is_wide, block, row);
        case 2: return few_of<2>(call, strip, weights, is_wide, block, row);
        case 3: return few_of<3>(call, strip, weights, is_wide, block, row);
        default: return few_of<4>(call, strip, weights, is_wide, block, row);
    }
}

// Rows of some blocks with one strip, on vectors.
void by_vectors(const Call &call, int64_t strip, const uint8_t *weights, int64_t first, int64_t last) {
    for (int64_t block = first; block < last; block++) {
        const int64_t count = std::min(TILE_ROWS, call.rows.count - block * TILE_ROWS);
        int64_t row = 0;
        for (; row + 8 <= count; row += 8) few_of<8>(call, strip, weights, true, block, row);
        for (; row < count; row += FEW) few(call, strip, weights, true, block, row, std::min(FEW, count - row));
    }
}

#if RIDGELINE_TILES
void by_tiles(const Call &call, int64_t strip, const uint8_t *const *weights, int64_t strips, int64_t first, int64_t last) {
    alignas(64) int32_t sums[4 * TILE_ROWS * LANES];
    const Rows &rows = call.rows;
    int64_t block = first;
    for (; strips == 2 && block + 2 <= last; block += 2) {
        tiles_2x2(weights, rows.block(block), rows.chunks, sums);
        for (int64_t i = 0; i < 2; i++)
            finish(call, strip + i, block * TILE_ROWS, 2 * TILE_ROWS, sums + i * 2 * TILE_ROWS * LANES);
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

void work(const Call &call, const Division &by, int64_t begin, int64_t end) {
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

}  // namespace

extern "C" {

// x: [rows][d_in], y and residual (or null): [rows][d_out]. Returns 0, or 1 where there is no memory.
int ridgeline_linear(const Matrix *told, const void *x, const void *residual, void *y, int64_t count) {
    if (count == 0) return 0;
    const Matrix &matrix = *told;
    Rows rows;
    rows.count = count;
    rows.chunks = chunks_of(matrix);
    rows.height = std::min(count, TILE_ROWS);
    const int64_t padded = rows.blocks() * rows.height;
    try {
        const int64_t bytes = padded * rows.chunks * CHUNK;
        rows.bytes = activations.at_least((size_t)(bytes + padded * 8));
        rows.scales = (float *)(rows.bytes + bytes);
        rows.zeros = (int32_t *)(rows.scales + padded);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    const Call call = {matrix, rows, residual, y};
    const Division by(matrix, rows);
    const bool alone = count <= 2;  // not worth a meeting of all threads
    if (alone)
        for (int64_t row = 0; row < count; row++) quantise(matrix, x, rows, row);
#pragma omp parallel num_threads(matrix.threads)
    {
        const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        if (!alone) {
            if (thread == 0) clear_rest(rows);
#pragma omp for schedule(static)
            for (int64_t row = 0; row < count; row++) quantise(matrix, x, rows, row);
        }
#if RIDGELINE_TILES
        if (by.tiled) {
            const TileSetup setup(rows.height);
            work(call, by, by.items() * thread / threads, by.items() * (thread + 1) / threads);
        } else
#endif
            work(call, by, by.items() * thread / threads, by.items() * (thread + 1) / threads);
    }
    return 0;
}

// weight: [d_out][d_in] in the format of x. Fills what the matrix says by its addresses. Returns as ridgeline_linear.
int ridgeline_pack(const Matrix *told, const void *weight, uint8_t *strips, float *scales, int32_t *sums) {
    const Matrix &matrix = *told;
    const int64_t width = chunks_of(matrix) * CHUNK, value_bytes = matrix.is_bfloat16 ? 2 : 4;
    int failed = 0;
#pragma omp parallel for schedule(static) num_threads(matrix.threads)
    for (int64_t strip = 0; strip < strips_of(matrix); strip++) {
        try {
            std::vector<float> row((size_t)width);
            uint8_t *to = strips + strip * matrix.strip_bytes;
            std::memset(to, 0, (size_t)matrix.strip_bytes);
            for (int64_t lane = 0; lane < LANES; lane++) {
                const int64_t output = strip * LANES + lane;
                std::fill(row.begin(), row.end(), 0.0f);
                const void *from = (const uint8_t *)weight + output * matrix.d_in * value_bytes;
                for (int64_t at = 0; output < matrix.d_out && at < matrix.d_in; at += LANES) {
                    store(row.data() + at, load_row(matrix, from, at, matrix.d_in - at));
                }
                const auto pack = matrix.bits == 8 ? pack_8 : pack_4;
                scales[output] = pack(row.data(), width, lane, to, sums + output);
            }
        } catch (const std::bad_alloc &) {
#pragma omp atomic write
            failed = 1;
        }
    }
    return failed;
}

// Rows of the table as values in the format of x: y [count][d_in]. ids are below d_out.
void ridgeline_gather(const Matrix *told, const int64_t *ids, void *y, int64_t count) {
    const Matrix &matrix = *told;
    const int64_t d_in = matrix.d_in, chunks = chunks_of(matrix);
#pragma omp parallel for schedule(static) num_threads(matrix.threads) if (count > 8)
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *strip = matrix.strips + ids[i] / LANES * matrix.strip_bytes;
        const int64_t lane = ids[i] % LANES;
        const uint8_t *codes = matrix.bits == 4 ? strip + multiplier_bytes(chunks) : strip;
        for (int64_t at = 0; at < d_in; at += LANES) {
            Ints values = {};
            for (int64_t k = at; k < std::min(at + LANES, d_in); k++) {
                if (matrix.bits == 8) {
                    values[k - at] = (int8_t)codes[k / 4 * LINE + lane * 4 + k % 4];
                    continue;
                }
                const int byte = codes[k / 8 * LINE + lane * 4 + k % 4], code = k % 8 < 4 ? byte & 15 : byte >> 4;
                values[k - at] = (code - 8) * multiplier_at(strip, lane, k);
            }
            store_row(matrix, y, i * d_in + at, d_in - at, floats(values) * matrix.scales[ids[i]]);
        }
    }
}

}  // extern "C"
