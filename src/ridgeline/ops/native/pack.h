// From weights to strips: what ops/packed.py defines, at the speed of reading a checkpoint. Strips as in dots.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "dots.h"

namespace ridgeline {

constexpr int64_t MOST_MULTIPLIER = 16;

inline float divisor(float scale) { return scale > 0.0f ? scale : 1.0f; }

inline float sum_of(Floats value) {
    float sum = 0.0f;
    for (int64_t lane = 0; lane < LANES; lane++) sum += value[lane];
    return sum;
}

inline float most_of(Floats value) {
    float found = value[0];
    for (int64_t lane = 1; lane < LANES; lane++) found = std::max(found, value[lane]);
    return found;
}

inline Floats bounded(Floats value, float low, float high) { return least(most(value, all(low)), all(high)); }

// One output: from row (width values, a multiple of 64) to its lane of a strip of 8 bits. Returns its scale.
inline float pack_8(const float *row, int64_t width, int64_t lane, uint8_t *strip, int32_t *sum) {
    Floats size = {};
    for (int64_t at = 0; at < width; at += LANES) {
        const Floats some = load<Floats>(row + at);
        size = most(size, most(some, -some));
    }
    const float scale = most_of(size) / 127.0f, by = divisor(scale);
    *sum = 0;
    for (int64_t at = 0; at < width; at += LANES) {
        const Ints whole = nearest(load<Floats>(row + at) / by);
        for (int64_t i = 0; i < LANES; i++) {
            const int64_t k = at + i;
            strip[k / 4 * LINE + lane * 4 + k % 4] = (uint8_t)(int8_t)whole[i];
            *sum += whole[i];
        }
    }
    return scale;
}

// A group of 16: the multiplier around `whole` that loses least; codes are left in `codes`.
inline int64_t multiplier_of(Floats values, float whole, float base, Floats *codes) {
    float best = INFINITY;
    int64_t chosen = 1;
    for (float away : {0.0f, 1.0f, -1.0f, -2.0f, -3.0f}) {
        const float tried = std::min(std::max(whole + away, 1.0f), (float)MOST_MULTIPLIER), unit = tried * base;
        const Floats found = bounded(floats(nearest(values / unit)), -8.0f, 7.0f), apart = values - found * unit;
        const float error = sum_of(apart * apart);
        if (error >= best) continue;
        best = error;
        chosen = (int64_t)tried;
        *codes = found;
    }
    return chosen;
}

inline float pack_4(const float *row, int64_t width, int64_t lane, uint8_t *strip, int32_t *sum) {
    static_assert(GROUP == LANES, "a group is a vector");
    const int64_t groups = width / GROUP;
    uint8_t *packed = strip + multiplier_bytes(width / CHUNK);
    std::vector<float> steps((size_t)groups);
    float largest = 0.0f;
    for (int64_t group = 0; group < groups; group++) {
        const Floats values = load<Floats>(row + group * GROUP);
        const float high = most_of(values), low = -most_of(-values);
        steps[(size_t)group] = std::max(std::max(high / 7.0f, low / -8.0f), 0.0f);
        largest = std::max(largest, steps[(size_t)group]);
    }
    const float base = divisor(largest / (float)MOST_MULTIPLIER);
    Floats together = {}, squares = {};
    *sum = 0;
    for (int64_t group = 0; group < groups; group++) {
        Floats codes = {};
        const Floats values = load<Floats>(row + group * GROUP);
        const float whole = std::nearbyint(steps[(size_t)group] / base);
        const int64_t multiplier = multiplier_of(values, whole, base, &codes);
        strip[group / 2 * LANES + lane] |= (uint8_t)((multiplier - 1) << group % 2 * 4);
        const Floats integers = codes * (float)multiplier;
        together += integers * values;
        squares += integers * integers;
        for (int64_t i = 0; i < GROUP; i++) {
            const int64_t k = group * GROUP + i;
            const int code = (int)codes[i];
            uint8_t &both = packed[k / 8 * LINE + lane * 4 + k % 4];
            both = (uint8_t)(k % 8 < 4 ? code + 8 : both | (code + 8) << 4);
            *sum += code * (int)multiplier;
        }
    }
    return sum_of(together) / std::max(sum_of(squares), 1.0f);
}

}  // namespace ridgeline
