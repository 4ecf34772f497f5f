// A program of its own for the sanitizers: plain matrices of random odd shapes against sums in plain loops. Not part of a
// library.

#include <cmath>
#include <memory>

#include "dense.cpp"
#include "teams.h"

#include "sanitize.h"

namespace {

// Values of a format in memory of exactly their size, so that the byte behind them is foreign.
struct Values {
    int32_t format;
    int64_t size;
    std::unique_ptr<uint8_t[]> data;
    Values(int32_t format, int64_t size)
        : format(format), size(size), data(new uint8_t[(size_t)(size * (format == FLOAT32 ? 4 : 2))]()) {}
    uint16_t *halves() const { return (uint16_t *)data.get(); }
    float *floats() const { return (float *)data.get(); }
    void put(int64_t at, float value) {
        if (format == FLOAT32) floats()[at] = value;
        if (format == BFLOAT16) halves()[at] = to_bfloat16(all(value))[0];
        if (format == FLOAT16) halves()[at] = (uint16_t)(0x3000 + (int)(value * 100) % 0x400);  // 0.125 to 0.25
    }
    float operator[](int64_t at) const {
        if (format == FLOAT32) return floats()[at];
        return format == BFLOAT16 ? bits<float>((uint32_t)halves()[at] << 16) : from_float16(halves()[at]);
    }
};

struct Drawn : Random {
    Values values(int32_t format, int64_t size) {
        Values made(format, size);
        for (int64_t i = 0; i < size; i++) made.put(i, format == FLOAT16 ? std::fabs(value()) : value());
        return made;
    }
};

bool one(Drawn &draw) {
    const int64_t rows = draw.below(70), d_in = draw.below(2) ? 1 + draw.below(300) : 32 * (1 + draw.below(8));
    const int64_t d_out = 1 + draw.below(120);
    Plain layer = {};
    layer.d_in = d_in;
    layer.d_out = d_out;
    layer.format = (int32_t)draw.below(3);
    layer.is_bfloat16 = layer.format == BFLOAT16 && draw.below(2);
    layer.activation = (int32_t)draw.below(4);
    layer.team = team_of(draw.below(6));
    const int32_t outside = layer.is_bfloat16 ? BFLOAT16 : FLOAT32;
    const Values weight = draw.values(layer.format, d_in * d_out), bias = draw.values(FLOAT32, d_out);
    const Values x = draw.values(outside, rows * d_in), residual = draw.values(outside, rows * d_out);
    const Values y(outside, rows * d_out);
    layer.weight = weight.data.get();
    layer.bias = draw.below(2) ? bias.floats() : nullptr;
    const void *adds = draw.below(2) ? residual.data.get() : nullptr;
    if (ridgeline_dense(&layer, x.data.get(), adds, y.data.get(), rows)) return false;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t output = 0; output < d_out; output++) {
            double exact = layer.bias ? bias[output] : 0, size = 1;
            for (int64_t k = 0; k < d_in; k++) {
                const double product = (double)x[row * d_in + k] * weight[output * d_in + k];
                exact += product;
                size += std::fabs(product);
            }
            double wanted = act(layer.activation, exact);
            if (adds) wanted += residual[row * d_out + output];
            const double rounded = layer.is_bfloat16 ? std::fabs(wanted) / 250 : 0;
            if (!(std::fabs(y[row * d_out + output] - wanted) <= 2e-6 * size + rounded)) return false;
        }
    return true;
}

// Sums of rows of two tables, and their norms.
bool rows_of_tables(Drawn &draw) {
    const int64_t d = 1 + draw.below(100), count = draw.below(40), ids = 1 + draw.below(20);
    PlainRows rows = {};
    rows.d = d;
    rows.team = team_of(draw.below(6));
    rows.format = (int32_t)draw.below(3);
    rows.is_bfloat16 = rows.format == BFLOAT16 && draw.below(2);
    const int32_t outside = rows.is_bfloat16 ? BFLOAT16 : FLOAT32;
    const Values first = draw.values(rows.format, ids * d), second = draw.values(rows.format, ids * d);
    const Values summed(outside, count * d), y(outside, count * d), weight = draw.values(FLOAT32, d), bias = draw.values(FLOAT32, d);
    std::unique_ptr<int64_t[]> at(new int64_t[(size_t)count]), places(new int64_t[(size_t)count]);
    for (int64_t row = 0; row < count; row++) at[(size_t)row] = draw.below(ids), places[(size_t)row] = draw.below(ids);
    rows.first = first.data.get();
    rows.second = draw.below(2) ? second.data.get() : nullptr;
    if (ridgeline_dense_rows(&rows, at.get(), rows.second ? places.get() : nullptr, summed.data.get(), count)) return false;
    const PlainNorm norm = {weight.floats(), bias.floats(), rows.team, d, 1e-5f, rows.is_bfloat16};
    if (ridgeline_dense_norm(&norm, summed.data.get(), y.data.get(), count)) return false;
    for (int64_t row = 0; row < count; row++) {
        double mean = 0, squares = 0;
        for (int64_t k = 0; k < d; k++) mean += summed[row * d + k] / (double)d;
        for (int64_t k = 0; k < d; k++) squares += std::pow(summed[row * d + k] - mean, 2) / (double)d;
        for (int64_t k = 0; k < d; k++) {
            const double added = rows.second ? second[places[(size_t)row] * d + k] : 0;
            const double sum = first[at[(size_t)row] * d + k] + added;
            const double wanted = (summed[row * d + k] - mean) / std::sqrt(squares + 1e-5) * weight[k] + bias[k];
            const double slack = rows.is_bfloat16 ? 0.01 : 1e-4;
            if (!(std::fabs(summed[row * d + k] - sum) <= slack * (1 + std::fabs(sum)))) return false;
            if (!(std::fabs(y[row * d + k] - wanted) <= slack * (1 + std::fabs(wanted)))) return false;
        }
    }
    return true;
}

bool either(Drawn &draw) { return one(draw) && rows_of_tables(draw); }

}  // namespace

int main(int argc, char **argv) { return layers<Drawn>(argc, argv, either); }
