// What both passes share: the problem and its schedule. There is a single schedule: a task owns some rows of the batch
// and one direction for all time steps, so tasks never synchronize with each other. The state of a task stays in the
// nearest cache. Packed weights stream from the next level of cache, once for all rows of the task.
//
// Shape legend: T time steps, B batch, I input size, H units in N heads of K, G gates, D directions; L lanes of a
// vector. Internally, units are padded: each head has `vectors` vectors, and all heads together have `padded` units.
#pragma once
#include <numeric>
#include <vector>
#include "dense.hpp"

// Numbers and addresses, in the order that Python and C++ agree on
struct Arguments {
    const int64_t* at;
    int64_t number() { return *at++; }
    template <class T> T* address() { return reinterpret_cast<T*>(*at++); }
    template <int N, class T> Each<T*, N> addresses() {
        Each<T*, N> each{};
        for (int k = 0; k < N; k++) each[k] = address<T>();
        return each;
    }
};

constexpr int64_t ENOUGH = 1 << 13;  // multiplications of a time step that justify synchronizing at its end
constexpr int G = Cell::G, S = Cell::S, P = Cell::P, MASKS = Cell::MASKS, DIFFERENT = Cell::DIFFERENT;

struct Problem {
    int64_t T, B, I, H, N, D, threads, blocks;
    const int64_t* lengths;          // (B,), or null where all are T
    const stored* x;                 // (T, B, I)
    int64_t x_t, x_b;                // strides
    int64_t K, vectors, padded;
    std::vector<int64_t> order;      // with lengths: the rows of each block, longest first

    explicit Problem(Arguments& given)
        : T(given.number()), B(given.number()), I(given.number()), H(given.number()), N(given.number()), D(given.number()),
          threads(given.number()), blocks(given.number()), lengths(given.address<int64_t>()), x(given.address<stored>()),
          x_t(given.number()), x_b(given.number()), K(H / N), vectors((K + L - 1) / L), padded(N * vectors * L) {
        if (!lengths) return;
        std::vector<int64_t> ranked(B);
        std::iota(ranked.begin(), ranked.end(), 0);
        std::stable_sort(ranked.begin(), ranked.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
        for (int64_t block = 0; block < blocks; block++)  // dealt out in turn, so that blocks are about equally long
            for (int64_t k = block; k < B; k += blocks) order.push_back(ranked[k]);
    }

    int64_t row(int64_t k) const { return lengths ? order[k] : k; }
    int64_t length(int64_t b) const { return lengths ? lengths[b] : T; }
    int64_t time(int64_t s, int64_t b, bool reverse) const { return reverse ? length(b) - 1 - s : s; }
    const stored* input(int64_t t, int64_t b) const { return x + t * x_t + b * x_b; }

    // Calls f(first unit, first unit in padded storage, number of lanes) for a range of the vectors of each head
    template <class F> INLINE_MEMBER void each_vector(Range which, F f) const {
        for (int64_t n = 0; n < N; n++) {
            int64_t v = which.from;
            for (; v < std::min(which.to, K / L); v++) f(n * K + v * L, (n * vectors + v) * L, Full{});
            if (v < which.to) f(n * K + v * L, (n * vectors + v) * L, int(K - v * L));
        }
    }

    // Returns how many rows of a task still run at the s-th step; these are its first rows, since rows are sorted by
    // length
    int64_t running(int64_t first, int64_t last, int64_t s) const {
        if (!lengths) return last - first;
        int64_t count = 0;
        while (first + count < last && lengths[row(first + count)] > s) count++;
        return count;
    }

    // Calls f(direction, first row, one past the last row, team) for each task. If there are more threads than tasks,
    // and enough work in a time step, a team shares the units of a task. This needs a step without row reductions
    // (`stages` is 1) and a single head.
    template <class F> void each_block(int stages, int64_t threads, F f) const {
        auto task = [&](int64_t task, const Team& team) {
            const int64_t block = task % blocks, rows = B / blocks, more = B % blocks, first = block * rows + std::min(block, more);
            f(task / blocks, first, first + rows + (block < more), team);
        };
        const bool shared = stages == 1 && N == 1 && (B / blocks) * G * H * K > ENOUGH;
        if (shared) return each_team(D * blocks, threads, task);
        each_task(D * blocks, threads, [&](int64_t k) { task(k, Team{}); });
    }
};

INLINE M before(Full) { return M{} == M{}; }
INLINE M before(int count) {
    M lane;
    for (int k = 0; k < L; k++) lane[k] = k;
    return lane < M{} + whole(count);
}

template <class F, int... I> INLINE void unrolled(std::integer_sequence<int, I...>, F f) { (f(std::integral_constant<int, I>{}), ...); }

template <int N> INLINE Each<real*, N> carve(real*& memory, int64_t size) {
    Each<real*, N> parts{};
    for (int k = 0; k < N; k++, memory += size) parts[k] = memory;
    return parts;
}

// (T, B, ·) tensors; some may be null
template <int N, class Value> struct Sequences {
    Each<Value*, N> at;
    Each<int64_t, N> t, b;  // strides

    explicit Sequences(Arguments& given) : at(given.addresses<N, Value>()) {
        for (int k = 0; k < N; k++) t[k] = given.number(), b[k] = given.number();
    }
    INLINE_MEMBER Value* row(int k, int64_t time, int64_t row) const { return at[k] + time * t[k] + row * b[k]; }
};

// What a step reads besides x, r and the states, in both passes
struct Side {
    Each<const stored*, P> params;         // (H,) each
    Sequences<MASKS, const stored> masks;  // (B, H), or (T, B, H)

    explicit Side(Arguments& given) : params(given.addresses<P, const stored>()), masks(given) {}

    template <class C> INLINE_MEMBER void read(int64_t t, int64_t b, int64_t unit, C count, Each<V, P>& own, Each<V, MASKS>& drawn) const {
        for (int k = 0; k < P; k++) own[k] = load(params[k] + unit, count);
        for (int k = 0; k < MASKS; k++) drawn[k] = load(masks.row(k, t, b) + unit, count);
    }
};
