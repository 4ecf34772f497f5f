// y = residual + activation(x W^T + b) for few rows, with W as it is: [d_out][d_in] of float32, bfloat16 or float16, read
// once. x, y and residual are float32, or
// bfloat16 with such weights; sums are float32. What a row gives is bitwise the same whatever other
// rows there are.

#include <omp.h>

#include <new>

#include "streams.h"

extern "C" {

// What a call is told of a layer. bias: float32, a value for every output, or null.
struct Plain {
    const void *weight;
    const float *bias;
    int64_t d_in, d_out;
    int32_t format, activation, is_bfloat16, threads;
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

thread_local Kept activations;

// x: spread, [count][padded d_in].
struct Call {
    const Plain &layer;
    const float *x;
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
                const float *x = call.x + first * padded(layer.d_in);
                dots_of<Kind>(weights, OUTPUTS * layer.d_in, x, count, layer.d_in, sums + lane);
            }
            finish(call, item * LANES, first, count, sums);
        }
}

}  // namespace ridgeline

using namespace ridgeline;

extern "C" {

// x: [count][d_in], y and residual (or null): [count][d_out]. Returns 0, or 1 where there is no memory.
int ridgeline_dense(const Plain *told, const void *x, const void *residual, void *y, int64_t count) {
    if (count == 0) return 0;
    const Plain &layer = *told;
    const int64_t row_values = padded(layer.d_in), items = (layer.d_out + LANES - 1) / LANES;
    float *spread_out;
    try {
        spread_out = activations.at_least((size_t)(count * row_values));
    } catch (const std::bad_alloc &) {
        return 1;
    }
    const Call call = {layer, spread_out, residual, y, count};
    const int64_t row_bytes = layer.d_in * (layer.is_bfloat16 ? 2 : 4);
    const auto prepare = [&](int64_t row) {
        const auto as = layer.format == BFLOAT16 ? spread<Bfloat16> : spread<Float32>;
        as(layer.is_bfloat16, (const uint8_t *)x + row * row_bytes, layer.d_in, spread_out + row * row_values);
    };
    const bool alone = count <= 2;  // not worth a meeting of all threads
    for (int64_t row = 0; alone && row < count; row++) prepare(row);
#pragma omp parallel num_threads(layer.threads)
    {
        const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        if (!alone) {
#pragma omp for schedule(static)
            for (int64_t row = 0; row < count; row++) prepare(row);
        }
        const int64_t begin = items * thread / threads, end = items * (thread + 1) / threads;
        switch (layer.format) {
            case BFLOAT16: work<Bfloat16>(call, begin, end); break;
            case FLOAT16: work<Float16>(call, begin, end); break;
            default: work<Float32>(call, begin, end);
        }
    }
    return 0;
}

}  // extern "C"
