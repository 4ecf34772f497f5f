// Attention over a paged cache: appends keys and values, then reads every one of them once. Knows rows and blocks.
//
// The work is cut into items: some queries of a row with all heads that share their keys. A row's keys are cut into
// splits of 256 at fixed positions; a split's scores, softmax and output are computed alone, and splits are merged from
// the first to the last. One query or many, one thread or many: the same arithmetic in the same order. Softmax over
// splits is that of online softmax (Milakov and Gimelshein 2018), the division of a long row among threads that of
// Flash-Decoding (Dao et al. 2023).
#include "lanes.h"
#include "formats.h"
#include "store.h"
#include "direct.h"
#include "tiles.h"

// splits: how many there are; only split `split` is computed here, or all of them if it is -1. left: of the row.
struct Item {
    int32_t row, token, count, split, splits, left;
    int64_t partial;  // where this row's partial results begin, in floats
};

struct Batch {
    const Item* items;
    const int64_t *positions, *writes;  // [tokens]
    const int32_t* tables;              // [rows, table_width]
    float* partial;
    int32_t* left;  // splits of a row's head that are not done yet; all 0 again when a call is over
    int64_t table_width, tokens;
    int32_t num_items, threads, single, unused;  // single: every row has one query
};

struct Result {  // of a row over some keys, not divided by `sum` yet
    float most, sum;
    float out[MOST_DIM];
};

struct alignas(64) Scratch {
    float q[ROWS * MOST_DIM], s[ROWS * SPLIT], o[ROWS * MOST_DIM];
    Result split[ROWS], all[ROWS];
    int64_t last[ROWS];
    std::unique_ptr<char[]> packed;  // a split's cells, for block sizes that lanes do not divide
#if defined(TILES)
    Tiled tiled;
#endif
};

// How products are made: of a thread's own, while it works.
template <class T>
struct InVectors {
    void query(Scratch& scratch, int m, const Store& store, const Tensors& given, int64_t at) {
        read_floats(given.q, at, store.dim, given.is_bfloat16, scratch.q + m * MOST_DIM);
    }
    void score(Scratch& scratch, int rows, Lines& lines) { score_vectors<T>(scratch.q, rows, lines, scratch.s); }
    void weigh(Scratch& scratch, int rows, const Lines& lines) { weigh_vectors<T>(scratch.s, rows, lines, scratch.o); }
};

#if defined(TILES)
template <class T>
struct InTiles {
    Shapes shapes;
    void query(Scratch& scratch, int m, const Store& store, const Tensors& given, int64_t at) {
        memcpy(scratch.tiled.q + m * MOST_DIM, (const uint16_t*)given.q + at, store.dim * sizeof(uint16_t));
    }
    void score(Scratch& scratch, int rows, Lines& lines) {
        stage_keys<T>(scratch.tiled, lines);
        score_tiles(scratch.tiled, shapes, rows, lines, scratch.s);
    }
    void weigh(Scratch& scratch, int rows, const Lines& lines) {
        stage_values<T>(scratch.tiled, lines);
        weigh_tiles(scratch.tiled, shapes, rows, lines, scratch.s, scratch.o);
    }
};
#endif

// Shares of one row from its scores, the largest of which becomes 1. key_scales, value_scales: by key, or null.
INLINE void soften(float* s, int valid, int all, float scale, const float* key_scales, const float* value_scales, Result& to) {
    const F nothing = L::splat(-INFINITY);
    F most = nothing, sum = L::splat(0.0f);
    for (int i = 0; i < valid; i += LANES) {
        F x = L::mul(L::load(s + i), L::splat(scale));
        if (key_scales) x = L::mul(x, L::load(key_scales + i));
        x = L::before(valid - i, x, nothing);
        most = L::larger(most, x);
        L::store(s + i, x);
    }
    to.most = largest_of(most);
    most = L::splat(to.most);
    for (int i = 0; i < valid; i += LANES) {
        F p = L::before(valid - i, L::power_of_two(L::sub(L::load(s + i), most)), L::splat(0.0f));
        sum = L::add(sum, p);
        if (value_scales) p = L::before(valid - i, L::mul(p, L::load(value_scales + i)), L::splat(0.0f));
        L::store(s + i, p);
    }
    to.sum = sum_of(sum);
    for (int i = (valid + LANES - 1) / LANES * LANES; i < all; i += LANES) L::store(s + i, L::splat(0.0f));
}

// The same as if the keys of both had been computed together.
INLINE void merge(Result& into, const Result& next, int dim) {
    F gap_into = L::splat(into.most), gap_next = L::splat(next.most);
    F most = L::larger(gap_into, gap_next);
    F a = L::power_of_two(L::sub(gap_into, most)), b = L::power_of_two(L::sub(gap_next, most));
    float parts[3 * LANES];
    L::store(parts, most);
    L::store(parts + LANES, L::fma(a, L::splat(into.sum), L::mul(b, L::splat(next.sum))));
    into.most = parts[0], into.sum = parts[LANES];
    for (int d = 0; d < dim; d += LANES)
        L::store(into.out + d, L::fma(a, L::load(into.out + d), L::mul(b, L::load(next.out + d))));
}

INLINE void finish(const Result& from, const Tensors& given, const Store& store, int64_t token, int head) {
    const int64_t at = (token * store.heads * store.group + head) * store.dim;
    const float inverse = 1.0f / from.sum;
    if (given.is_bfloat16) {
        uint16_t* out = (uint16_t*)given.out + at;
        for (int d = 0; d < store.dim; d++) out[d] = to_bfloat16(from.out[d] * inverse);
    } else {
        float* out = (float*)given.out + at;
        for (int d = 0; d < store.dim; d++) out[d] = from.out[d] * inverse;
    }
}

// Copies a split's cells into the order that blocks of sixteen have.
template <class T>
void pack(const Store& store, char* cache, const int32_t* table, int head, int64_t start, Scratch& scratch, Lines& lines) {
    const int size = store.block_size, dim = store.dim, bytes = T::bytes;
    if (!scratch.packed) scratch.packed.reset(new char[2 * SPLIT * MOST_DIM * 4]);
    const int64_t group_bytes = (int64_t)LANES * dim * bytes;
    char *keys = scratch.packed.get(), *values = keys + SPLIT * MOST_DIM * 4;
    for (int key = 0; key < lines.keys_count; key++) {
        const int64_t at = start + key, inside = at % size;
        const char* cell = cell_of(store, cache, table[at / size], head);
        char* group = keys + key / LANES * group_bytes + (int64_t)(key % LANES) * T::unit * bytes;
        for (int u = 0; u < dim / T::unit; u++)
            memcpy(group + (int64_t)u * LANES * T::unit * bytes, cell + (u * size + inside) * T::unit * bytes, T::unit * bytes);
        const char* from = cell + store.value_at + (inside / T::unit * dim * T::unit + inside % T::unit) * bytes;
        char* line = values + ((int64_t)(key / T::unit) * dim * T::unit + key % T::unit) * bytes;
        for (int d = 0; d < dim; d++) memcpy(line + (int64_t)d * T::unit * bytes, from + (int64_t)d * T::unit * bytes, bytes);
    }
    for (int g = 0; g <= GROUPS; g++) lines.keys[g] = keys + g * group_bytes, lines.values[g] = values + g * group_bytes;
    lines.key_stride = LANES * T::unit * bytes;
}

// Where a split's keys and values lie, and their scales in order.
template <class T>
void locate(const Store& store, char* cache, const int32_t* table, int head, int64_t start, Scratch& scratch, Lines& lines, float* scales) {
    const int size = store.block_size;
    if (T::scaled) {
        for (int key = 0; key < lines.keys_count; key++) {
            const float* held = (const float*)(cell_of(store, cache, table[(start + key) / size], head) + store.scale_at);
            scales[key] = held[(start + key) % size], scales[SPLIT + key] = held[size + (start + key) % size];
        }
    }
    if (size % LANES) return pack<T>(store, cache, table, head, start, scratch, lines);
    const int groups = (lines.keys_count + LANES - 1) / LANES;
    for (int g = 0; g < groups; g++) {
        const int64_t at = start + g * LANES, inside = at % size;
        const char* cell = cell_of(store, cache, table[at / size], head);
        lines.keys[g] = cell + inside * T::unit * T::bytes;
        lines.values[g] = cell + store.value_at + inside * store.dim * T::bytes;
    }
    for (int g = groups; g < groups + 4; g++) lines.keys[g] = lines.values[g] = lines.values[groups - 1];
    lines.key_stride = (int64_t)size * T::unit * T::bytes;
}

template <class T, class Products>
void attend(const Store& store, const Batch& batch, const Tensors& given, const Item& item, int head, Scratch& scratch, Products& products) {
    const int group = store.group, rows = item.count * group, dim = store.dim;
    const int32_t* table = batch.tables + item.row * batch.table_width;
    int64_t reach = 0;
    for (int m = 0; m < rows; m++) {
        const int64_t token = item.token + m / group;
        products.query(scratch, m, store, given, token * given.q_token + (head * group + m % group) * given.q_head);
        scratch.last[m] = batch.positions[token];
        reach = scratch.last[m] + 1 > reach ? scratch.last[m] + 1 : reach;
        scratch.all[m].sum = 0;
    }
    alignas(64) float scales[2 * SPLIT];
    Lines lines;
    lines.dim = dim;
    const int first = item.split < 0 ? 0 : item.split, end = item.split < 0 ? item.splits : item.split + 1;
    for (int split = first; split < end; split++) {
        const int64_t start = (int64_t)split * SPLIT;
        if (start >= reach) break;
        lines.keys_count = (int)(reach - start < SPLIT ? reach - start : SPLIT);
        locate<T>(store, given.cache, table, head, start, scratch, lines, scales);
        products.score(scratch, rows, lines);
        for (int m = 0; m < rows; m++) {
            int64_t valid = scratch.last[m] + 1 - start;
            valid = valid < 0 ? 0 : valid < lines.keys_count ? valid : lines.keys_count;
            soften(scratch.s + m * SPLIT, (int)valid, lines.keys_count, given.scale, T::scaled ? scales : nullptr,
                   T::scaled ? scales + SPLIT : nullptr, scratch.split[m]);
        }
        products.weigh(scratch, rows, lines);
        for (int m = 0; m < rows; m++) {
            if (scratch.last[m] < start) continue;
            memcpy(scratch.split[m].out, scratch.o + m * MOST_DIM, dim * sizeof(float));
            if (split == first) {
                scratch.all[m].most = scratch.split[m].most, scratch.all[m].sum = scratch.split[m].sum;
                memcpy(scratch.all[m].out, scratch.split[m].out, dim * sizeof(float));
            } else {
                merge(scratch.all[m], scratch.split[m], dim);
            }
        }
    }
}

// Leave what a split of a row gave; whoever leaves the last one merges them all, in their order, and is told so.
bool hand_in(const Store& store, const Batch& batch, const Item& item, int head, Scratch& scratch) {
    const int rows = item.count * store.group;
    const int64_t size = store.dim + 2;
    float* mine = batch.partial + item.partial + (int64_t)head * item.splits * rows * size;
    for (int m = 0; m < rows; m++) {
        float* at = mine + (item.split * rows + m) * size;
        at[0] = scratch.all[m].most, at[1] = scratch.all[m].sum;
        memcpy(at + 2, scratch.all[m].out, store.dim * sizeof(float));
    }
    int32_t* left = batch.left + (int64_t)item.left * store.heads + head;
    if (__atomic_add_fetch(left, 1, __ATOMIC_ACQ_REL) < item.splits) return false;
    __atomic_store_n(left, 0, __ATOMIC_RELAXED);
    for (int m = 0; m < rows; m++) {
        for (int split = 0; split < item.splits; split++) {
            const float* at = mine + (split * rows + m) * size;
            Result& to = split ? scratch.split[m] : scratch.all[m];
            to.most = at[0], to.sum = at[1];
            memcpy(to.out, at + 2, store.dim * sizeof(float));
            if (split) merge(scratch.all[m], to, store.dim);
        }
    }
    return true;
}

template <class T, class Products>
void run(const Store& store, const Batch& batch, const Tensors& given) {
    const int64_t heads = store.heads, work = batch.num_items * heads;
#pragma omp parallel num_threads(batch.threads) if (work > 1)
    {
        static thread_local std::unique_ptr<Scratch> held;
        if (!held) held.reset(new Scratch);
        Scratch& scratch = *held;
        Products products;
        if (!batch.single) {
#pragma omp for schedule(static)
            for (int64_t at = 0; at < batch.tokens * heads; at++)
                append<T>(store, given, batch.writes, at / heads, (int)(at % heads));
        }
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t at = 0; at < work; at++) {
            const Item& item = batch.items[at / heads];
            const int head = (int)(at % heads);
            // A lone query's key is read in its own split only: no need to wait until all are written.
            if (batch.single && (item.split < 0 || item.split == item.splits - 1))
                append<T>(store, given, batch.writes, item.token, head);
            attend<T>(store, batch, given, item, head, scratch, products);
            if (item.split >= 0 && !hand_in(store, batch, item, head, scratch)) continue;
            for (int m = 0; m < item.count * store.group; m++)
                finish(scratch.all[m], given, store, item.token + m / store.group, head * store.group + m % store.group);
        }
    }
}

template <class T>
void choose(const Store& store, const Batch& batch, const Tensors& given) {
#if defined(TILES)
    if constexpr (std::is_same<T, Bfloat16>::value || T::scaled)
        if (given.is_bfloat16 && store.dim % 32 == 0 && tiles_are_ours()) return run<T, InTiles<T>>(store, batch, given);
#endif
    run<T, InVectors<T>>(store, batch, given);
}

extern "C" void ridgeline_attention(const Store* store, const Batch* batch, const Tensors* given) {
    switch (store->format) {
        case 0: return choose<Float32>(*store, *batch, *given);
        case 1: return choose<Bfloat16>(*store, *batch, *given);
        case 2: return choose<Float16>(*store, *batch, *given);
        case 3: return choose<Int8>(*store, *batch, *given);
    }
}
