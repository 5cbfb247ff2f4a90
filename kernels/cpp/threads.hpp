#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>
#include "vector.hpp"

// ---- threads: those of the OpenMP that torch has loaded, by its binary interface, so that there are no others

using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
using Number = int (*)();
static Parallel run_parallel = nullptr;
static Number thread_number = nullptr, thread_count = nullptr;

template <class F> static void each_task(int64_t tasks, int64_t threads, F f) {
    struct Team { F& f; int64_t tasks; } team{f, tasks};
    auto work = [](void* given) {
        auto& own = *static_cast<Team*>(given);
        for (int64_t task = thread_number(); task < own.tasks; task += thread_count()) own.f(task);
    };
    if (run_parallel && threads > 1 && tasks > 1)
        run_parallel(work, &team, unsigned(std::min(threads, tasks)), 0);
    else
        for (int64_t task = 0; task < tasks; task++) f(task);
}

// Memory of a thread's own, which it keeps
struct Memory {
    struct Free {
        void operator()(real* at) { std::free(at); }
    };
    std::unique_ptr<real, Free> at;
    int64_t room = 0;

    real* take(int64_t size) {
        if (size > room) {
            at.reset();
            at.reset(static_cast<real*>(std::aligned_alloc(64, (size * sizeof(real) + 63) / 64 * 64)));
            room = size;
        }
        return at.get();
    }
};
static thread_local Memory scratch, packing;
