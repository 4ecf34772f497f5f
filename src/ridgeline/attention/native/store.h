// Store: where a block's keys and values lie, and how new ones are written. Knows no query.
//
// A cell is what one block holds of one head: keys [dim / unit][block_size][unit], then values
// [ceil(block_size / unit)][dim][unit], then, where the format has scales, those of the keys and of the values [block_size].
// So sixteen tokens' keys stand in the lanes of a vector, one dimension after the other, and no sum crosses lanes.

struct Store {
    int32_t heads, group, dim, block_size, format;  // heads: of keys; group: queries' heads to each of them
    int32_t unused;
    int64_t cell_bytes, value_at, scale_at;  // from the beginning of a cell
    int64_t positions;                       // in all blocks but the last, which is scratch
};

// Tensors [tokens, heads, dim] of float32 or bfloat16; strides in values, the last is 1.
struct Tensors {
    const char *q, *k, *v;
    char *out, *cache;
    int64_t q_token, q_head, k_token, k_head, v_token, v_head;
    float scale;
    int32_t is_bfloat16;
};

INLINE void read_floats(const char* base, int64_t at, int count, int is_bfloat16, float* out) {
    if (is_bfloat16) {
        const uint16_t* p = (const uint16_t*)base + at;
        for (int i = 0; i < count; i++) out[i] = from_bfloat16(p[i]);
    } else {
        memcpy(out, (const float*)base + at, (size_t)count * sizeof(float));
    }
}

INLINE char* cell_of(const Store& store, char* cache, int64_t block, int head) {
    return cache + (block * store.heads + head) * store.cell_bytes;
}

// Divides x by what a whole number of int8 stands for, and returns that. What is no number becomes 0.
INLINE float quantized(float* x, int count) {
    float most = 0;
    for (int i = 0; i < count; i++) {
        float size = x[i] < 0 ? -x[i] : x[i];
        most = size > most ? size : most;
    }
    const float step = (most < 3e38f ? most : 3e38f) / 127.0f;
    if (most < 1e-30f) {
        memset(x, 0, (size_t)count * sizeof(float));
        return 0.0f;
    }
    for (int i = 0; i < count; i++) {
        float y = x[i] / step;
        x[i] = y > 127.0f ? 127.0f : y > -127.0f ? y : y <= -127.0f ? -127.0f : 0.0f;
    }
    return step;
}

// Write the key and the value of one head of one token. What is meant for the scratch block is dropped.
template <class T>
void append(const Store& store, const Tensors& given, const int64_t* writes, int64_t token, int head) {
    int64_t at = writes[token];
    if (at < 0 || at >= store.positions) return;
    const int size = store.block_size, dim = store.dim;
    const int inside = (int)(at % size);
    char* cell = cell_of(store, given.cache, at / size, head);
    char* values = cell + store.value_at;
    float* scales = (float*)(cell + store.scale_at);
    float x[256];
    read_floats(given.k, token * given.k_token + head * given.k_head, dim, given.is_bfloat16, x);
    if (T::scaled) scales[inside] = quantized(x, dim);
    for (int d = 0; d < dim; d++) T::put(cell + ((int64_t)(d / T::unit * size + inside) * T::unit + d % T::unit) * T::bytes, x[d]);
    read_floats(given.v, token * given.v_token + head * given.v_head, dim, given.is_bfloat16, x);
    if (T::scaled) scales[size + inside] = quantized(x, dim);
    char* line = values + ((int64_t)(inside / T::unit) * dim * T::unit + inside % T::unit) * T::bytes;
    for (int d = 0; d < dim; d++) T::put(line + (int64_t)d * T::unit * T::bytes, x[d]);
}
