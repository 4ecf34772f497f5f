// Dot products of many rows by the matrix unit of Intel's processors (AMX), where the compiler's target has it and the
// kernel grants it. Strips and activations as in dots.h: a chunk of either is one tile.
#pragma once

#include "dots.h"

#if defined(__AMX_INT8__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define RIDGELINE_TILES 1
#else
#define RIDGELINE_TILES 0
#endif

namespace ridgeline {

constexpr int64_t TILE_ROWS = 16;
constexpr int64_t TILE_BYTES = CHUNK * LANES;

#if RIDGELINE_TILES

// Whether this process may use the unit: Linux wants to be asked, once, because a thread's state grows by 8 KiB.
inline bool tiles_granted() {
    static const bool granted = [] {
        constexpr long ASK = 0x1023, TILE_DATA = 18;
        return syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
    }();
    return granted;
}

// Tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 weights. A thread that leaves the unit as it found it is switched as
// cheaply as before, and whoever else uses the unit sees that it must be set up.
struct TileSetup {
    explicit TileSetup(int64_t height) {
        alignas(64) uint8_t told[64] = {0};
        told[0] = 1;
        for (int tile = 0; tile < 8; tile++) {
            const uint16_t width = 64;
            std::memcpy(told + 16 + 2 * tile, &width, 2);
            told[48 + tile] = (uint8_t)(tile < 6 ? height : STEPS);
        }
        asm volatile("ldtilecfg %0" ::"m"(told));  // the intrinsic of GCC 12 does not say that it reads all 64 bytes
    }
    ~TileSetup() { _tile_release(); }
    TileSetup(const TileSetup &) = delete;
    TileSetup &operator=(const TileSetup &) = delete;
};

inline void ask_for_tile(const uint8_t *tile) {
    for (int64_t step = 0; step < STEPS; step++) ask_for(tile + AHEAD + step * LINE);
}

// One block of rows and four strips; out: [4][height][16].
inline void tiles_1x4(const uint8_t *const *strips, const uint8_t *x, int64_t height, int64_t chunks, int32_t *out) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const int64_t at = chunk * TILE_BYTES;
        _tile_loadd(4, x + chunk * height * CHUNK, CHUNK);
        for (int strip = 0; strip < 4; strip++) ask_for_tile(strips[strip] + at);
        _tile_loadd(6, strips[0] + at, LINE);
        _tile_dpbusd(0, 4, 6);
        _tile_loadd(7, strips[1] + at, LINE);
        _tile_dpbusd(1, 4, 7);
        _tile_loadd(6, strips[2] + at, LINE);
        _tile_dpbusd(2, 4, 6);
        _tile_loadd(7, strips[3] + at, LINE);
        _tile_dpbusd(3, 4, 7);
    }
    _tile_stored(0, out, LINE);
    _tile_stored(1, out + height * LANES, LINE);
    _tile_stored(2, out + 2 * height * LANES, LINE);
    _tile_stored(3, out + 3 * height * LANES, LINE);
}

// Two whole blocks of rows and two strips; out: [2 strips][32][16]. meanwhile: called at every chunk, because vectors and
// memory have nothing to do while the matrix unit multiplies.
template <class Meanwhile>
inline void tiles_2x2(const uint8_t *const *strips, const uint8_t *x, int64_t chunks, int32_t *out, Meanwhile &meanwhile) {
    const uint8_t *below = x + chunks * TILE_BYTES;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t at = 0; at < chunks * TILE_BYTES; at += TILE_BYTES) {
        _tile_loadd(4, x + at, LINE);
        _tile_loadd(6, strips[0] + at, LINE);
        _tile_dpbusd(0, 4, 6);
        _tile_loadd(5, below + at, LINE);
        _tile_dpbusd(1, 5, 6);
        _tile_loadd(7, strips[1] + at, LINE);
        _tile_dpbusd(2, 4, 7);
        _tile_dpbusd(3, 5, 7);
        meanwhile();
    }
    _tile_stored(0, out, LINE);
    _tile_stored(1, out + 16 * LANES, LINE);
    _tile_stored(2, out + 32 * LANES, LINE);
    _tile_stored(3, out + 48 * LANES, LINE);
}

inline void tiles_1x1(const uint8_t *strip, const uint8_t *x, int64_t height, int64_t chunks, int32_t *out) {
    _tile_zero(0);
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        _tile_loadd(4, x + chunk * height * CHUNK, CHUNK);
        _tile_loadd(6, strip + chunk * TILE_BYTES, LINE);
        _tile_dpbusd(0, 4, 6);
    }
    _tile_stored(0, out, LINE);
}

#endif

}  // namespace ridgeline
