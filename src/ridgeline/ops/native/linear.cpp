// y = residual + activation(x W^T + b) with weights of 8 or 4 bits. x and y are float32 or bfloat16.
//
// Every row of x becomes unsigned bytes with a scale and a zero of its own: x = scale * (byte - zero). A weight is an
// integer of 8 bits times a scale of its output, so sums are integers and exact, and a row's result is bitwise the same
// whatever other rows there are and whichever instructions made the sums.

#include "division.h"
#include "pack.h"

using namespace ridgeline;

extern "C" {

// A table of bytes [ids][d_in], with a scale for each row. ids: which of its rows.
struct ByteTable {
    const int8_t *codes;
    const float *scales;
    const int64_t *ids;
};

}  // extern "C"

namespace {

// Sixteen values of row `id`, from `at` on.
Floats looked_up(const Matrix &matrix, int64_t id, int64_t at) {
    const int64_t lane = id % LANES;
    const uint8_t *strip = matrix.strips + id / LANES * matrix.strip_bytes;
    const uint8_t *codes = matrix.bits == 4 ? strip + multiplier_bytes(chunks_of(matrix)) : strip;
    Ints values = {};
    for (int64_t k = at; k < std::min(at + LANES, matrix.d_in); k++) {
        if (matrix.bits == 8) {
            values[k - at] = (int8_t)codes[k / 4 * LINE + lane * 4 + k % 4];
            continue;
        }
        const int byte = codes[k / 8 * LINE + lane * 4 + k % 4], code = k % 8 < 4 ? byte & 15 : byte >> 4;
        values[k - at] = (code - 8) * multiplier_at(strip, lane, k);
    }
    return floats(values) * matrix.scales[id];
}

Floats looked_up(const ByteTable &table, int64_t d, int64_t id, int64_t at) {
    Ints values = {};
    for (int64_t k = at; k < std::min(at + LANES, d); k++) values[k - at] = table.codes[id * d + k];
    return floats(values) * table.scales[id];
}

}  // namespace

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
        rows.bytes = activations.at_least((size_t)(bytes + padded * 8 + (norm ? threads_of(matrix.team) * width * 4 : 0)));
        rows.scales = (float *)(rows.bytes + bytes);
        rows.zeros = (int32_t *)(rows.scales + padded);
        rooms = (float *)(rows.zeros + padded);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    const auto prepare = [&](int thread, int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row++) quantise(matrix, x, norm, rows, row, rooms + thread * width);
    };
    const Call call = {matrix, rows, residual, y};
    const Division by(matrix, rows);
    clear_rest(rows);
    if (by.own_rows) {
        share(matrix.team, by.parts, {1, 1}, [&](Turn &turn) {
            while (turn.next()) {
                const int64_t first = by.first_block(turn.begin), last = by.first_block(turn.end);
                prepare(turn.thread, first * TILE_ROWS, std::min(last * TILE_ROWS, count));
                work(call, by, turn.begin * by.groups(), turn.end * by.groups());
            }
        });
        return 0;
    }
    // A few are not worth a meeting.
    share(matrix.team, count, {3, INT64_MAX}, [&](Turn &turn) {
        while (turn.next()) prepare(turn.thread, turn.begin, turn.end);
    });
    share(matrix.team, by.items(), {1, INT64_MAX}, [&](Turn &turn) {
        while (turn.next()) work(call, by, turn.begin, turn.end);
    });
    return 0;
}

// weight: [d_out][d_in] in the format of x. Fills what the matrix says by its addresses. Returns as ridgeline_linear.
int ridgeline_pack(const Matrix *told, const void *weight, uint8_t *strips, float *scales, int32_t *sums) {
    const Matrix &matrix = *told;
    const int64_t width = chunks_of(matrix) * CHUNK, value_bytes = matrix.is_bfloat16 ? 2 : 4;
    const auto pack = matrix.bits == 8 ? pack_8 : pack_4;
    const auto pack_strip = [&](int64_t strip, std::vector<float> &row) {
        uint8_t *to = strips + strip * matrix.strip_bytes;
        std::memset(to, 0, (size_t)matrix.strip_bytes);
        for (int64_t lane = 0; lane < LANES; lane++) {
            const int64_t output = strip * LANES + lane;
            std::fill(row.begin(), row.end(), 0.0f);
            const void *from = (const uint8_t *)weight + output * matrix.d_in * value_bytes;
            for (int64_t at = 0; output < matrix.d_out && at < matrix.d_in; at += LANES)
                store(row.data() + at, load_row(matrix, from, at, matrix.d_in - at));
            scales[output] = pack(row.data(), width, lane, to, sums + output);
        }
    };
    std::atomic<int> failed{0};
    share(matrix.team, strips_of(matrix), {}, [&](Turn &turn) {
        while (turn.next()) {
            try {
                std::vector<float> row((size_t)width);
                for (int64_t strip = turn.begin; strip < turn.end; strip++) pack_strip(strip, row);
            } catch (const std::bad_alloc &) {
                failed = 1;
            }
        }
    });
    return failed;
}

// Rows of the matrix as values in the format of x, and those of another table added if there is one: y [count][d_in]. ids
// are below d_out. Returns 0.
int ridgeline_gather(const Matrix *told, const int64_t *ids, const ByteTable *other, void *y, int64_t count) {
    const int64_t d_in = told->d_in;
    share(told->team, count, {8, INT64_MAX}, [=](Turn &turn) {
        while (turn.next())
            for (int64_t i = turn.begin; i < turn.end; i++)
                for (int64_t at = 0; at < d_in; at += LANES) {
                    Floats value = looked_up(*told, ids[i], at);
                    if (other) value += looked_up(*other, d_in, other->ids[i], at);
                    store_row(*told, y, i * d_in + at, d_in - at, value);
                }
    });
    return 0;
}

}  // extern "C"
