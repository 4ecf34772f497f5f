// Alone: what tiles.h computes of one query, sum for sum, in vectors. Knows lines and their addresses; knows no position
// and no softmax.
//
// A query alone fills one row of a tile in sixteen and waits for its tiles; vectors take 0.7 of the time (32
// queries of 768 keys each in bfloat16, 2 cores of Emerald Rapids). The matrix unit takes what is too small for a normal
// float as 0, and adds the products of the first and of the second values of sixteen pairs apart, then both to the sum: so
// it is done here, and a row's result is bitwise the same on either.
#if defined(TILES)

// Of this thread, as long as this lives.
struct NothingTiny {
    const unsigned before = _mm_getcsr();
    NothingTiny() { _mm_setcsr(before | 0x8040); }  // operands and results that are denormal
    ~NothingTiny() { _mm_setcsr(before); }
    NothingTiny(const NothingTiny&) = delete;
    NothingTiny& operator=(const NothingTiny&) = delete;
};

// As floats, so that one of them is spread over a vector as it is read.
INLINE void widen(const uint16_t* from, int count, float* to) {
    for (int i = 0; i < count; i += LANES)
        _mm512_store_ps(to + i, (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i*)(from + i))), 16));
}

template <class T, int N>
INLINE void score_alone_groups(const float* q, const Lines& lines, int group, float* s) {
    const char *const *keys = lines.keys + group, *const *ahead = lines.values + group;
    F sums[N];
    for (int n = 0; n < N; n++) sums[n] = L::splat(0.0f);
    for (int first = 0; first < lines.dim / 2; first += LANES) {
        F a[N], b[N];
        for (int n = 0; n < N; n++) a[n] = b[n] = L::splat(0.0f);
        for (int u = first; u < first + LANES; u++)
            for (int n = 0; n < N; n++) {
                F key[2];
                T::line(keys[n] + u * lines.key_stride, key);
                fetch(ahead[n] + u * (LANES * T::unit * T::bytes));
                a[n] = L::fma(L::splat(q[2 * u]), key[0], a[n]);
                b[n] = L::fma(L::splat(q[2 * u + 1]), key[1], b[n]);
            }
        for (int n = 0; n < N; n++) sums[n] = L::add(sums[n], L::add(a[n], b[n]));
    }
    for (int n = 0; n < N; n++) L::store(s + (group + n) * LANES, sums[n]);
}

template <class T>
void score_alone(const Tiled& tiled, const Lines& lines, float* s) {
    alignas(64) float q[MOST_DIM];
    widen(tiled.q, lines.dim, q);
    const int groups = (lines.keys_count + LANES - 1) / LANES;
    int g = 0;
    for (; g + 4 <= groups; g += 4) score_alone_groups<T, 4>(q, lines, g, s);
    for (; g < groups; g++) score_alone_groups<T, 1>(q, lines, g, s);
}

struct alignas(64) Shares {
    float most[SPLIT], rest[SPLIT];
};

// N vectors of dimensions from `dim` on.
template <class T, int N>
INLINE void weigh_alone_dims(const Shares& shares, const Lines& lines, int dim, float* o) {
    constexpr int line_bytes = LANES * T::unit * T::bytes;
    const int row_bytes = lines.dim / LANES * line_bytes;
    F sums[N];
    for (int n = 0; n < N; n++) sums[n] = L::splat(0.0f);
    for (int start = 0; start < lines.keys_count; start += 32) {
        F most[2][N], rest[2][N];
        for (int n = 0; n < N; n++) most[0][n] = most[1][n] = rest[0][n] = rest[1][n] = L::splat(0.0f);
        const int end = lines.keys_count - start < 32 ? lines.keys_count : start + 32;
        for (int key = start; key < end; key += 2) {
            const int inside = key % LANES / 2 * row_bytes + dim / LANES * line_bytes;
            const char *from = lines.values[key / LANES] + inside, *ahead = lines.next[key / LANES] + inside;
            for (int n = 0; n < N; n++) {
                F value[2];
                T::line(from + n * line_bytes, value);
                fetch(ahead + n * line_bytes);
                if (key + 1 == end) value[1] = L::splat(0.0f);  // beyond the context may lie anything
                for (int i = 0; i < 2; i++) {
                    most[i][n] = L::fma(L::splat(shares.most[key + i]), value[i], most[i][n]);
                    rest[i][n] = L::fma(L::splat(shares.rest[key + i]), value[i], rest[i][n]);
                }
            }
        }
        for (int n = 0; n < N; n++) {
            sums[n] = L::add(sums[n], L::add(most[0][n], most[1][n]));
            sums[n] = L::add(sums[n], L::add(rest[0][n], rest[1][n]));
        }
    }
    for (int n = 0; n < N; n++) L::store(o + dim + n * LANES, sums[n]);
}

template <class T>
void weigh_alone(const Tiled& tiled, const Lines& lines, float* o) {
    Shares shares;
    const int padded = (lines.keys_count + 31) / 32 * 32;
    widen(tiled.most, padded, shares.most), widen(tiled.rest, padded, shares.rest);
    int d = 0;
    for (; d + 64 <= lines.dim; d += 64) weigh_alone_dims<T, 4>(shares, lines, d, o);
    if (d < lines.dim) weigh_alone_dims<T, 2>(shares, lines, d, o);
}
#endif
