// Teams for the sanitizers' programs, made once: their threads stay.
#pragma once

#include "team.h"

// Of so many threads; 0: none, the caller alone.
inline ridgeline::Team *team_of(int64_t threads) {
    static ridgeline::Team *made[8] = {};
    if (threads == 0) return nullptr;
    if (!made[threads]) made[threads] = ridgeline_team((int)threads);
    return made[threads];
}
