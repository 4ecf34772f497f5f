// Store: where a block's keys and values lie, and how new ones are written. Knows no query.
//
// A cell is what one block holds of one head: keys [dim / unit][block_size][unit], then values
// [ceil(block_size / unit)][dim][unit], then, where the format has scales, those of the keys and of the values [block_size].
// So sixteen tokens' keys stand in the lanes of a vector, one dimension after the other, and no sum crosses lanes.

constexpr int MOST_DIM = 256;

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

// Puts values next to those of the token before: every `unit`th place of a row of dimensions.
template <class Value, int Unit>
INLINE void spread(const Value* x, int dim, int at, char* row) {
#if defined(WIDE)
    if constexpr (sizeof(Value) == 2) {
        const __mmask32 places = at ? 0xaaaaaaaau : 0x55555555u;
        for (int d = 0; d < dim; d += LANES) {
            __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(x + d)));
            _mm512_mask_storeu_epi16(row + d * 4, places, at ? _mm512_slli_epi32(wide, 16) : wide);
        }
        return;
    } else if constexpr (sizeof(Value) == 1) {
        const __mmask32 places = at ? 0xaaaaaaaau : 0x55555555u;
        for (int d = 0; d < dim; d += LANES) {
            __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)(x + d)));
            _mm256_mask_storeu_epi8(row + d * 2, places, at ? _mm256_slli_epi16(wide, 8) : wide);
        }
        return;
    }
#endif
    for (int d = 0; d < dim; d++) memcpy(row + ((int64_t)d * Unit + at) * sizeof(Value), x + d, sizeof(Value));
}

// Write the key and the value of one head of one token. What is meant for the scratch block is dropped.
template <class T>
void append(const Store& store, const Tensors& given, const int64_t* writes, int64_t token, int head) {
    const int64_t at = writes[token];
    if (at < 0 || at >= store.positions) return;
    constexpr int unit = T::unit, unit_bytes = T::unit * T::bytes;
    const int size = store.block_size, dim = store.dim, inside = (int)(at % size);
    char* cell = cell_of(store, given.cache, at / size, head);
    float* scales = (float*)(cell + store.scale_at);
    alignas(64) float x[MOST_DIM];
    alignas(64) typename T::Value kept[MOST_DIM];
    read_floats(given.k, token * given.k_token + head * given.k_head, dim, given.is_bfloat16, x);
    const float key_scale = T::store(x, dim, kept);
    for (int u = 0; u < dim / unit; u++) memcpy(cell + ((int64_t)u * size + inside) * unit_bytes, kept + u * unit, unit_bytes);
    read_floats(given.v, token * given.v_token + head * given.v_head, dim, given.is_bfloat16, x);
    const float value_scale = T::store(x, dim, kept);
    spread<typename T::Value, unit>(kept, dim, inside % unit, cell + store.value_at + (int64_t)(inside / unit) * dim * unit_bytes);
    if (T::scaled) scales[inside] = key_scale, scales[size + inside] = value_scale;
}
