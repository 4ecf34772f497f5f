// Attention over a paged cache: appends keys and values, then reads every one of them once. Knows rows and blocks.
//
// The work is cut into items: some queries of a row with all heads that share their keys. A row's keys are cut into
// splits of 256 at fixed positions; a split's scores, softmax and output are computed alone, and splits are merged from
// the first to the last. One query or many, one thread or many: the same arithmetic in the same order. Softmax over
// splits is that of online softmax (Milakov and Gimelshein 2018), the division of a long row among threads that of
// Flash-Decoding (Dao et al. 2023).
#include "team.h"
#include "lanes.h"
#include "formats.h"
#include "store.h"
#include "direct.h"
#include "tiles.h"
#include "alone.h"

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
    ridgeline::Team* team;  // or null: the caller alone
    int64_t table_width, tokens;
    int32_t num_items, single;  // single: every row has one query
};

constexpr int PIECE = 16;  // tokens whose keys and values are appended one after the other

struct Results {  // of rows over some keys, not divided by `sum` yet
    float most[ROWS], sum[ROWS], out[ROWS * MOST_DIM];
};

struct alignas(64) Scratch {
    float q[ROWS * MOST_DIM], s[ROWS * SPLIT];
    Results all, part;
    int64_t last[ROWS];
    std::unique_ptr<char[]> packed;  // a split's cells, for block sizes that lanes do not divide
#if defined(TILES)
    Tiled tiled;
#endif
};

// How products are made: of a thread's own, while it works. share: of sixteen keys from `key` on, for row m.
template <class T>
struct InVectors {
    static constexpr int step = LANES;  // keys that shares are made for at once
    void query(Scratch& scratch, int m, const Store& store, const Tensors& given, int64_t at) {
        read_floats(given.q, at, store.dim, given.is_bfloat16, scratch.q + m * MOST_DIM);
    }
    void score(Scratch& scratch, int rows, Lines& lines) { score_vectors<T>(scratch.q, rows, lines, scratch.s); }
    INLINE void share(Scratch& scratch, int m, int key, F p) { L::store(scratch.s + m * SPLIT + key, p); }
    void weigh(Scratch& scratch, int rows, const Lines& lines, float* o) { weigh_vectors<T>(scratch.s, rows, lines, o); }
};

#if defined(TILES)
template <class T>
struct InTiles {
    static constexpr int step = 2 * LANES;
    NothingTiny nothing_tiny;
    Shapes shapes;
    void query(Scratch& scratch, int m, const Store& store, const Tensors& given, int64_t at) {
        memcpy(scratch.tiled.q + m * MOST_DIM, (const uint16_t*)given.q + at, store.dim * sizeof(uint16_t));
    }
    void score(Scratch& scratch, int rows, Lines& lines) {
        if (rows == 1) return score_alone<T>(scratch.tiled, lines, scratch.s);
        stage_keys<T>(scratch.tiled, lines);
        score_tiles<T>(scratch.tiled, shapes, rows, lines, scratch.s);
    }
    INLINE void share(Scratch& scratch, int m, int key, F p) { split_share(scratch.tiled, m * SPLIT + key, p); }
    void weigh(Scratch& scratch, int rows, const Lines& lines, float* o) {
        if (rows == 1) return weigh_alone<T>(scratch.tiled, lines, o);
        stage_values<T>(scratch.tiled, lines);
        weigh_tiles(scratch.tiled, shapes, rows, lines, o);
    }
};
#endif

// Shares of row m from its scores, the largest of which becomes 1. valid: keys that it may see; scales: by key, those of
// the keys and then those of the values.
template <class T, class Products>
INLINE void soften(Products& products, Scratch& scratch, int m, int valid, int count, float scale, const float* scales, Results& to) {
    float* s = scratch.s + m * SPLIT;
    const F nothing = L::splat(-INFINITY), zero = L::splat(0.0f), by = L::splat(scale);
    const int whole = valid / LANES * LANES;
    F most = nothing, sum = zero;
    for (int i = 0; i < valid; i += LANES) {
        F x = L::mul(L::load(s + i), by);
        if (T::scaled) x = L::mul(x, L::load(scales + i));
        if (i == whole) x = L::before(valid - i, x, nothing);
        most = L::larger(most, x);
        L::store(s + i, x);
    }
    const float top = largest_of(most);
    most = L::splat(top);
    for (int i = 0; i < valid; i += LANES) {
        F p = L::power_of_two(L::sub(L::load(s + i), most));
        if (i == whole) p = L::before(valid - i, p, zero);
        sum = L::add(sum, p);
        if (T::scaled) p = L::mul(p, L::load(scales + SPLIT + i));
        if (T::scaled && i == whole) p = L::before(valid - i, p, zero);
        products.share(scratch, m, i, p);
    }
    for (int i = (valid + LANES - 1) / LANES * LANES; i < (count + Products::step - 1) / Products::step * Products::step; i += LANES)
        products.share(scratch, m, i, zero);
    to.most[m] = top, to.sum[m] = sum_of(sum);
}

// Row m as if the keys of both had been computed together.
INLINE void merge(Results& into, const Results& next, int m, int dim) {
    const F old = L::splat(into.most[m]), other = L::splat(next.most[m]), most = L::larger(old, other);
    const F a = L::power_of_two(L::sub(old, most)), b = L::power_of_two(L::sub(other, most));
    float parts[2 * LANES];
    L::store(parts, most);
    L::store(parts + LANES, L::fma(a, L::splat(into.sum[m]), L::mul(b, L::splat(next.sum[m]))));
    into.most[m] = parts[0], into.sum[m] = parts[LANES];
    float* out = into.out + m * MOST_DIM;
    for (int d = 0; d < dim; d += LANES)
        L::store(out + d, L::fma(a, L::load(out + d), L::mul(b, L::load(next.out + m * MOST_DIM + d))));
}

INLINE void finish(const Results& from, int m, const Tensors& given, const Store& store, int64_t token, int head) {
    const int64_t at = (token * store.heads * store.group + head) * store.dim;
    const float inverse = 1.0f / from.sum[m], *sums = from.out + m * MOST_DIM;
    if (given.is_bfloat16) {
        uint16_t* out = (uint16_t*)given.out + at;
        for (int d = 0; d < store.dim; d++) out[d] = to_bfloat16(sums[d] * inverse);
    } else {
        float* out = (float*)given.out + at;
        for (int d = 0; d < store.dim; d++) out[d] = sums[d] * inverse;
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
    for (int g = 0; g < GROUPS; g++) lines.keys[g] = keys + g * group_bytes, lines.values[g] = values + g * group_bytes;
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
    lines.key_stride = (int64_t)size * T::unit * T::bytes;
}

// Where the keys lie that this thread reads next, as well as it can be known.
template <class T>
void look_ahead(const Store& store, const Batch& batch, char* cache, const Item& item, int head, Lines& lines) {
    const int size = store.block_size;
    const int64_t start = item.split < 0 ? 0 : (int64_t)item.split * SPLIT;
    for (int g = 0; g < GROUPS; g++) {
        const int64_t at = start + g * LANES;
        const bool there = batch.single && at / size < batch.table_width;
        const int32_t block = batch.tables[item.row * batch.table_width + (there ? at / size : 0)];
        lines.next[g] = cell_of(store, cache, block, head) + (there ? at % size * T::unit * T::bytes : 0);
    }
}

// Values of one head of a token, which the product before wrote: those of a prompt lie apart, and no hardware guesses where.
INLINE void ask_for_head(const char* from, int64_t at, const Store& store, const Tensors& given) {
    const int64_t width = given.is_bfloat16 ? 2 : 4;
    for (int64_t byte = 0; byte < store.dim * width; byte += 64) fetch(from + at * width + byte);
}

// A piece of a prompt, for one head. What comes next is asked for meanwhile: the next head of these tokens.
template <class T>
void append_piece(const Store& store, const Batch& batch, const Tensors& given, int64_t piece, int head) {
    const bool last = head + 1 == store.heads;
    const int64_t next = last ? 0 : head + 1, end = (piece + 1) * PIECE < batch.tokens ? (piece + 1) * PIECE : batch.tokens;
    for (int64_t token = piece * PIECE; token < end; token++) {
        const int64_t ahead = last ? token + PIECE : token;
        if (ahead < batch.tokens) {
            ask_for_head(given.k, ahead * given.k_token + next * given.k_head, store, given);
            ask_for_head(given.v, ahead * given.v_token + next * given.v_head, store, given);
        }
        append<T>(store, given, batch.writes, token, head);
    }
}

// The queries of an item of a prompt.
INLINE void ask_for_queries(const Store& store, const Tensors& given, const Item& item, int head) {
    for (int m = 0; m < item.count * store.group; m++)
        ask_for_head(given.q, (item.token + m / store.group) * given.q_token + (head * store.group + m % store.group) * given.q_head, store, given);
}

template <class T, class Products>
void attend(const Store& store, const Batch& batch, const Tensors& given, const Item& item, int head, Scratch& scratch, Lines& lines, Products& products) {
    const int group = store.group, rows = item.count * group, dim = store.dim;
    const int32_t* table = batch.tables + item.row * batch.table_width;
    int64_t reach = 0;
    for (int m = 0; m < rows; m++) {
        const int64_t token = item.token + m / group;
        products.query(scratch, m, store, given, token * given.q_token + (head * group + m % group) * given.q_head);
        scratch.last[m] = batch.positions[token];
        reach = scratch.last[m] + 1 > reach ? scratch.last[m] + 1 : reach;
    }
    alignas(64) float scales[2 * SPLIT];
    lines.dim = dim;
    const int first = item.split < 0 ? 0 : item.split, end = item.split < 0 ? item.splits : item.split + 1;
    for (int split = first; split < end; split++) {
        const int64_t start = (int64_t)split * SPLIT;
        if (start >= reach) break;
        lines.keys_count = (int)(reach - start < SPLIT ? reach - start : SPLIT);
        locate<T>(store, given.cache, table, head, start, scratch, lines, scales);
        products.score(scratch, rows, lines);
        Results& to = split == first ? scratch.all : scratch.part;
        for (int m = 0; m < rows; m++) {
            int64_t valid = scratch.last[m] + 1 - start;
            valid = valid < 0 ? 0 : valid < lines.keys_count ? valid : lines.keys_count;
            soften<T>(products, scratch, m, (int)valid, lines.keys_count, given.scale, scales, to);
        }
        products.weigh(scratch, rows, lines, to.out);
        for (int m = 0; split != first && m < rows; m++)
            if (scratch.last[m] >= start) merge(scratch.all, scratch.part, m, dim);
    }
}

// Leave what a split of a row gave; whoever leaves the last one merges them all, in their order, and is told so.
bool hand_in(const Store& store, const Batch& batch, const Item& item, int head, Scratch& scratch) {
    const int rows = item.count * store.group;
    const int64_t size = store.dim + 2;
    float* mine = batch.partial + item.partial + (int64_t)head * item.splits * rows * size;
    for (int m = 0; m < rows; m++) {
        float* at = mine + (item.split * rows + m) * size;
        at[0] = scratch.all.most[m], at[1] = scratch.all.sum[m];
        memcpy(at + 2, scratch.all.out + m * MOST_DIM, store.dim * sizeof(float));
    }
    int32_t* left = batch.left + (int64_t)item.left * store.heads + head;
    if (__atomic_add_fetch(left, 1, __ATOMIC_ACQ_REL) < item.splits) return false;
    __atomic_store_n(left, 0, __ATOMIC_RELAXED);
    for (int m = 0; m < rows; m++) {
        for (int split = 0; split < item.splits; split++) {
            const float* at = mine + (split * rows + m) * size;
            Results& to = split ? scratch.part : scratch.all;
            to.most[m] = at[0], to.sum[m] = at[1];
            memcpy(to.out + m * MOST_DIM, at + 2, store.dim * sizeof(float));
            if (split) merge(scratch.all, scratch.part, m, store.dim);
        }
    }
    return true;
}

// What a thread keeps from call to call.
Scratch& scratch_of_thread() {
    static thread_local std::unique_ptr<Scratch> held;
    if (!held) held.reset(new Scratch);
    return *held;
}

// One of a call's pieces of work, which are its items times the heads of keys.
template <class T, class Products>
void attend_piece(const Store& store, const Batch& batch, const Tensors& given, int64_t at, Scratch& scratch, Products& products) {
    const int64_t heads = store.heads, work = batch.num_items * heads;
    // A prompt's keys stay in the cache while all its queries meet them; a lone query's are read once, so neighbours in
    // memory follow each other.
    const Item& item = batch.items[batch.single ? at / heads : at % batch.num_items];
    const int head = (int)(batch.single ? at % heads : at / batch.num_items);
    // A lone query's key is read in its own split only: no need to wait until all are written.
    if (batch.single && (item.split < 0 || item.split == item.splits - 1))
        append<T>(store, given, batch.writes, item.token, head);
    Lines lines;
    const int64_t next = at + 1 < work && batch.single ? at + 1 : at;
    look_ahead<T>(store, batch, given.cache, batch.items[batch.single ? next / heads : 0], (int)(next % heads), lines);
    // Who takes one after the other takes about every `threads`th.
    const int64_t soon = at + ridgeline::threads_of(batch.team);
    if (!batch.single && soon < work)
        ask_for_queries(store, given, batch.items[soon % batch.num_items], (int)(soon / batch.num_items));
    attend<T>(store, batch, given, item, head, scratch, lines, products);
    if (item.split >= 0 && !hand_in(store, batch, item, head, scratch)) return;
    for (int m = 0; m < item.count * store.group; m++)
        finish(scratch.all, m, given, store, item.token + m / store.group, head * store.group + m % store.group);
}

template <class T, class Products>
void run(const Store& store, const Batch& batch, const Tensors& given) {
    const int64_t heads = store.heads, work = batch.num_items * heads;
    if (!batch.single) {
        const int64_t pieces = (batch.tokens + PIECE - 1) / PIECE;
        ridgeline::share(batch.team, pieces * heads, {}, [&](ridgeline::Turn& turn) {
            while (turn.next())
                for (int64_t at = turn.begin; at < turn.end; at++) append_piece<T>(store, batch, given, at / heads, (int)(at % heads));
        });
    }
    // Some in a row, so that what a thread asks memory for ahead is its own.
    const int64_t many = batch.single ? work / (8 * ridgeline::threads_of(batch.team)) : 1, size = many < 1 ? 1 : many < 12 ? many : 12;
    ridgeline::share(batch.team, work, {size, size}, [&](ridgeline::Turn& turn) {
        Scratch& scratch = scratch_of_thread();
        Products products;
        while (turn.next())
            for (int64_t at = turn.begin; at < turn.end; at++) attend_piece<T>(store, batch, given, at, scratch, products);
    });
}

template <class T>
void choose(const Store& store, const Batch& batch, const Tensors& given) {
#if defined(TILES)
    if constexpr (std::is_same<T, Bfloat16>::value || T::scaled)
        if (given.is_bfloat16 && store.dim % 32 == 0 && tiles_are_ours()) return run<T, InTiles<T>>(store, batch, given);
#endif
    run<T, InVectors<T>>(store, batch, given);
}

extern "C" {

// Returns 0.
int ridgeline_attention(const Store* store, const Batch* batch, const Tensors* given) {
    switch (store->format) {
        case 0: choose<Float32>(*store, *batch, *given); break;
        case 1: choose<Bfloat16>(*store, *batch, *given); break;
        case 2: choose<Float16>(*store, *batch, *given); break;
        case 3: choose<Int8>(*store, *batch, *given); break;
    }
    return 0;
}

// Lays out rows of one query each: of each its row of the batch's tables, and where its query is in its sequence. What the
// batch points to has room for `most` splits of every row. Returns 0.
int ridgeline_attention_rows(const Store* store, Batch* batch, const int64_t* rows, int64_t count, int64_t most) {
    const int64_t floats = (int64_t)store->heads * store->group * (store->dim + 2);
    Item* item = const_cast<Item*>(batch->items);
    for (int64_t row = 0; row < count; row++) {
        const int32_t splits = (int32_t)((batch->positions[row] + SPLIT) / SPLIT);
        for (int32_t split = 0; split < splits; split++)
            *item++ = {(int32_t)rows[row], (int32_t)row, 1, splits > 1 ? split : -1, splits, (int32_t)row, row * most * floats};
    }
    batch->num_items = (int32_t)(item - batch->items);
    return 0;
}

}  // extern "C"
