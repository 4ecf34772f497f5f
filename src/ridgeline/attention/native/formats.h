// Formats: how a value lies in the cache, and as what it is read and written. Knows no block and no head.
//
// A unit is as many neighbours as lie together: two for 16 and 8 bits. A line is sixteen units: for keys, sixteen tokens
// of `unit` dimensions; for values, sixteen dimensions of `unit` tokens. Its values come out as floats, `unit` vectors.

struct Float32 {
    static constexpr int unit = 1, bytes = 4;
    static constexpr bool scaled = false;
    INLINE void line(const char* p, F (&out)[1]) { out[0] = L::load((const float*)p); }
    INLINE void put(char* p, float x) { memcpy(p, &x, 4); }
};

INLINE uint16_t to_bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x) return (uint16_t)((bits >> 16) | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to nearest, ties to even
}

INLINE float from_bfloat16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

struct Bfloat16 {
    static constexpr int unit = 2, bytes = 2;
    static constexpr bool scaled = false;
    INLINE void line(const char* p, F (&out)[2]) { L::bfloat16_pairs(p, out[0], out[1]); }
    INLINE void put(char* p, float x) {
        uint16_t bits = to_bfloat16(x);
        memcpy(p, &bits, 2);
    }
};

// What float16 cannot hold is cut to what it can: infinities would reach the next owner of a block.
struct Float16 {
    static constexpr int unit = 2, bytes = 2;
    static constexpr bool scaled = false;
    INLINE void line(const char* p, F (&out)[2]) { L::float16_pairs(p, out[0], out[1]); }
    INLINE void put(char* p, float x) {
        float size = x != x ? 0.0f : x < 0 ? -x : x;
        if (size > 65504.0f) size = 65504.0f;
        uint32_t bits;
        memcpy(&bits, &size, 4);
        if (bits < 0x38800000u) {  // less than 2^-14: a whole number of 2^-24
            bits = (uint32_t)(int32_t)std::nearbyint(size * 16777216.0f);
        } else {
            bits = (bits - 0x38000000u + 0xfff + ((bits >> 13) & 1)) >> 13;
        }
        uint16_t half = (uint16_t)(bits | (x < 0 ? 0x8000u : 0u));
        memcpy(p, &half, 2);
    }
};

// Whole numbers from -127 to 127, times a scale that every token and head has of its own.
struct Int8 {
    static constexpr int unit = 2, bytes = 1;
    static constexpr bool scaled = true;
    INLINE void line(const char* p, F (&out)[2]) { L::int8_pairs(p, out[0], out[1]); }
    INLINE void put(char* p, float x) { *p = (char)(int8_t)std::nearbyint(x); }
};
