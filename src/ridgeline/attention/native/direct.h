// Direct: products of queries with keys and of shares with values, straight from the cache in vectors of floats. Knows
// lines and their addresses; knows no position and no softmax.
//
// Every score is one chain over the dimensions, every output one chain over the keys, whatever the number of rows that
// are computed together: this is what makes a row's result the same in every batch.

constexpr int SPLIT = 256;              // keys whose scores are held at once; a multiple of LANES
constexpr int GROUPS = SPLIT / LANES;   // of keys that stand in the lanes of a vector
constexpr int ROWS = 32;                // queries (times heads of a group) that are computed together at most

// Where the groups of a split lie. key_stride: bytes from one unit of dimensions to the next. next: groups of keys that
// this thread reads after these values, or any.
struct Lines {
    const char *keys[GROUPS], *values[GROUPS], *next[GROUPS];
    int64_t key_stride;
    int keys_count, dim;
};

// Few queries wait for memory and not for arithmetic: values are asked for while keys are read, and the next keys while
// values are.
constexpr int FEW_ROWS = 4;
INLINE void fetch(const char* p) { __builtin_prefetch(p, 0, 3); }

// Scores of M rows with G groups. ahead: where the values of these lie.
template <class T, int M, int G>
INLINE void score(const float* q, const Lines& lines, const char* const* keys, const char* const* ahead, float* s) {
    F sums[M][G];
    for (int m = 0; m < M; m++)
        for (int g = 0; g < G; g++) sums[m][g] = L::splat(0.0f);
    for (int u = 0; u < lines.dim / T::unit; u++) {
        for (int g = 0; g < G; g++) {
            F key[T::unit];
            T::line(keys[g] + u * lines.key_stride, key);
            if (M <= FEW_ROWS) fetch(ahead[g] + u * (LANES * T::unit * T::bytes));
            for (int part = 0; part < T::unit; part++)
                for (int m = 0; m < M; m++)
                    sums[m][g] = L::fma(L::splat(q[m * MOST_DIM + u * T::unit + part]), key[part], sums[m][g]);
        }
    }
    for (int m = 0; m < M; m++)
        for (int g = 0; g < G; g++) L::store(s + m * SPLIT + g * LANES, sums[m][g]);
}

template <class T, int M>
void score_rows(const float* q, const Lines& lines, float* s) {
    constexpr int G = WIDTH == 16 ? (M == 1 ? 4 : M == 2 ? 4 : 2) : (M == 1 ? 2 : 1);
    const int groups = (lines.keys_count + LANES - 1) / LANES;
    int g = 0;
    for (; g + G <= groups; g += G) score<T, M, G>(q, lines, lines.keys + g, lines.values + g, s + g * LANES);
    for (; g < groups; g++) score<T, M, 1>(q, lines, lines.keys + g, lines.values + g, s + g * LANES);
}

// Adds shares times values to D vectors of M rows.
template <class T, int M, int D>
INLINE void weigh(const float* p, const Lines& lines, int first_dim, float* o) {
    F sums[M][D];
    for (int m = 0; m < M; m++)
        for (int d = 0; d < D; d++) sums[m][d] = L::splat(0.0f);
    const int64_t line_bytes = LANES * T::unit * T::bytes, step = (int64_t)lines.dim * T::unit * T::bytes;
    for (int start = 0; start < lines.keys_count; start += LANES) {
        const int count = lines.keys_count - start < LANES ? lines.keys_count - start : LANES;
        const char *base = lines.values[start / LANES] + first_dim / LANES * line_bytes;
        const char *ahead = lines.next[start / LANES] + first_dim / LANES * line_bytes;
        for (int key = 0; key < count; key += T::unit, base += step, ahead += step) {
            for (int d = 0; d < D; d++) {
                F value[T::unit];
                T::line(base + d * line_bytes, value);
                if (M <= FEW_ROWS) fetch(ahead + d * line_bytes);
                for (int part = 0; part < T::unit; part++) {
                    if (key + part >= count) break;  // beyond the context may lie anything, and 0 times NaN is NaN
                    for (int m = 0; m < M; m++)
                        sums[m][d] = L::fma(L::splat(p[m * SPLIT + start + key + part]), value[part], sums[m][d]);
                }
            }
        }
    }
    for (int m = 0; m < M; m++)
        for (int d = 0; d < D; d++) L::store(o + m * MOST_DIM + first_dim + d * LANES, sums[m][d]);
}

template <class T, int M>
void weigh_rows(const float* p, const Lines& lines, float* o) {
    constexpr int D = WIDTH == 16 ? 4 : WIDTH == 8 && M == 1 ? 4 : 2;
    int d = 0;
    for (; d + D * LANES <= lines.dim; d += D * LANES) weigh<T, M, D>(p, lines, d, o);
    for (; d < lines.dim; d += LANES) weigh<T, M, 1>(p, lines, d, o);
}

template <class T>
void score_vectors(const float* q, int rows, const Lines& lines, float* s) {
    int m = 0;
    for (; m + 4 <= rows; m += 4) score_rows<T, 4>(q + m * MOST_DIM, lines, s + m * SPLIT);
    for (; m + 2 <= rows; m += 2) score_rows<T, 2>(q + m * MOST_DIM, lines, s + m * SPLIT);
    for (; m < rows; m++) score_rows<T, 1>(q + m * MOST_DIM, lines, s + m * SPLIT);
}

template <class T>
void weigh_vectors(const float* p, int rows, const Lines& lines, float* o) {
    int m = 0;
    for (; m + 4 <= rows; m += 4) weigh_rows<T, 4>(p + m * SPLIT, lines, o + m * MOST_DIM);
    for (; m + 2 <= rows; m += 2) weigh_rows<T, 2>(p + m * SPLIT, lines, o + m * MOST_DIM);
    for (; m < rows; m++) weigh_rows<T, 1>(p + m * SPLIT, lines, o + m * MOST_DIM);
}
