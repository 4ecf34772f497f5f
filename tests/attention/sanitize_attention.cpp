// The attention kernel under AddressSanitizer and UndefinedBehaviorSanitizer, against loops that anybody can check.
//
// Every array is exactly as long as it must be, and blocks hold anything before they are written. `make sanitize` runs it.
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "attention.cpp"
#include "teams.h"

static std::mt19937 draw(7);

static int between(int low, int high) { return low + (int)(draw() % (unsigned)(high - low + 1)); }

struct Case {
    int heads, group, dim, block_size, format, is_bfloat16;
};

struct Row {
    std::vector<int32_t> blocks;
    std::vector<std::vector<float>> keys, values;  // of every position, [heads * dim], as the cache keeps them
};

static Store layout_of(const Case& c, int num_blocks) {
    const int bytes[] = {4, 2, 2, 1}, unit = c.format ? 2 : 1;
    auto lines = [](int64_t size) { return (size + 63) / 64 * 64; };
    Store store{c.heads, c.group, c.dim, c.block_size, c.format, 0, 0, 0, 0, (int64_t)num_blocks * c.block_size};
    store.value_at = lines((int64_t)c.block_size * c.dim * bytes[c.format]);
    store.scale_at = store.value_at + lines((int64_t)(c.block_size + unit - 1) / unit * unit * c.dim * bytes[c.format]);
    store.cell_bytes = store.scale_at + (c.format == 3 ? lines(8 * c.block_size) : 0);
    return store;
}

static std::vector<float> kept(const float* x, int heads, int dim, int format) {
    std::vector<float> out(x, x + heads * dim);
    for (int h = 0; h < heads; h++) {
        float most = 0;
        for (int d = 0; d < dim; d++) most = std::fmax(most, std::fabs(x[h * dim + d]));
        for (int d = 0; d < dim; d++) {
            float& y = out[h * dim + d];
            if (format == 1) y = from_bfloat16(to_bfloat16(y));
            if (format == 2) y = std::nearbyint(y * 1024.0f) / 1024.0f;  // values from 1 to 2 are drawn
            if (format == 3) y = std::nearbyint(y / (most / 127.0f)) * (most / 127.0f);
        }
    }
    return out;
}

static double worst(const Case& c) {
    const int num_blocks = 700 / c.block_size * 4 + 4, width = 700 / c.block_size + 1;
    const Store store = layout_of(c, num_blocks);
    const int64_t size = (num_blocks + 1) * c.heads * store.cell_bytes;
    char* cache = (char*)std::aligned_alloc(64, size);
    memset(cache, 0xff, size);
    memset(cache + num_blocks * c.heads * store.cell_bytes, 0, c.heads * store.cell_bytes);
    std::vector<Row> rows(4);
    int32_t free_block = 0;
    double off = 0;
    for (int step = 0; step < 4; step++) {
        const bool single = step % 2;
        std::vector<int> counts;
        for (size_t r = 0; r < rows.size(); r++) counts.push_back(single ? 1 : step ? between(1, 40) : between(1, 300));
        const int64_t tokens = counts[0] + counts[1] + counts[2] + counts[3];
        const int wide = c.heads * (c.group + 2) * c.dim;
        std::vector<float> floats(tokens * wide);
        std::vector<uint16_t> halves(tokens * wide);
        for (size_t i = 0; i < floats.size(); i++) {
            floats[i] = 1.0f + (float)(draw() % 1024) / 1024.0f;
            if (draw() % 2) floats[i] = -floats[i];
            halves[i] = to_bfloat16(floats[i]);
            if (c.is_bfloat16) floats[i] = from_bfloat16(halves[i]);
        }
        std::vector<int64_t> positions, writes;
        std::vector<int32_t> tables(rows.size() * width, num_blocks);
        std::vector<Item> items;
        int64_t floats_left = 0;
        int32_t left = 0, token = 0;
        for (size_t r = 0; r < rows.size(); r++) {
            const int known = (int)rows[r].keys.size(), context = known + counts[r], splits = (context + SPLIT - 1) / SPLIT;
            while ((int)rows[r].blocks.size() * c.block_size < context) rows[r].blocks.push_back(free_block++);
            for (size_t b = 0; b < rows[r].blocks.size(); b++) tables[r * width + b] = rows[r].blocks[b];
            for (int p = known; p < context; p++) {
                positions.push_back(p);
                writes.push_back((int64_t)rows[r].blocks[p / c.block_size] * c.block_size + p % c.block_size);
                const float* at = &floats[(token + p - known) * wide];
                rows[r].keys.push_back(kept(at + c.heads * c.group * c.dim, c.heads, c.dim, c.format));
                rows[r].values.push_back(kept(at + c.heads * (c.group + 1) * c.dim, c.heads, c.dim, c.format));
            }
            const int many = ROWS / c.group;
            for (int t = 0; counts[r] > 1 && t < counts[r]; t += many)
                items.push_back({(int32_t)r, token + t, std::min(many, counts[r] - t), -1, splits, 0, 0});
            for (int s = 0; counts[r] == 1 && s < splits; s++)
                items.push_back({(int32_t)r, token, 1, splits > 1 ? s : -1, splits, left, floats_left});
            if (counts[r] == 1 && splits > 1) left++, floats_left += (int64_t)splits * c.heads * c.group * (c.dim + 2);
            token += counts[r];
        }
        std::vector<float> partial(floats_left), out(tokens * c.heads * c.group * c.dim);
        std::vector<uint16_t> out_halves(out.size());
        std::vector<int32_t> counters(left * c.heads);
        Batch batch{items.data(), positions.data(), writes.data(), tables.data(), partial.data(), counters.data(),
                    team_of(2), width, tokens, (int32_t)items.size(), single};
        if (single) {  // the same rows, laid out by native code, in the same memory
            std::vector<int64_t> each(tokens);
            int64_t most = 1;
            for (int64_t row = 0; row < tokens; row++) each[row] = row, most = std::max(most, positions[row] / SPLIT + 1);
            items.resize(tokens * most);
            partial.resize(tokens * most * c.heads * c.group * (c.dim + 2));
            counters.assign(tokens * c.heads, 0);
            batch.items = items.data(), batch.partial = partial.data(), batch.left = counters.data();
            ridgeline_attention_rows(&store, &batch, each.data(), tokens, most);
        }
        const int64_t k = c.heads * c.group * c.dim, v = k + c.heads * c.dim;
        const char* base = c.is_bfloat16 ? (const char*)halves.data() : (const char*)floats.data();
        const int bytes = c.is_bfloat16 ? 2 : 4;
        const float scale = 0.25f / std::sqrt((float)c.dim);
        Tensors given{base, base + k * bytes, base + v * bytes, c.is_bfloat16 ? (char*)out_halves.data() : (char*)out.data(),
                      cache, wide, c.dim, wide, c.dim, wide, c.dim, scale * 1.44269504f, c.is_bfloat16};
        ridgeline_attention(&store, &batch, &given);
        token = 0;
        for (size_t r = 0; r < rows.size(); token += counts[r++]) {
            for (int t = 0; t < counts[r]; t += between(1, 60)) {
                const int head = between(0, c.heads * c.group - 1), from = head / c.group * c.dim;
                std::vector<double> sums(c.dim);
                double total = 0;
                for (int p = 0; p <= positions[token + t]; p++) {
                    double score = 0;
                    for (int d = 0; d < c.dim; d++) score += floats[(token + t) * wide + head * c.dim + d] * rows[r].keys[p][from + d];
                    const double share = std::exp(score * scale);
                    total += share;
                    for (int d = 0; d < c.dim; d++) sums[d] += share * rows[r].values[p][from + d];
                }
                for (int d = 0; d < c.dim; d++) {
                    const int64_t at = ((token + t) * c.heads * c.group + head) * c.dim + d;
                    const double got = c.is_bfloat16 ? from_bfloat16(out_halves[at]) : out[at];
                    const double error = std::fabs(got - sums[d] / total);
                    off = error < 1e9 ? std::max(off, error) : 1e9;
                }
            }
        }
        for (int32_t counter : counters) off = counter ? 1e9 : off;
    }
    std::free(cache);
    return off;
}

int main() {
    int bad = 0;
    for (int format = 0; format < 4; format++)
        for (int is_bfloat16 = 0; is_bfloat16 < 2; is_bfloat16++)
            for (int dim : {16, 64})
                for (int block_size : {3, 16, 32}) {
                    const Case c{2, dim == 64 ? 3 : 1, dim, block_size, format, is_bfloat16};
                    const double off = worst(c);
                    if (off < (is_bfloat16 ? 0.01 : 1e-4)) continue;
                    printf("format %d, bfloat16 %d, dim %d, block size %d: off by %g\n", format, is_bfloat16, dim, block_size, off);
                    bad++;
                }
    printf(bad ? "%d cases are wrong\n" : "all cases are right\n", bad);
    return bad != 0;
}
