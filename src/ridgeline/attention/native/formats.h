// Formats: how a value lies in the cache, and as what it is read and written. Knows no block and no head.
//
// A unit is as many neighbours as lie together: two for 16 and 8 bits. A line is sixteen units: for keys, sixteen tokens
// of `unit` dimensions; for values, sixteen dimensions of `unit` tokens. Its values come out as floats, `unit` vectors.

INLINE uint16_t to_bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
    return (uint16_t)(x != x ? (bits >> 16) | 0x40 : rounded);
}

INLINE float from_bfloat16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

// What float16 cannot hold is cut to what it can: infinities would reach the next owner of a block.
INLINE uint16_t to_float16(float x) {
    float size = x < 0 ? -x : x;
    size = size < 65504.0f ? size : 65504.0f;
    uint32_t bits;
    memcpy(&bits, &size, 4);
    const uint32_t normal = (bits - 0x38000000u + 0xfff + ((bits >> 13) & 1)) >> 13;
    const uint32_t small = (uint32_t)(int32_t)std::nearbyint((size < 1.0f ? size : 1.0f) * 16777216.0f);
    const uint32_t half = bits < 0x38800000u ? small : normal;  // below 2^-14 it is a whole number of 2^-24
    return (uint16_t)(x != x ? 0 : half | (x < 0 ? 0x8000u : 0u));
}

// `store` gives the values of one token's head as they are kept, and their scale; x may be overwritten.
struct Float32 {
    typedef float Value;
    static constexpr int unit = 1, bytes = 4;
    static constexpr bool scaled = false;
    INLINE void line(const char* p, F (&out)[1]) { out[0] = L::load((const float*)p); }
    INLINE float store(float* x, int count, Value* out) {
        memcpy(out, x, (size_t)count * 4);
        return 1.0f;
    }
};

struct Bfloat16 {
    typedef uint16_t Value;
    static constexpr int unit = 2, bytes = 2;
    static constexpr bool scaled = false;
    INLINE void line(const char* p, F (&out)[2]) { L::bfloat16_pairs(p, out[0], out[1]); }
    INLINE float store(float* x, int count, Value* out) {
        for (int i = 0; i < count; i++) out[i] = to_bfloat16(x[i]);
        return 1.0f;
    }
};

struct Float16 {
    typedef uint16_t Value;
    static constexpr int unit = 2, bytes = 2;
    static constexpr bool scaled = false;
    INLINE void line(const char* p, F (&out)[2]) { L::float16_pairs(p, out[0], out[1]); }
    INLINE float store(float* x, int count, Value* out) {
        for (int i = 0; i < count; i++) out[i] = to_float16(x[i]);
        return 1.0f;
    }
};

// Whole numbers from -127 to 127, times a scale that every token and head has of its own.
struct Int8 {
    typedef int8_t Value;
    static constexpr int unit = 2, bytes = 1;
    static constexpr bool scaled = true;
    INLINE void line(const char* p, F (&out)[2]) { L::int8_pairs(p, out[0], out[1]); }
    INLINE float store(float* x, int count, Value* out) {
        float most = 0;
        for (int i = 0; i < count; i++) {
            const float size = x[i] < 0 ? -x[i] : x[i];
            most = size > most ? size : most;
        }
        const float step = (most < 3e38f ? most : 3e38f) / 127.0f;
        const float divisor = most < 1e-30f ? INFINITY : step;
        for (int i = 0; i < count; i++) {
            float y = x[i] / divisor;
            y = y > -127.0f ? y : -127.0f;  // what is no number too
            y = y < 127.0f ? y : 127.0f;
            out[i] = (int8_t)(int32_t)std::nearbyint(y);
        }
        return most < 1e-30f ? 0.0f : step;
    }
};
