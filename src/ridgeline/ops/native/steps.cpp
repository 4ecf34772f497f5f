// What a decode step does beside products and attention: it looks up what its rows compute, chooses the likeliest tokens,
// and plays calls one after the other. Knows no model.

#include <algorithm>
#include <cmath>

#include "team.h"
#include "vectors.h"

using namespace ridgeline;

extern "C" {

// A call of native code, whose arguments are all addresses or whole numbers. It returns 0, or what went wrong.
struct Call {
    void *function;
    intptr_t given[6];
};

// Returns what the first call that fails returns, or 0.
int ridgeline_play(const Call *calls, int64_t count) {
    typedef int (*Function)(intptr_t, intptr_t, intptr_t, intptr_t, intptr_t, intptr_t);
    for (const Call *call = calls; call < calls + count; call++) {
        const intptr_t *given = call->given;
        if (const int failed = ((Function)call->function)(given[0], given[1], given[2], given[3], given[4], given[5]))
            return failed;
    }
    return 0;
}

// The tables have a row for every slot: of its tokens [tokens_width], and of its blocks [blocks_width].
struct Seats {
    const int32_t *tokens, *blocks;
    int64_t tokens_width, blocks_width, block_size;
};

// Of each slot the token that stands at its position, and where its keys and values go. Returns 0.
int ridgeline_seat(const Seats *seats, const int64_t *slots, const int64_t *positions, int64_t *ids, int64_t *writes, int64_t count) {
    const int64_t size = seats->block_size;
    for (int64_t row = 0; row < count; row++) {
        const int64_t slot = slots[row], position = positions[row];
        ids[row] = seats->tokens[slot * seats->tokens_width + position];
        writes[row] = seats->blocks[slot * seats->blocks_width + position / size] * size + position % size;
    }
    return 0;
}

// logits: [rows][vocab] in bfloat16 or float32. Of each row the likeliest, the lowest of equal ones; what is no number is
// likelier than all numbers. Returns 0.
int ridgeline_likeliest(Team *team, const void *logits, int64_t is_bfloat16, int64_t rows, int64_t vocab, int64_t *chosen);

}  // extern "C"

namespace {

constexpr int64_t PIECE = 2048;  // logits whose greatest is found before its place is looked for

struct Short {
    typedef uint16_t Value;
    static Floats load(const Value *from) { return from_bfloat16(ridgeline::load<Halves>(from)); }
    static float one(Value value) { return bits<float>((uint32_t)value << 16); }
};
struct Long {
    typedef float Value;
    static Floats load(const Value *from) { return ridgeline::load<Floats>(from); }
    static float one(Value value) { return value; }
};

// The greatest of a piece; not a number where one of them is none.
template <class Format>
float greatest(const typename Format::Value *logits, int64_t count) {
    Floats top = all(-INFINITY), sum = {};
    int64_t at = 0;
    for (; at + LANES <= count; at += LANES) {
        const Floats some = Format::load(logits + at);
        top = most(top, some);
        sum += some * 0.0f;  // not a number where one of them is none, or infinite
    }
    float best = -INFINITY;
    bool odd = false;
    for (int64_t lane = 0; lane < LANES; lane++) {
        best = std::max(best, top[lane]);
        odd = odd || sum[lane] != 0.0f;
    }
    for (; at < count; at++) {
        const float value = Format::one(logits[at]);
        best = std::max(best, value);
        odd = odd || value != value;
    }
    for (at = 0; odd && at < count; at++)
        if (const float value = Format::one(logits[at]); value != value) return value;
    return best;
}

template <class Format>
int64_t likeliest(const typename Format::Value *logits, int64_t vocab) {
    float best = -INFINITY;
    int64_t piece = 0;
    for (int64_t at = 0; at < vocab; at += PIECE) {
        const float found = greatest<Format>(logits + at, std::min(PIECE, vocab - at));
        if (found != found || found > best) best = found, piece = at;
        if (found != found) break;
    }
    for (int64_t at = piece; at < vocab; at++)
        if (const float value = Format::one(logits[at]); value == best || (value != value && best != best)) return at;
    return 0;
}

}  // namespace

int ridgeline_likeliest(Team *team, const void *logits, int64_t is_bfloat16, int64_t rows, int64_t vocab, int64_t *chosen) {
    share(team, rows, {1, INT64_MAX}, [=](Turn &turn) {
        while (turn.next())
            for (int64_t row = turn.begin; row < turn.end; row++)
                chosen[row] = is_bfloat16 ? likeliest<Short>((const uint16_t *)logits + row * vocab, vocab)
                                          : likeliest<Long>((const float *)logits + row * vocab, vocab);
    });
    return 0;
}
