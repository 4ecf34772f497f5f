// Finish: from sums of integers to values: scales, bias, activation, residual. Knows not how the sums were made.
#pragma once

#include "rows.h"

namespace ridgeline {

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

inline void finish(const Call &call, int64_t strip, int64_t first, int64_t count, const int32_t *sums) {
    count = std::min(count, call.rows.count - first);
    switch (call.matrix.activation) {
        case GELU_NEW: return finish_as<GELU_NEW>(call, strip, first, count, sums);
        case GELU: return finish_as<GELU>(call, strip, first, count, sums);
        case RELU: return finish_as<RELU>(call, strip, first, count, sums);
        default: return finish_as<PLAIN>(call, strip, first, count, sums);
    }
}

}  // namespace ridgeline
