// y = residual + activation(x W^T + b) for few rows, with W as it is: [d_out][d_in] of float32, bfloat16 or float16, read
// once. x, y and residual are float32, or
// bfloat16 with such weights; sums are float32. What a row gives is bitwise the same whatever other
// rows there are.

#include <new>

#include "plain.h"
#include "squares.h"

extern "C" {

// What a call is told of a layer. bias: float32, a value for every output, or null.
struct Plain {
    const void *weight;
    const float *bias;
    ridgeline::Team *team;  // or null: the caller alone
    int64_t d_in, d_out;
    int32_t format, activation, is_bfloat16, unused;
};

}  // extern "C"

namespace ridgeline {

enum Activation : int32_t { PLAIN = 0, GELU_NEW = 1, GELU = 2, RELU = 3 };

constexpr int64_t BLOCK = 32;  // rows whose sums a thread keeps at a time

// Memory that a thread keeps from call to call.
class Kept {
  public:
    float *at_least(size_t values) {
        if (values > size_) {
            release();
            data_ = (float *)::operator new(values * sizeof(float), std::align_val_t(64));
            size_ = values;
        }
        return data_;
    }
    ~Kept() { release(); }

  private:
    void release() {
        if (data_) ::operator delete(data_, std::align_val_t(64));
        data_ = nullptr;
        size_ = 0;
    }
    float *data_ = nullptr;
    size_t size_ = 0;
};

thread_local Kept activations, last_rows;

// x: spread, [count][padded d_in]; or turned, in blocks of 16 rows.
struct Call {
    const Plain &layer;
    const void *x;
    const void *residual;
    void *y;
    int64_t count;
};

inline Floats activated(int32_t activation, Floats value) {
    switch (activation) {
        case GELU_NEW: return gelu_new(value);
        case GELU: return gelu(value);
        case RELU: return most(value, Floats{});
        default: return value;
    }
}

// sums: [count][16], of outputs from `output` on and rows from `first` on.
inline void finish(const Call &call, int64_t output, int64_t first, int64_t count, const float *sums) {
    const Plain &layer = call.layer;
    const int64_t left = layer.d_out - output;
    const Floats bias = layer.bias ? load_some(false, layer.bias, output, left) : Floats{};
    for (int64_t row = first; row < first + count; row++, sums += LANES) {
        Floats value = activated(layer.activation, load<Floats>(sums) + bias);
        const int64_t at = row * layer.d_out + output;
        if (call.residual) value += load_some(layer.is_bfloat16, call.residual, at, left);
        store_some(layer.is_bfloat16, call.y, at, left, value);
    }
}

// Outputs in sixteens, from the `begin`th to before the `end`th.
template <class Kind>
void work(const Call &call, int64_t begin, int64_t end) {
    typedef typename Kind::Weight Weight;
    const Plain &layer = call.layer;
    alignas(64) float sums[BLOCK * LANES];
    for (int64_t item = begin; item < end; item++)
        for (int64_t first = 0; first < call.count; first += BLOCK) {
            const int64_t count = std::min(BLOCK, call.count - first);
            for (int64_t lane = 0; lane < LANES; lane += OUTPUTS) {
                const Weight *weights[OUTPUTS];
                for (int output = 0; output < OUTPUTS; output++)
                    weights[output] = (const Weight *)layer.weight +
                                      std::min(item * LANES + lane + output, layer.d_out - 1) * layer.d_in;
                const float *x = (const float *)call.x + first * padded(layer.d_in);
                dots_of<Kind>(weights, OUTPUTS * layer.d_in, x, count, layer.d_in, sums + lane);
            }
            finish(call, item * LANES, first, count, sums);
        }
}

#if RIDGELINE_SQUARES

// A single row too: it comes as fast as memory either way, and gets the bits that it gets among others.
inline bool is_square(const Plain &layer) {
    return layer.format == BFLOAT16 && layer.is_bfloat16 && layer.d_in % DEPTH == 0 && tiles_granted();
}

template <int STRIPS>
void squares_of(const Call &call, int64_t item, const uint16_t *weight, int64_t ahead) {
    alignas(64) float sums[4 * AREA], turned[AREA];
    const int64_t d_in = call.layer.d_in, block_words = d_in / DEPTH * AREA;
    const auto finished = [&](int64_t strip, int64_t row, const float *made) {
        const int64_t count = std::min(SIDE, call.count - row);
        turn_back(made, count, turned);
        finish(call, (item + strip) * LANES, row, count, turned);
    };
    int64_t row = 0;
    for (; row + SIDE < call.count; row += 2 * SIDE, ahead = 0) {
        squares<STRIPS, 2>(weight, ahead, (const uint32_t *)call.x + row / SIDE * block_words, d_in, sums);
        for (int64_t strip = 0; strip < STRIPS; strip++)
            for (int64_t block = 0; block < 2; block++)
                finished(strip, row + block * SIDE, sums + (strip * 2 + block) * AREA);
    }
    if (row < call.count) {
        squares<STRIPS, 1>(weight, ahead, (const uint32_t *)call.x + row / SIDE * block_words, d_in, sums);
        for (int64_t strip = 0; strip < STRIPS; strip++) finished(strip, row, sums + strip * AREA);
    }
}

// As work. Rows behind the matrix are not read: the last outputs are copied if they are fewer than sixteen.
inline void work_in_squares(const Call &call, int64_t begin, int64_t end) {
    const Plain &layer = call.layer;
    const int64_t d_in = layer.d_in, whole = std::min(end, layer.d_out / SIDE);
    const auto rows_of = [&](int64_t item) { return (const uint16_t *)layer.weight + item * SIDE * d_in; };
    const TileSetup setup(SIDE);
    int64_t item = begin;
    for (; item + 2 <= whole; item += 2) squares_of<2>(call, item, rows_of(item), 2 * SIDE * d_in);
    for (; item < whole; item++) squares_of<1>(call, item, rows_of(item), SIDE * d_in);
    for (; item < end; item++) {
        uint16_t *copy = (uint16_t *)last_rows.at_least((size_t)(SIDE * d_in / 2));
        const int64_t left = (layer.d_out - item * SIDE) * d_in;
        std::memcpy(copy, rows_of(item), (size_t)left * 2);
        std::memset(copy + left, 0, (size_t)(SIDE * d_in - left) * 2);
        squares_of<1>(call, item, copy, 0);
    }
}

#endif

inline int64_t items_of(const Plain &layer) { return (layer.d_out + LANES - 1) / LANES; }

#if RIDGELINE_SQUARES
inline void by_squares(const Plain &layer, const void *x, const void *residual, void *y, int64_t count) {
    const int64_t chunks = layer.d_in / DEPTH, blocks = (count + SIDE - 1) / SIDE;
    uint32_t *made = (uint32_t *)activations.at_least((size_t)((blocks + blocks % 2) * chunks * AREA));
    const Call call = {layer, made, residual, y, count};
    share(layer.team, blocks * chunks, {chunks, INT64_MAX}, [&](Turn &mine) {
        while (mine.next())
            for (int64_t tile = mine.begin; tile < mine.end; tile++) {
                const int64_t first = tile / chunks * SIDE;
                const uint16_t *rows = (const uint16_t *)x + first * layer.d_in;
                turn(rows, layer.d_in, tile % chunks, std::min(SIDE, count - first), made + tile * AREA);
            }
    });
    share(layer.team, items_of(layer), {2, INT64_MAX}, [&](Turn &mine) {
        while (mine.next()) work_in_squares(call, mine.begin, mine.end);
    });
}
#endif

inline void by_streams(const Plain &layer, const void *x, const void *residual, void *y, int64_t count) {
    const int64_t row_values = padded(layer.d_in), row_bytes = layer.d_in * (layer.is_bfloat16 ? 2 : 4);
    float *made = activations.at_least((size_t)(count * row_values));
    const auto prepare = [&](int64_t row) {
        const auto as = layer.format == BFLOAT16 ? spread<Bfloat16> : spread<Float32>;
        as(layer.is_bfloat16, (const uint8_t *)x + row * row_bytes, layer.d_in, made + row * row_values);
    };
    const Call call = {layer, made, residual, y, count};
    // A few are not worth a meeting.
    share(layer.team, count, {3, INT64_MAX}, [&](Turn &turn) {
        while (turn.next())
            for (int64_t row = turn.begin; row < turn.end; row++) prepare(row);
    });
    share(layer.team, items_of(layer), {}, [&](Turn &turn) {
        while (turn.next()) switch (layer.format) {
                case BFLOAT16: work<Bfloat16>(call, turn.begin, turn.end); break;
                case FLOAT16: work<Float16>(call, turn.begin, turn.end); break;
                default: work<Float32>(call, turn.begin, turn.end);
            }
    });
}

}  // namespace ridgeline

using namespace ridgeline;

extern "C" {

// Whether rows of bfloat16 are multiplied by a matrix unit.
int ridgeline_has_squares() {
#if RIDGELINE_SQUARES
    return tiles_granted();
#else
    return 0;
#endif
}

// x: [count][d_in], y and residual (or null): [count][d_out]. Returns 0, or 1 where there is no memory.
int ridgeline_dense(const Plain *told, const void *x, const void *residual, void *y, int64_t count) {
    if (count == 0) return 0;
    try {
#if RIDGELINE_SQUARES
        if (is_square(*told)) return by_squares(*told, x, residual, y, count), 0;
#endif
        by_streams(*told, x, residual, y, count);
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}

// x, y: [count][d]. Returns 0.
int ridgeline_dense_norm(const PlainNorm *told, const void *x, void *y, int64_t count) {
    share(told->team, count, A_FEW_ALONE, [=](Turn &turn) {
        while (turn.next())
            for (int64_t row = turn.begin; row < turn.end; row++) normalise(*told, x, y, row);
    });
    return 0;
}

// Rows `ids` of the first table, and `places` of the second added where there is one: y [count][d]. Returns 0.
int ridgeline_dense_rows(const PlainRows *told, const int64_t *ids, const int64_t *places, void *y, int64_t count) {
    share(told->team, count, A_FEW_ALONE, [=](Turn &turn) {
        while (turn.next())
            for (int64_t row = turn.begin; row < turn.end; row++)
                look_up(*told, ids[row], told->second ? places[row] : 0, y, row);
    });
    return 0;
}

}  // extern "C"
