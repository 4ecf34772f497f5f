// What the programs for the sanitizers share: numbers drawn from a seed that is printed, activations as they are defined,
// and the loop over random layers. Comes after the library's source, whose activations it names.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

struct Random {
    std::mt19937 random;
    int64_t below(int64_t limit) { return (int64_t)(random() % (uint64_t)limit); }
    float value() { return std::normal_distribution<float>()(random); }
};

inline double act(int32_t activation, double x) {
    if (activation == RELU) return x > 0 ? x : 0;
    if (activation == GELU) return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    if (activation == GELU_NEW) return 0.5 * x * (1 + std::tanh(0.7978845608 * (x + 0.044715 * x * x * x)));
    return x;
}

// right: whether a layer of random shape is computed as it is defined. The seed is the first argument, or another each time.
template <class Draw>
int layers(int argc, char **argv, bool right(Draw &)) {
    const unsigned seed = argc > 1 ? (unsigned)std::atoi(argv[1]) : std::random_device{}();
    std::printf("seed %u\n", seed);
    Draw draw{std::mt19937(seed)};
    for (int i = 0; i < 300; i++)
        if (!right(draw)) return std::printf("layer %d is wrong\n", i), 1;
    std::printf("300 layers are right\n");
    return 0;
}
