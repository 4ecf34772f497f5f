// y = residual + activation(x W^T + b) with weights of 8 or 4 bits. x and y are float32 or bfloat16.
//
// Every row of x becomes unsigned bytes with a scale and a zero of its own: x = scale * (byte - zero). A weight is an
// integer of 8 bits times a scale of its output, so sums are integers and exact, and a row's result is bitwise the same
// whatever other rows there are and whichever instructions made the sums.

#include <omp.h>

#include "division.h"
#include "pack.h"

using namespace ridgeline;

extern "C" {

// x: [rows][d_in], y and residual (or null): [rows][d_out]; norm (or null): what x goes through before it is multiplied.
// Returns 0, or 1 where there is no memory.
int ridgeline_linear(const Matrix *told, const void *x, const Norm *norm, const void *residual, void *y, int64_t count) {
    if (count == 0) return 0;
    const Matrix &matrix = *told;
    Rows rows;
    rows.count = count;
    rows.chunks = chunks_of(matrix);
    rows.height = std::min(count, TILE_ROWS);
    const int64_t padded = rows.blocks() * rows.height, width = rows.chunks * CHUNK, bytes = padded * width;
    float *rooms;  // of every thread, for a row on its way through the norm
    try {
        rows.bytes = activations.at_least((size_t)(bytes + padded * 8 + (norm ? matrix.threads * width * 4 : 0)));
        rows.scales = (float *)(rows.bytes + bytes);
        rows.zeros = (int32_t *)(rows.scales + padded);
        rooms = (float *)(rows.zeros + padded);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    const Call call = {matrix, rows, residual, y};
    const Division by(matrix, rows);
    const bool alone = count <= 2;  // not worth a meeting of all threads
    if (alone)
        for (int64_t row = 0; row < count; row++) quantise(matrix, x, norm, rows, row, rooms);
#pragma omp parallel num_threads(matrix.threads)
    {
        const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        if (!alone) {
            const bool own = by.own_rows && threads == by.parts;
            const int64_t begin = own ? by.first_block(thread) * TILE_ROWS : count * thread / threads;
            const int64_t end = own ? by.first_block(thread + 1) * TILE_ROWS : count * (thread + 1) / threads;
            for (int64_t row = begin; row < std::min(end, count); row++)
                quantise(matrix, x, norm, rows, row, rooms + thread * width);
            if (thread == threads - 1) clear_rest(rows);
            if (!own) {
#pragma omp barrier
            }
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
