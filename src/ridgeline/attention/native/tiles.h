// Tiles: the same products as direct.h on a matrix unit (AMX), for bfloat16 queries and caches of bfloat16 or int8. Knows
// lines and their addresses; knows no position and no softmax.
//
// Keys lie in the cache as the unit wants them: a tile is sixteen tokens of 32 dimensions. Values are laid end to end
// first, which also widens int8 and leaves nothing behind a row's end. Shares are split into two bfloat16, so
// that they have 16 bits and not 8; sums are float32. As in direct.h each row has its own chain of sums, so that it does
// not matter how many are computed together.
#if defined(WIDE) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512VBMI__) && defined(__linux__)
#define TILES 1
#include <sys/syscall.h>
#include <unistd.h>

// Linux gives the unit to processes that ask for it.
INLINE bool tiles_are_ours() {
    static const bool granted = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
    return granted;
}

// The compiler's own intrinsics do not say that they read memory.
#define TILE_LOAD(tile, from, stride) \
    asm volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((int64_t)(stride)) : "memory")
#define TILE_STORE(tile, to, stride) \
    asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((int64_t)(stride)) : "memory")
#define TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile ::)
#define TILE_MULTIPLY(sum, rows, columns) \
    asm volatile("tdpbf16ps %%tmm" #columns ", %%tmm" #rows ", %%tmm" #sum ::)

// Sums are tiles 0 to 3; 4 and 5 have a row a query, 6 and 7 sixteen rows of pairs.
struct Shapes {
    int rows = 0;
    void set(int wanted) {
        if (rows == wanted) return;
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {};
            uint8_t rows[16] = {};
        } config;
        for (int tile = 0; tile < 8; tile++) config.row_bytes[tile] = 64, config.rows[tile] = tile < 6 ? wanted : LANES;
        asm volatile("ldtilecfg %0" ::"m"(config));
        rows = wanted;
    }
    ~Shapes() { asm volatile("tilerelease" ::); }
};

// The bytes of 0 to 127 as bfloat16, for looking up 64 at once.
struct alignas(64) Widener {
    uint8_t upper[128], lower[128];
    Widener() {
        for (int i = 0; i < 128; i++) {
            const uint16_t bits = to_bfloat16((float)i);
            upper[i] = (uint8_t)(bits >> 8), lower[i] = (uint8_t)bits;
        }
    }
};

struct alignas(64) Tiled {
    uint16_t q[ROWS * MOST_DIM], most[ROWS * SPLIT], rest[ROWS * SPLIT];  // shares are `most` and `rest`
    char keys[SPLIT * MOST_DIM * 2], values[SPLIT * MOST_DIM * 2];
    Widener widener;
};

// Two lines as bfloat16, int8 ones widened (exactly).
template <class T>
INLINE void two_lines(const char* first, const char* second, const Widener& widener, __m512i& a, __m512i& b) {
    if (!T::scaled) {
        a = _mm512_loadu_si512(first), b = _mm512_loadu_si512(second);
        return;
    }
    __m512i x = _mm512_inserti64x4(
        _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)first)), _mm256_loadu_si256((const __m256i*)second), 1);
    x = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), x);  // as unpacking takes them
    const __m512i size = _mm512_abs_epi8(x);
    const __m512i lower = _mm512_permutex2var_epi8(_mm512_load_si512(widener.lower), size, _mm512_load_si512(widener.lower + 64));
    const __m512i upper = _mm512_or_si512(
        _mm512_permutex2var_epi8(_mm512_load_si512(widener.upper), size, _mm512_load_si512(widener.upper + 64)),
        _mm512_and_si512(x, _mm512_set1_epi8((char)0x80)));
    a = _mm512_unpacklo_epi8(lower, upper), b = _mm512_unpackhi_epi8(lower, upper);
}

template <class T>
void stage_keys(Tiled& tiled, Lines& lines) {
    if (!T::scaled) return;
    const int64_t group_bytes = (int64_t)lines.dim * LANES * 2, stride = lines.key_stride;
    for (int g = 0; g * LANES < lines.keys_count; g++) {
        char* to = tiled.keys + g * group_bytes;
        const char *from = lines.keys[g], *ahead = lines.values[g];
        for (int u = 0; u < lines.dim / 2; u += 2, from += 2 * stride, ahead += 64, to += 128) {
            __m512i a, b;
            two_lines<T>(from, from + stride, tiled.widener, a, b);
            fetch(ahead);
            _mm512_store_si512(to, a), _mm512_store_si512(to + 64, b);
        }
        lines.keys[g] = tiled.keys + g * group_bytes;
    }
    lines.key_stride = 64;
}

// End to end, and zeros up to the next 32 keys.
template <class T>
void stage_values(Tiled& tiled, const Lines& lines) {
    constexpr int line_bytes = LANES * 2 * T::bytes;
    const int pairs = (lines.keys_count + 1) / 2, padded = (lines.keys_count + 31) / 32 * 16;
    char* to = tiled.values;
    for (int pair = 0; pair < pairs; pair++) {
        const __m512i kept = _mm512_set1_epi32(lines.keys_count - 2 * pair > 1 ? -1 : 0xffff);
        const int group = pair / (LANES / 2), inside = pair % (LANES / 2) * lines.dim / LANES * line_bytes;
        const char *from = lines.values[group] + inside, *ahead = lines.next[group] + inside;
        for (int d = 0; d < lines.dim; d += 2 * LANES, from += 2 * line_bytes, ahead += 2 * line_bytes, to += 128) {
            __m512i a, b;
            two_lines<T>(from, from + line_bytes, tiled.widener, a, b);
            fetch(ahead);
            if (line_bytes == 64) fetch(ahead + 64);
            _mm512_store_si512(to, _mm512_and_si512(kept, a)), _mm512_store_si512(to + 64, _mm512_and_si512(kept, b));
        }
    }
    memset(to, 0, (size_t)(padded - pairs) * lines.dim * 4);
}

template <int N>
INLINE void score_groups(const uint16_t* q, const Lines& lines, const char* const* keys, float* s) {
    TILE_ZERO(0);
    if (N > 1) TILE_ZERO(1);
    if (N > 2) TILE_ZERO(2);
    if (N > 3) TILE_ZERO(3);
    const int64_t stride = lines.key_stride;
    for (int d = 0; d < lines.dim; d += 32) {
        const int64_t at = d / 2 * stride;
        TILE_LOAD(4, q + d, MOST_DIM * 2);
        TILE_LOAD(6, keys[0] + at, stride);
        TILE_MULTIPLY(0, 4, 6);
        if (N > 1) {
            TILE_LOAD(7, keys[1] + at, stride);
            TILE_MULTIPLY(1, 4, 7);
        }
        if (N > 2) {
            TILE_LOAD(6, keys[2] + at, stride);
            TILE_MULTIPLY(2, 4, 6);
        }
        if (N > 3) {
            TILE_LOAD(7, keys[3] + at, stride);
            TILE_MULTIPLY(3, 4, 7);
        }
    }
    TILE_STORE(0, s, SPLIT * 4);
    if (N > 1) TILE_STORE(1, s + LANES, SPLIT * 4);
    if (N > 2) TILE_STORE(2, s + 2 * LANES, SPLIT * 4);
    if (N > 3) TILE_STORE(3, s + 3 * LANES, SPLIT * 4);
}

template <class T>
void score_tiles(const Tiled& tiled, Shapes& shapes, int rows, const Lines& lines, float* s) {
    const int groups = (lines.keys_count + LANES - 1) / LANES;
    for (int m = 0; m < rows; m += LANES) {
        shapes.set(rows - m < LANES ? rows - m : LANES);
        const uint16_t* q = tiled.q + m * MOST_DIM;
        for (int g = 0; g < groups; g += 4) {
            float* to = s + m * SPLIT + g * LANES;
            const char* const* keys = lines.keys + g;
            if (!T::scaled && rows <= FEW_ROWS) {
                for (int ahead = g; ahead < g + 4 && ahead < groups; ahead++)
                    for (int u = 0; u < lines.dim / 2; u++) fetch(lines.values[ahead] + u * 64);
            }
            switch (groups - g) {
                case 1: score_groups<1>(q, lines, keys, to); break;
                case 2: score_groups<2>(q, lines, keys, to); break;
                case 3: score_groups<3>(q, lines, keys, to); break;
                default: score_groups<4>(q, lines, keys, to);
            }
        }
    }
}

template <int N>
INLINE void weigh_dims(const Tiled& tiled, int m, int dim, int keys_count, int d, float* o) {
    TILE_ZERO(0);
    TILE_ZERO(1);
    if (N > 2) TILE_ZERO(2);
    if (N > 2) TILE_ZERO(3);
    const int64_t stride = (int64_t)dim * 4;
    for (int key = 0; key < keys_count; key += 32) {
        const char* values = tiled.values + key / 2 * stride + d * 4;
        TILE_LOAD(4, tiled.most + m * SPLIT + key, SPLIT * 2);
        TILE_LOAD(5, tiled.rest + m * SPLIT + key, SPLIT * 2);
        TILE_LOAD(6, values, stride);
        TILE_MULTIPLY(0, 4, 6);
        TILE_LOAD(7, values + 64, stride);
        TILE_MULTIPLY(1, 4, 7);
        TILE_MULTIPLY(0, 5, 6);
        TILE_MULTIPLY(1, 5, 7);
        if (N > 2) {
            TILE_LOAD(6, values + 128, stride);
            TILE_MULTIPLY(2, 4, 6);
            TILE_LOAD(7, values + 192, stride);
            TILE_MULTIPLY(3, 4, 7);
            TILE_MULTIPLY(2, 5, 6);
            TILE_MULTIPLY(3, 5, 7);
        }
    }
    TILE_STORE(0, o + d, MOST_DIM * 4);
    TILE_STORE(1, o + d + LANES, MOST_DIM * 4);
    if (N > 2) TILE_STORE(2, o + d + 2 * LANES, MOST_DIM * 4);
    if (N > 2) TILE_STORE(3, o + d + 3 * LANES, MOST_DIM * 4);
}

// at: of sixteen shares.
INLINE void split_share(Tiled& tiled, int at, F share) {
    const __m256i most = (__m256i)_mm512_cvtneps_pbh((__m512)share);
    const __m512 upper = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(most), 16);
    _mm256_store_si256((__m256i*)(tiled.most + at), most);
    _mm256_store_si256((__m256i*)(tiled.rest + at), (__m256i)_mm512_cvtneps_pbh(_mm512_sub_ps((__m512)share, upper)));
}

void weigh_tiles(Tiled& tiled, Shapes& shapes, int rows, const Lines& lines, float* o) {
    for (int m = 0; m < rows; m += LANES) {
        shapes.set(rows - m < LANES ? rows - m : LANES);
        int d = 0;
        for (; d + 64 <= lines.dim; d += 64) weigh_dims<4>(tiled, m, lines.dim, lines.keys_count, d, o + m * MOST_DIM);
        if (d < lines.dim) weigh_dims<2>(tiled, m, lines.dim, lines.keys_count, d, o + m * MOST_DIM);
    }
}
#endif
