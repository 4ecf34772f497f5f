// A program of its own for the thread sanitizer: calls of random sizes, by several callers at once. Not part of a library.

#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "teams.h"

using namespace ridgeline;

namespace {

// Every item once, written without a lock: whoever reads them after the call must see them.
bool every_item_once(Team *team, int64_t count, Runs runs) {
    std::vector<int> items((size_t)count);
    share(team, count, runs, [&](Turn &turn) {
        while (turn.next())
            for (int64_t at = turn.begin; at < turn.end; at++) items[(size_t)at]++;
    });
    for (const int times : items)
        if (times != 1) return false;
    return true;
}

int calls(unsigned seed, int count) {
    std::mt19937 random(seed);
    for (int call = 0; call < count; call++) {
        const int64_t least = 1 + random() % 8, most = least + random() % 50;
        if (!every_item_once(team_of(1 + random() % 5), random() % 300, {least, most})) return 1;
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    const unsigned seed = argc > 1 ? (unsigned)std::atoi(argv[1]) : std::random_device{}();
    std::printf("seed %u\n", seed);
    for (int64_t threads = 1; threads < 6; threads++) team_of(threads);
    std::atomic<int> failed{0};
    std::vector<std::thread> callers;
    for (unsigned caller = 0; caller < 3; caller++) callers.emplace_back([&, caller] { failed += calls(seed + caller, 1000); });
    for (auto &caller : callers) caller.join();
    std::printf(failed ? "an item was not done once\n" : "every item was done once\n");
    return failed;
}
