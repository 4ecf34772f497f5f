// Lanes: sixteen floats at once, in as many registers as the machine needs for them. Knows no cache and no attention.
//
// Products and sums are written out (fma), never left to the compiler, so that every kernel that is built of them rounds
// alike: one that works on a row alone gives bitwise what one that works on many gives.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define WIDE 1
#endif

constexpr int LANES = 16;
#if defined(WIDE)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

// One register.
typedef float Vf __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Vi __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t Vu __attribute__((vector_size(WIDTH * 4)));
typedef int16_t Vs __attribute__((vector_size(WIDTH * 2)));

INLINE Vf splat(float x) { return Vf{} + x; }

INLINE Vf fma(Vf a, Vf b, Vf c) {
#if defined(WIDE)
    return (Vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX__) && defined(__FMA__)
    return (Vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(FP_FAST_FMAF)
    for (int i = 0; i < WIDTH; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c;
#endif
}

INLINE Vf larger(Vf a, Vf b) {
#if defined(WIDE)
    return (Vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX__)
    return (Vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    Vi more = a > b;
    return (Vf)(((Vi)a & more) | ((Vi)b & ~more));
#endif
}

// 2 to the x, for x from 0 down, -infinity included; what is below 2^-126 may be 0. The polynomial is off by 1.9e-7 of the
// result at most; of 0 it gives 1.
INLINE Vf power_of_two(Vf x) {
#if defined(WIDE)
    x = larger(splat(-200.0f), x);
    Vf whole = (Vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    const float turn = 12582912.0f;  // 1.5 * 2^23: what is added to it is rounded to a whole number
    x = larger(splat(-127.0f), x);
    Vf moved = x + turn, whole = moved - turn;
#endif
    Vf part = x - whole;
    Vf p = fma(splat(1.326472723e-3f), part, splat(9.671512673e-3f));
    p = fma(p, part, splat(5.550733743e-2f));
    p = fma(p, part, splat(2.402224208e-1f));
    p = fma(p, part, splat(6.931469776e-1f));
    p = fma(p, part, splat(1.0f));
#if defined(WIDE)
    return (Vf)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
    return p * (Vf)(((Vi)moved - (Vi)splat(turn) + 127) << 23);  // -127 becomes a factor of 0
#endif
}

// Sixteen lanes: one register, or two halves of half as many.
template <class T>
struct Halves {
    T lo, hi;
};
template <int Registers>
struct Lanes {
    typedef Halves<typename Lanes<Registers / 2>::F> F;
};
template <>
struct Lanes<1> {
    typedef Vf F;
};
typedef Lanes<LANES / WIDTH>::F F;

template <class T>
constexpr int lanes_of = WIDTH;
template <class T>
constexpr int lanes_of<Halves<T>> = 2 * lanes_of<T>;

template <class T>
struct Each {  // a single register
    INLINE T splat(float x) { return ::splat(x); }
    INLINE T load(const float* p) {
        T x;
        memcpy(&x, p, sizeof x);
        return x;
    }
    INLINE void store(float* p, T x) { memcpy(p, &x, sizeof x); }
    INLINE T fma(T a, T b, T c) { return ::fma(a, b, c); }
    INLINE T mul(T a, T b) { return a * b; }
    INLINE T sub(T a, T b) { return a - b; }
    INLINE T add(T a, T b) { return a + b; }
    INLINE T larger(T a, T b) { return ::larger(a, b); }
    INLINE T power_of_two(T x) { return ::power_of_two(x); }
    // x in the lanes before `count`, `other` in the rest.
    INLINE T before(int count, T x, T other) {
        Vi at;
        for (int i = 0; i < WIDTH; i++) at[i] = i;
        Vi in = at < (Vi{} + count);
        return (T)(((Vi)x & in) | ((Vi)other & ~in));
    }
    // Sixteen bits of a bfloat16 are the upper half of a float.
    INLINE void bfloat16_pairs(const char* p, T& even, T& odd) {
        Vu bits;
        memcpy(&bits, p, sizeof bits);
        even = (T)(bits << 16);
        odd = (T)(bits & 0xffff0000u);
    }
    INLINE void float16_pairs(const char* p, T& even, T& odd) {
        Vu bits;
        memcpy(&bits, p, sizeof bits);
        even = half(bits & 0xffffu);
        odd = half(bits >> 16);
    }
    INLINE void int8_pairs(const char* p, T& even, T& odd) {
        Vs both;
        memcpy(&both, p, sizeof both);
        Vi wide = __builtin_convertvector(both, Vi);
        even = __builtin_convertvector((wide << 24) >> 24, T);
        odd = __builtin_convertvector(wide >> 8, T);
    }
    // A float16's exponent, moved into a float's place, is 112 too small. Nobody stores infinities in this format.
    INLINE T half(Vu bits) {
        T size = (T)((bits & 0x7fffu) << 13) * 5192296858534827628530496329220096.0f;
        return (T)((Vu)size | ((bits & 0x8000u) << 16));
    }
};

template <class T>
struct Each<Halves<T>> {
    typedef Halves<T> H;
    typedef Each<T> E;
    static constexpr int half_lanes = lanes_of<T>;
    INLINE H splat(float x) { return {E::splat(x), E::splat(x)}; }
    INLINE H load(const float* p) { return {E::load(p), E::load(p + half_lanes)}; }
    INLINE void store(float* p, H x) { E::store(p, x.lo), E::store(p + half_lanes, x.hi); }
    INLINE H fma(H a, H b, H c) { return {E::fma(a.lo, b.lo, c.lo), E::fma(a.hi, b.hi, c.hi)}; }
    INLINE H mul(H a, H b) { return {E::mul(a.lo, b.lo), E::mul(a.hi, b.hi)}; }
    INLINE H sub(H a, H b) { return {E::sub(a.lo, b.lo), E::sub(a.hi, b.hi)}; }
    INLINE H add(H a, H b) { return {E::add(a.lo, b.lo), E::add(a.hi, b.hi)}; }
    INLINE H larger(H a, H b) { return {E::larger(a.lo, b.lo), E::larger(a.hi, b.hi)}; }
    INLINE H power_of_two(H x) { return {E::power_of_two(x.lo), E::power_of_two(x.hi)}; }
    INLINE H before(int count, H x, H other) {
        return {E::before(count, x.lo, other.lo), E::before(count - half_lanes, x.hi, other.hi)};
    }
    INLINE void bfloat16_pairs(const char* p, H& even, H& odd) {
        E::bfloat16_pairs(p, even.lo, odd.lo), E::bfloat16_pairs(p + 4 * half_lanes, even.hi, odd.hi);
    }
    INLINE void float16_pairs(const char* p, H& even, H& odd) {
        E::float16_pairs(p, even.lo, odd.lo), E::float16_pairs(p + 4 * half_lanes, even.hi, odd.hi);
    }
    INLINE void int8_pairs(const char* p, H& even, H& odd) {
        E::int8_pairs(p, even.lo, odd.lo), E::int8_pairs(p + 2 * half_lanes, even.hi, odd.hi);
    }
};
typedef Each<F> L;

INLINE float sum_of(F x) {
#if defined(WIDE)
    return _mm512_reduce_add_ps((__m512)x);
#endif
    float parts[LANES];
    L::store(parts, x);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) parts[i] += parts[i + width];
    return parts[0];
}

INLINE float largest_of(F x) {
#if defined(WIDE)
    return _mm512_reduce_max_ps((__m512)x);
#endif
    float parts[LANES];
    L::store(parts, x);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) parts[i] = parts[i] > parts[i + width] ? parts[i] : parts[i + width];
    return parts[0];
}
