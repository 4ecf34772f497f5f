// A program of its own for the sanitizers: layers of random odd shapes against sums in plain loops. Not part of a library.

#include <cmath>
#include <memory>
#include <vector>

#include "linear.cpp"
#include "teams.h"

#include "sanitize.h"

namespace {

// Memory of exactly this size, so that the byte behind it is foreign.
template <class T>
struct Exactly {
    std::unique_ptr<T[]> data;
    int64_t size;
    explicit Exactly(int64_t count) : data(new T[(size_t)count]()), size(count) {}
    T &operator[](int64_t at) { return data[(size_t)at]; }
};

int weight_at(const Matrix &matrix, const uint8_t *strips, int64_t output, int64_t k) {
    const int64_t chunks = (matrix.d_in + CHUNK - 1) / CHUNK, lane = output % LANES;
    const uint8_t *strip = strips + output / LANES * matrix.strip_bytes;
    if (matrix.bits == 8) return (int8_t)strip[k / 4 * LINE + lane * 4 + k % 4];
    const int byte = strip[multiplier_bytes(chunks) + k / 8 * LINE + lane * 4 + k % 4];
    return ((k % 8 < 4 ? byte & 15 : byte >> 4) - 8) * multiplier_at(strip, lane, k);
}

void normalised(float *row, const Norm &norm, int64_t width) {
    double mean = 0, squares = 0;
    for (int64_t k = 0; k < width; k++) mean += row[k] / (double)width;
    for (int64_t k = 0; k < width; k++) squares += (row[k] - mean) * (row[k] - mean) / (double)width;
    for (int64_t k = 0; k < width; k++)
        row[k] = (float)((row[k] - mean) / std::sqrt(squares + norm.eps)) * norm.weight[k] + norm.bias[k];
}

// Packed weights are near the weights.
bool packed(Random &draw) {
    Matrix matrix = {};
    matrix.d_in = 1 + draw.below(300);
    matrix.d_out = 1 + draw.below(60);
    matrix.bits = draw.below(2) ? 8 : 4;
    matrix.team = team_of(draw.below(4));
    const int64_t chunks = (matrix.d_in + CHUNK - 1) / CHUNK, strips = (matrix.d_out + LANES - 1) / LANES;
    matrix.strip_bytes = matrix.bits == 8 ? chunks * TILE_BYTES : multiplier_bytes(chunks) + chunks * TILE_BYTES / 2;
    Exactly<float> weight(matrix.d_in * matrix.d_out), scales(strips * LANES);
    Exactly<uint8_t> bytes(strips * matrix.strip_bytes);
    Exactly<int32_t> sums(strips * LANES);
    for (int64_t i = 0; i < weight.size; i++) weight[i] = draw.value();
    if (ridgeline_pack(&matrix, weight.data.get(), bytes.data.get(), scales.data.get(), sums.data.get())) return false;
    double lost = 0, size = 0;
    for (int64_t output = 0; output < matrix.d_out; output++)
        for (int64_t k = 0; k < matrix.d_in; k++) {
            const double wanted = weight[output * matrix.d_in + k];
            const double apart = weight_at(matrix, bytes.data.get(), output, k) * scales[output] - wanted;
            lost += apart * apart;
            size += wanted * wanted;
        }
    return lost <= 0.02 * size;
}

bool one(Random &draw) {
    const int64_t rows = draw.below(draw.below(8) ? 70 : 400), d_in = 1 + draw.below(300), d_out = 1 + draw.below(120);
    const int64_t chunks = (d_in + CHUNK - 1) / CHUNK, strips = (d_out + LANES - 1) / LANES;
    Matrix matrix = {};
    matrix.d_in = d_in;
    matrix.d_out = d_out;
    matrix.bits = draw.below(2) ? 8 : 4;
    matrix.strip_bytes = matrix.bits == 8 ? chunks * TILE_BYTES : multiplier_bytes(chunks) + chunks * TILE_BYTES / 2;
    matrix.activation = (int32_t)draw.below(4);
    matrix.team = team_of(draw.below(6));
    Exactly<uint8_t> bytes(strips * matrix.strip_bytes);
    for (int64_t i = 0; i < bytes.size; i++) bytes[i] = (uint8_t)draw.below(256);
    for (int64_t strip = 0; matrix.bits == 4 && strip < strips; strip++)
        for (int64_t i = 0; i < 2 * chunks * LANES; i++)
            bytes[strip * matrix.strip_bytes + i] = (uint8_t)(1 + draw.below(16));
    Exactly<float> scales(strips * LANES), bias(strips * LANES), x(rows * d_in), residual(rows * d_out), y(rows * d_out);
    Exactly<int32_t> sums(strips * LANES);
    // Inputs behind the last have no weight in a packed matrix.
    for (int64_t output = 0; output < strips * LANES; output++) {
        scales[output] = 0.001f * (float)(1 + draw.below(9));
        bias[output] = draw.value();
        for (int64_t k = d_in; k < chunks * CHUNK; k++) {
            uint8_t *strip = &bytes[output / LANES * matrix.strip_bytes];
            const int64_t lane = output % LANES;
            if (matrix.bits == 8) {
                strip[k / 4 * LINE + lane * 4 + k % 4] = 0;
                continue;
            }
            uint8_t &byte = strip[multiplier_bytes(chunks) + k / 8 * LINE + lane * 4 + k % 4];
            byte = (uint8_t)(k % 8 < 4 ? (byte & 0xf0) | 8 : (byte & 15) | 0x80);
        }
        for (int64_t k = 0; k < d_in; k++) sums[output] += weight_at(matrix, bytes.data.get(), output, k);
    }
    for (int64_t i = 0; i < x.size; i++) x[i] = draw.value();
    for (int64_t i = 0; i < residual.size; i++) residual[i] = draw.value();
    matrix.strips = bytes.data.get();
    matrix.scales = scales.data.get();
    matrix.sums = sums.data.get();
    matrix.bias = draw.below(2) ? bias.data.get() : nullptr;
    const bool adds = draw.below(2);
    const int64_t filled = (d_in + LANES - 1) / LANES * LANES;
    Exactly<float> gain(filled), shift(filled);
    for (int64_t k = 0; k < d_in; k++) gain[k] = 1.0f + 0.1f * draw.value(), shift[k] = 0.1f * draw.value();
    const Norm norm = {gain.data.get(), shift.data.get(), 1e-5f};
    const bool norms = draw.below(2);
    if (ridgeline_linear(
            &matrix, x.data.get(), norms ? &norm : nullptr, adds ? residual.data.get() : nullptr, y.data.get(), rows))
        return false;
    for (int64_t row = 0; norms && row < rows; row++) normalised(&x[row * d_in], norm, d_in);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t output = 0; output < d_out; output++) {
            float exact = 0, size = 0;
            for (int64_t k = 0; k < d_in; k++) {
                const float weight = (float)weight_at(matrix, matrix.strips, output, k) * scales[output];
                exact += x[row * d_in + k] * weight;
                size += std::fabs(weight);
            }
            float wanted = (float)act(matrix.activation, exact + (matrix.bias ? bias[output] : 0));
            if (adds) wanted += residual[row * d_out + output];
            // A value is rounded by half a step of 1/255 of a range that is below 12.
            if (std::fabs(y[row * d_out + output] - wanted) > 0.03f * size + 1e-3f) return false;
        }
    const int64_t count = draw.below(20);
    Exactly<int64_t> ids(count);
    Exactly<float> rows_of(count * d_in);
    for (int64_t i = 0; i < count; i++) ids[i] = draw.below(d_out);
    ridgeline_gather(&matrix, ids.data.get(), nullptr, rows_of.data.get(), count);
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < d_in; k++)
            if (rows_of[i * d_in + k] != (float)weight_at(matrix, matrix.strips, ids[i], k) * scales[ids[i]]) return false;
    return true;
}

}  // namespace

int main(int argc, char **argv) {
    return layers<Random>(argc, argv, [](Random &draw) { return one(draw) && packed(draw); });
}
