// Finish: from sums of integers to values: scales, bias, activation, residual. Knows not how the sums were made.
#pragma once

#include <type_traits>

#include "rows.h"

namespace ridgeline {

struct Call {
    const Matrix &matrix;
    const Rows &rows;
    const void *residual;
    void *y;
};

// Of one strip, for one activation and one format.
template <int ACTIVATION, class Format>
class Finisher {
  public:
    Finisher(const Call &call, int64_t strip)
        : row_scales_(call.rows.scales),
          zeros_(call.rows.zeros),
          residual_(call.residual),
          y_(call.y),
          d_out_(call.matrix.d_out),
          at_(strip * LANES),
          scales_(load<Floats>(call.matrix.scales + at_)),
          bias_(call.matrix.bias ? load<Floats>(call.matrix.bias + at_) : Floats{}),
          whole_(load<Ints>(call.matrix.sums + at_)) {}

    // sums: [16].
    RIDGELINE_INLINE void operator()(int64_t row, const int32_t *sums) const {
        const Ints exact = load<Ints>(sums) - zeros_[row] * whole_;
        Floats value = floats(exact) * (scales_ * row_scales_[row]) + bias_;
        if (ACTIVATION == GELU_NEW) value = gelu_new(value);
        if (ACTIVATION == GELU) value = gelu(value);
        if (ACTIVATION == RELU) value = most(value, Floats{});
        const int64_t to = row * d_out_ + at_, left = d_out_ - at_;
        if (residual_) value += load_some<Format>(residual_, to, left);
        store_some<Format>(y_, to, left, value);
    }

  private:
    const float *row_scales_;
    const int32_t *zeros_;
    const void *residual_;
    void *y_;
    const int64_t d_out_, at_;
    const Floats scales_, bias_;
    const Ints whole_;
};

template <class Format, class Run>
RIDGELINE_INLINE void for_activation(int32_t activation, const Run &run) {
    switch (activation) {
        case GELU_NEW: return run((Finisher<GELU_NEW, Format> *)nullptr);
        case GELU: return run((Finisher<GELU, Format> *)nullptr);
        case RELU: return run((Finisher<RELU, Format> *)nullptr);
        default: return run((Finisher<PLAIN, Format> *)nullptr);
    }
}

// run: called with a null pointer to the kind of finisher that a matrix needs.
template <class Run>
RIDGELINE_INLINE void for_kind_of(const Matrix &matrix, const Run &run) {
    if (matrix.is_bfloat16) return for_activation<Short>(matrix.activation, run);
    for_activation<Long>(matrix.activation, run);
}

// sums: [count][16], of one strip.
inline void finish(const Call &call, int64_t strip, int64_t first, int64_t count, const int32_t *sums) {
    count = std::min(count, call.rows.count - first);
    for_kind_of(call.matrix, [&](auto *kind) {
        const std::remove_pointer_t<decltype(kind)> finisher(call, strip);
        for (int64_t row = 0; row < count; row++) finisher(first + row, sums + row * LANES);
    });
}

}  // namespace ridgeline
