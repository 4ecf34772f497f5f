// Team: threads that share out the items of a call. Knows no product.
//
// Items are taken in runs by whoever is free, the caller among them. So a call waits for those who work for it, and never
// for a thread that has not begun: where other programs have the other cores, the caller goes on alone. A region of OpenMP
// meets all its threads, and waits for the kernel's scheduler at every one of them.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ridgeline {

// Between two calls a thread watches so long, and then sleeps: a step has many calls, a few microseconds apart. Meanwhile
// it makes room again and again for whoever wants its core.
constexpr std::chrono::microseconds WATCHING(100);
// So often the caller looks whether the others are ready before it lets somebody else have its core.
constexpr int LOOKS = 400;

inline void rest_a_moment() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
}

// Items that follow each other. How many a thread takes at once: half of its share of what is left, within these bounds,
// so that it has long runs and all are ready at the same time.
struct Runs {
    int64_t least = 1, most = INT64_MAX;
};

class Team;

// What a thread does of a call.
class Turn {
  public:
    int64_t begin = 0, end = 0;  // of the run that was taken last
    // 0 is the caller's.
    const int thread;
    // Takes the next run; false: there is none.
    bool next();

  private:
    friend class Team;
    Turn(Team *team, int thread, uint64_t serial, Runs runs) : thread(thread), team_(team), serial_(serial), runs_(runs) {}
    Team *const team_;
    const uint64_t serial_;
    const Runs runs_;
    bool is_held_ = false;  // whether a run was taken that nobody has begun
    int64_t taken_ = 0;

  public:
    explicit Turn(int64_t count) : end(count), thread(0), team_(nullptr), serial_(0), is_held_(count > 0) {}
};

class Team {
  public:
    typedef void (*Body)(const void *context, Turn &turn);
    static constexpr int64_t MOST_ITEMS = (1 << 24) - 1;
    const int threads;

    explicit Team(int threads) : threads(threads) {
        try {
            for (int thread = 1; thread < threads; thread++) std::thread([this, thread] { help(thread); }).detach();
        } catch (const std::system_error &) {  // whoever cannot be had is not waited for
        }
    }

    void run(int64_t count, Runs runs, Body body, const void *context) {
        const std::unique_lock<std::mutex> lock(caller_, std::try_to_lock);
        if (!lock) {  // another thread of the program has them
            Turn alone(count);
            return body(context, alone);
        }
        body_ = body, context_ = context, runs_ = runs;
        done_.store(0, std::memory_order_relaxed);
        const uint64_t serial = (serial_of(line_.load(std::memory_order_relaxed)) + 1) & 0xffff;
        line_.store(serial << 48 | (uint64_t)count << 24);
        if (sleeping_.load()) {
            { const std::lock_guard<std::mutex> seen(bed_); }
            bell_.notify_all();
        }
        Turn mine(this, 0, serial, runs);
        body(context, mine);
        done_.fetch_add(mine.taken_, std::memory_order_relaxed);
        for (int looks = 0; done_.load(std::memory_order_acquire) != count; looks++)
            looks < LOOKS ? rest_a_moment() : std::this_thread::yield();
    }

  private:
    friend class Turn;

    static uint64_t serial_of(uint64_t line) { return line >> 48; }

    // Of the call with this number, if it is still the one.
    bool take(uint64_t serial, Runs runs, int64_t &begin, int64_t &end) {
        uint64_t seen = line_.load(std::memory_order_acquire);
        for (;;) {
            const int64_t count = seen >> 24 & MOST_ITEMS, next = seen & MOST_ITEMS;
            if (serial_of(seen) != serial || next == count) return false;
            const int64_t share = (count - next) / (2 * threads);
            const int64_t wanted = share < runs.least ? runs.least : share > runs.most ? runs.most : share;
            const int64_t size = wanted < count - next ? wanted : count - next;
            if (line_.compare_exchange_weak(seen, seen + (uint64_t)size, std::memory_order_acq_rel, std::memory_order_acquire)) {
                begin = next, end = next + size;
                return true;
            }
        }
    }

    void help(int thread) {
        for (;;) {
            const uint64_t serial = serial_of(line_.load(std::memory_order_acquire));
            int64_t begin, end;
            // What is said of a call may be read by those only who have an item of it: without that it may be over.
            if (take(serial, Runs{1, 1}, begin, end)) {
                Turn turn(this, thread, serial, runs_);
                turn.begin = begin, turn.end = end, turn.is_held_ = true, turn.taken_ = end - begin;
                body_(context_, turn);
                done_.fetch_add(turn.taken_, std::memory_order_release);
            } else {
                wait_after(serial);
            }
        }
    }

    void wait_after(uint64_t serial) {
        const auto over = [&] { return serial_of(line_.load()) != serial; };
        const auto until = std::chrono::steady_clock::now() + WATCHING;
        do {
            for (int look = 0; look < 16; look++, rest_a_moment())
                if (over()) return;
            std::this_thread::yield();
        } while (std::chrono::steady_clock::now() < until);
        std::unique_lock<std::mutex> lock(bed_);
        sleeping_.fetch_add(1);
        bell_.wait(lock, over);
        sleeping_.fetch_sub(1);
    }

    std::mutex caller_, bed_;
    std::condition_variable bell_;
    std::atomic<int> sleeping_{0};
    alignas(64) std::atomic<uint64_t> line_{0};  // 16 bits of the call's number, 24 of its items, 24 of those taken
    alignas(64) std::atomic<int64_t> done_{0};
    Body body_ = nullptr;
    const void *context_ = nullptr;
    Runs runs_;
};

inline bool Turn::next() {
    if (is_held_) return is_held_ = false, true;
    if (!team_ || !team_->take(serial_, runs_, begin, end)) return false;
    taken_ += end - begin;
    return true;
}

// body(turn): every thread's part of `count` items; it takes runs as long as there are any. Returns when all are done.
template <class Does>
void share(Team *team, int64_t count, Runs runs, const Does &body) {
    if (!team || team->threads == 1 || count <= runs.least || count > Team::MOST_ITEMS) {
        Turn alone(count);
        return body(alone);
    }
    team->run(count, runs, [](const void *context, Turn &turn) { (*(const Does *)context)(turn); }, &body);
}

inline int threads_of(const Team *team) { return team ? team->threads : 1; }

}  // namespace ridgeline

extern "C" {

// A team is never given back: its threads sleep.
inline __attribute__((used)) ridgeline::Team *ridgeline_team(int threads) { return new ridgeline::Team(threads); }

}  // extern "C"
