#pragma once
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>
#include "vector.hpp"

// ---- threads of the OpenMP runtime that torch has loaded, by its binary interface, so that there is no second pool

using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
using Number = int (*)();
static Parallel run_parallel = nullptr;
static Number thread_number = nullptr, thread_count = nullptr;

// Carries an out-of-memory error of a thread to the caller, because no exception may leave a parallel region or a C
// function
struct Failure {
    std::atomic<bool> happened{false};

    template <class F> void note(F f) {
        try {
            f();
        } catch (...) {
            happened = true;
        }
    }
    void raise() const {
        if (happened) throw std::bad_alloc();
    }
};

// Returns the status for C: 0, or 1 if f failed
template <class F> static int guarded(F f) {
    Failure failure;
    failure.note(f);
    return failure.happened;
}

// Calls f(task) for each task, dealt out to the threads in turn
template <class F> static void each_task(int64_t tasks, int64_t threads, F f) {
    if (!run_parallel || threads < 2 || tasks < 2) {
        for (int64_t task = 0; task < tasks; task++) f(task);
        return;
    }
    struct Job { F& f; int64_t tasks; Failure failure; } job{f, tasks, {}};
    auto work = [](void* given) {
        auto& own = *static_cast<Job*>(given);
        own.failure.note([&] {
            for (int64_t task = thread_number(); task < own.tasks; task += thread_count()) own.f(task);
        });
    };
    run_parallel(work, &job, unsigned(std::min(threads, tasks)), 0);
    job.failure.raise();
}

// Tasks of different kinds
using Tasks = std::vector<std::function<void()>>;

static void run(const Tasks& tasks, int64_t threads) {
    each_task(int64_t(tasks.size()), threads, [&](int64_t task) { tasks[task](); });
}

// Threads that share a task and wait for each other
struct Team {
    int64_t me = 0, members = 1;
    struct alignas(64) Count {
        std::atomic<int64_t> of{0};
    };
    Count* arrived = nullptr;

    // Waits until every member has called this `times` times in total
    void wait(int64_t times) const {
        if (members == 1) return;
        arrived->of.fetch_add(1, std::memory_order_acq_rel);
        for (int spins = 0; arrived->of.load(std::memory_order_acquire) < times * members; spins++)
            if (spins > 1000) std::this_thread::yield();  // there may be more threads than cores
    }
    // A member that fails calls this, so that the others do not wait for it
    void leave() const {
        if (members > 1) arrived->of.fetch_add(int64_t(1) << 48, std::memory_order_acq_rel);
    }

    // Returns the start of a member's share of `count` items, a multiple of `unit` or `count` itself
    int64_t share(int64_t member, int64_t count, int64_t unit) const {
        return std::min(count, (count + unit - 1) / unit * member / members * unit);
    }
};

// Calls f(task, team) in threads that all run at the same time: several threads per task if there are enough
template <class F> static void each_team(int64_t tasks, int64_t threads, F f) {
    if (!run_parallel || threads < 2 * tasks) return each_task(tasks, threads, [&](int64_t task) { f(task, Team{}); });
    struct Teams { F& f; int64_t tasks; std::vector<Team::Count> arrived; Failure failure; } teams{f, tasks, std::vector<Team::Count>(tasks), {}};
    auto work = [](void* given) {
        auto& own = *static_cast<Teams*>(given);
        const int64_t number = thread_number(), members = thread_count() / own.tasks;  // may be fewer than requested
        const auto attempt = [&](int64_t task, const Team& team) {
            own.failure.note([&] {
                try {
                    own.f(task, team);
                } catch (...) {
                    team.leave();
                    throw;
                }
            });
        };
        if (members < 2)
            for (int64_t task = number; task < own.tasks; task += thread_count()) attempt(task, Team{});
        else if (number < members * own.tasks)
            attempt(number / members, Team{number % members, members, &own.arrived[number / members]});
    };
    run_parallel(work, &teams, unsigned(threads), 0);
    teams.failure.raise();
}

// Memory that a thread owns and keeps between calls
struct Memory {
    struct Free {
        void operator()(real* at) { std::free(at); }
    };
    std::unique_ptr<real, Free> at;
    int64_t room = 0;

    real* take(int64_t size) {
        if (size > room) {
            at.reset();
            room = 0;
            at.reset(static_cast<real*>(std::aligned_alloc(64, (size * sizeof(real) + 63) / 64 * 64)));
            if (!at) throw std::bad_alloc();
            room = size;
        }
        return at.get();
    }
};
static thread_local Memory scratch, packing;
