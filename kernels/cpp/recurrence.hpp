// The one schedule: a task owns some rows of the batch and one direction for all time steps, so that tasks never meet. Its
// state stays in the cache beside it; the packed recurrent weight streams from the next one, once for all rows of the task.
//
// Shape legend: T time steps, B batch, H units in N heads of K, G gates; L lanes of a vector. Inside, units are padded: head n
// has `vectors` vectors, and all have `padded` units.
#pragma once
#include "dense.hpp"

// ---- arguments: numbers and addresses, in the order in which both sides name them

struct Arguments {
    const int64_t* at;
    int64_t number() { return *at++; }
    template <class T> T* address() { return reinterpret_cast<T*>(*at++); }
};

constexpr int G = Cell::G, S = Cell::S, P = Cell::P, MASKS = Cell::MASKS;

struct Problem {
    int64_t T, B, H, N, D, threads, blocks;
    const int64_t *order, *lengths;  // rows, the longest first; and how long each is: null where all are T
    int64_t K, vectors, padded;

    explicit Problem(Arguments& given)
        : T(given.number()), B(given.number()), H(given.number()), N(given.number()), D(given.number()), threads(given.number()),
          blocks(given.number()), order(given.address<int64_t>()), lengths(given.address<int64_t>()),
          K(H / N), vectors((K + L - 1) / L), padded(N * vectors * L) {}

    int64_t row(int64_t k) const { return order ? order[k] : k; }
    int64_t length(int64_t b) const { return lengths ? lengths[b] : T; }
    int64_t time(int64_t s, int64_t b, bool reverse) const { return reverse ? length(b) - 1 - s : s; }

    // f(first unit, first unit as padded, how many) for each vector of units
    template <class F> INLINE_MEMBER void each_vector(F f) const {
        for (int64_t n = 0; n < N; n++) {
            int64_t v = 0;
            for (; v < K / L; v++) f(n * K + v * L, (n * vectors + v) * L, Full{});
            if (v < vectors) f(n * K + v * L, (n * vectors + v) * L, int(K - v * L));
        }
    }
};

// Rows of a task that are still running at the s-th step: the first of them
static int64_t running(const Problem& p, int64_t first, int64_t last, int64_t s) {
    if (!p.lengths) return last - first;
    int64_t count = 0;
    while (first + count < last && p.lengths[p.row(first + count)] > s) count++;
    return count;
}

INLINE M before(Full) { return M{} == M{}; }
INLINE M before(int count) {
    M lane;
    for (int k = 0; k < L; k++) lane[k] = k;
    return lane < M{} + whole(count);
}

template <class F, int... I> INLINE void unrolled(std::integer_sequence<int, I...>, F f) {
    (f(std::integral_constant<int, I>{}), ...);
}

template <int N> INLINE Each<real*, N> carve(real*& memory, int64_t size) {
    Each<real*, N> parts{};
    for (int k = 0; k < N; k++, memory += size) parts[k] = memory;
    return parts;
}

template <int N, class T> Each<T*, N> addresses(Arguments& given) {
    Each<T*, N> each{};
    for (int k = 0; k < N; k++) each[k] = given.address<T>();
    return each;
}
template <int N> Each<int64_t, N> numbers(Arguments& given) {
    Each<int64_t, N> each{};
    for (int k = 0; k < N; k++) each[k] = given.number();
    return each;
}

// What a step reads beside x, r and states, in both passes
struct Side {
    Each<const stored*, P> params;        // (H,) each
    Each<const stored*, MASKS> masks;   // (B, H), or (T, B, H)
    Each<int64_t, MASKS> per_step;

    explicit Side(Arguments& given)
        : params(addresses<P, const stored>(given)), masks(addresses<MASKS, const stored>(given)), per_step(numbers<MASKS>(given)) {}

    template <class C> INLINE_MEMBER void read(const Problem& p, int64_t t, int64_t b, int64_t unit, C count, Each<V, P>& own, Each<V, MASKS>& drawn) const {
        for (int k = 0; k < P; k++) own[k] = load(params[k] + unit, count);
        for (int k = 0; k < MASKS; k++) drawn[k] = load(masks[k] + ((per_step[k] ? t : 0) * p.B + b) * p.H + unit, count);
    }
};

// ---- forward

struct Forward {
    bool reverse;
    const stored *x, *x_bias;          // (T, B, G·H), and (G·H,) or null
    const stored *weight, *bias;       // (G·H, K), and (G·H,) or null
    Each<const stored*, S> initial;    // (B, H) each
    Side side;
    Each<stored*, S> states;           // (T, B, ·): null where not kept
    Each<int64_t, S> strides;          // of their rows
    stored* saved;                     // (T, B, SAVED·H), or null
    real* columns;                     // (T, B, COLUMNS)
    Each<stored*, S> finals;           // (B, H) each

    explicit Forward(Arguments& given)
        : reverse(given.number()), x(given.address<stored>()), x_bias(given.address<stored>()), weight(given.address<stored>()), bias(given.address<stored>()),
          initial(addresses<S, const stored>(given)), side(given), states(addresses<S, stored>(given)), strides(numbers<S>(given)),
          saved(given.address<stored>()), columns(given.address<real>()), finals(addresses<S, stored>(given)) {}
};

static int64_t forward_columns(const Problem& p) { return p.vectors * G; }

template <bool KEEP>
static void forward_row(const Problem& p, const Forward& d, int64_t t, int64_t b, const Each<real*, S>& state, real* entering, const real* r,
                        int64_t r_head, real* kept) {
    using Sums = Each<V, Cell::SUMS>;
    const int64_t at = t * p.B + b;
    const V hidden = splat(real(p.H));
    Sums sums{};
    unrolled(std::make_integer_sequence<int, Cell::STAGES>{}, [&](auto stage) {
        constexpr bool last = stage == Cell::STAGES - 1;
        Sums partial{};
        for (int j = 0; j < Cell::SUMS; j++) partial[j] = splat(Cell::start(j));
        auto vector = [&](int64_t unit, int64_t place, auto count) __attribute__((always_inline)) {
            Each<V, G> x, rs;
            Each<V, S> old, now;
            Each<V, P> own;
            Each<V, MASKS> drawn;
            Each<V, Cell::KEPT> held;
            Each<V, Cell::SAVED> saved;
            Each<V, Cell::COLUMNS> columns;
            Sums terms{};
            const int64_t n = p.N == 1 ? 0 : unit / p.K, c = place / L - n * p.vectors;
            for (int g = 0; g < G; g++) {
                x[g] = load(d.x + (at * G + g) * p.H + unit, count);
                if (d.x_bias) x[g] += load(d.x_bias + g * p.H + unit, count);
                rs[g] = rounded<stored>(load(r + n * r_head + (c * G + g) * L));
            }
            for (int k = 0; k < S; k++) old[k] = load(state[k] + place);
            d.side.read(p, t, b, unit, count, own, drawn);
            for (int k = 0; k < Cell::KEPT; k++) held[k] = load(kept + k * p.padded + place);
            Cell::template forward<stage>(x, rs, old, own, drawn, held, sums, hidden, terms, now, saved, columns);
            if constexpr (!last) {
                for (int k = 0; k < Cell::KEPT; k++) store(kept + k * p.padded + place, held[k]);
                for (int j = 0; j < Cell::SUMS; j++)
                    if (Cell::stage_of(j) == stage) partial[j] = Cell::add(j, partial[j], select(before(count), terms[j], splat(Cell::start(j))));
            } else {
                for (int k = 0; k < S; k++) {
                    store(state[k] + place, now[k]);
                    if (k == 0 || KEEP)
                        if (d.states[k]) store(d.states[k] + at * d.strides[k] + unit, now[k], count);
                }
                store(entering + place, rounded<stored>(now[0]));
                if constexpr (KEEP) {
                    for (int k = 0; k < Cell::SAVED; k++) store(d.saved + (at * Cell::SAVED + k) * p.H + unit, saved[k], count);
                    for (int k = 0; k < Cell::COLUMNS; k++) d.columns[at * Cell::COLUMNS + k] = columns[k][0];
                }
            }
        };
        p.each_vector(vector);
        for (int j = 0; j < Cell::SUMS; j++)
            if (Cell::stage_of(j) == stage) sums[j] = splat(Cell::reduce(j, partial[j]));
    });
}

static void forward_task(const Problem& p, const Forward& d, const real* packed, int64_t first, int64_t last) {
    const int64_t rows = last - first, columns = forward_columns(p), head = packed_size(1, columns), width = p.N * head;
    const int64_t start = d.bias ? 1 : 0;
    real* memory = scratch.take(rows * ((S + 1) * p.padded + width) + Cell::KEPT * p.padded);
    const Each<real*, S> states = carve<S>(memory, rows * p.padded);
    real *entering = memory, *r = entering + rows * p.padded, *kept = r + rows * width;
    for (int64_t k = 0; k < rows; k++)
        p.each_vector([&](int64_t unit, int64_t place, auto count) {
            for (int s = 0; s < S; s++) store(states[s] + k * p.padded + place, load(d.initial[s] + p.row(first + k) * p.H + unit, count));
            store(entering + k * p.padded + place, load(d.initial[0] + p.row(first + k) * p.H + unit, count));
        });
    const int64_t per_head = packed_size(p.K, columns);
    const real* biases = packed + p.N * per_head;
    for (int64_t s = 0; s < p.T; s++) {
        const int64_t active = running(p, first, last, s);
        for (int64_t n = 0; n < p.N; n++)
            product({entering + n * p.vectors * L, p.padded, 1, p.K, 0}, active, packed + n * per_head, columns, start ? biases + n * head : nullptr,
                    r + n * head, width);
        for (int64_t k = 0; k < active; k++) {
            const int64_t b = p.row(first + k), t = p.time(s, b, d.reverse);
            Each<real*, S> own;
            for (int j = 0; j < S; j++) own[j] = states[j] + k * p.padded;
            (d.saved || Cell::SAVED + Cell::COLUMNS == 0 ? forward_row<true> : forward_row<false>)(p, d, t, b, own, entering + k * p.padded, r + k * width, head, kept);
        }
        for (int64_t k = active; k < rows; k++) {
            const int64_t at = s * p.B + p.row(first + k);
            for (int j = 0; j < S; j++)
                if (d.states[j]) std::memset(d.states[j] + at * d.strides[j], 0, p.H * sizeof(stored));
            if (d.saved) std::memset(d.saved + at * Cell::SAVED * p.H, 0, Cell::SAVED * p.H * sizeof(stored));
            if (d.saved) std::memset(d.columns + at * Cell::COLUMNS, 0, Cell::COLUMNS * sizeof(real));
        }
    }
    for (int64_t k = 0; k < rows; k++)
        p.each_vector([&](int64_t unit, int64_t place, auto count) {
            for (int s = 0; s < S; s++) store(d.finals[s] + p.row(first + k) * p.H + unit, load(states[s] + k * p.padded + place), count);
        });
}

// Panels of units with all their gates, per head; behind them the bias in the same order
static int64_t forward_packed(const Problem& p) {
    return p.N * (packed_size(p.K, forward_columns(p)) + packed_size(1, forward_columns(p)));
}

static void pack_forward(const Problem& p, const Forward& d, real* packed, int64_t n, int64_t panel) {
    const int64_t columns = forward_columns(p), per_head = packed_size(p.K, columns), head = packed_size(1, columns);
    auto unit = [&](int64_t c, int lane) { return c / G * L + lane; };
    auto row = [&](int64_t c, int lane) { return (c % G) * p.H + n * p.K + unit(c, lane); };
    pack_panel(packed + n * per_head, p.K, columns, panel, [&](int64_t k, int64_t c, int lane) {
        return unit(c, lane) < p.K ? load_one(d.weight + row(c, lane) * p.K + k) : real(0);
    });
    if (d.bias)
        pack_panel(packed + p.N * per_head + n * head, 1, columns, panel, [&](int64_t, int64_t c, int lane) {
            return unit(c, lane) < p.K ? load_one(d.bias + row(c, lane)) : real(0);
        });
}

// ---- backward

struct Backward {
    bool reverse;
    const stored* weight;
    Each<const stored*, S> initial;
    Side side;
    Each<const stored*, S> states;     // (T, B, ·)
    Each<int64_t, S> strides;
    const stored* saved;
    const real* columns;
    Each<const stored*, S> d_states;   // (T, B, ·), or null
    Each<int64_t, S> d_strides;
    Each<const stored*, S> d_finals;   // (B, H), or null
    stored *d_x, *d_r;                 // (T, B, G·H), and (T, B, DIFFERENT·H) for the gates whose gradients of x and r differ
    Each<stored*, S> d_initial;        // (B, H) each
    Each<real*, P> d_params;           // (B, H) each, per row of the batch

    explicit Backward(Arguments& given)
        : reverse(given.number()), weight(given.address<stored>()), initial(addresses<S, const stored>(given)), side(given),
          states(addresses<S, const stored>(given)), strides(numbers<S>(given)), saved(given.address<stored>()), columns(given.address<real>()),
          d_states(addresses<S, const stored>(given)), d_strides(numbers<S>(given)), d_finals(addresses<S, const stored>(given)),
          d_x(given.address<stored>()), d_r(given.address<stored>()), d_initial(addresses<S, stored>(given)), d_params(addresses<P, real>(given)) {}
};

static void backward_row(const Problem& p, const Backward& d, int64_t s, int64_t t, int64_t b, const Each<real*, S>& carried, const real* d_h, int64_t d_h_head,
                         real* d_r, const Each<real*, P>& d_own, real* kept) {
    using Sums = Each<V, Cell::SUMS_BACK>;
    const int64_t at = t * p.B + b, previous = p.time(s - 1, b, d.reverse) * p.B + b;
    const V hidden = splat(real(p.H));
    Each<V, Cell::COLUMNS> columns;
    for (int k = 0; k < Cell::COLUMNS; k++) columns[k] = splat(d.columns[at * Cell::COLUMNS + k]);
    Sums sums{};
    unrolled(std::make_integer_sequence<int, Cell::STAGES_BACK>{}, [&](auto stage) {
        constexpr bool last = stage == Cell::STAGES_BACK - 1;
        Sums partial{};
        for (int j = 0; j < Cell::SUMS_BACK; j++) partial[j] = splat(Cell::start_back(j));
        auto vector = [&](int64_t unit, int64_t place, auto count) __attribute__((always_inline)) {
            Each<V, Cell::SAVED> saved;
            Each<V, S> now, old, incoming, d_old;
            Each<V, P> own, d_params;
            Each<V, MASKS> drawn;
            Each<V, Cell::KEPT_BACK> held;
            Each<V, G> d_x, d_rs;
            Sums terms{};
            const int64_t n = p.N == 1 ? 0 : unit / p.K, local = place - n * p.vectors * L;
            for (int k = 0; k < Cell::SAVED; k++) saved[k] = load(d.saved + (at * Cell::SAVED + k) * p.H + unit, count);
            for (int k = 0; k < S; k++) {
                now[k] = load(d.states[k] + at * d.strides[k] + unit, count);
                old[k] = s ? load(d.states[k] + previous * d.strides[k] + unit, count) : load(d.initial[k] + b * p.H + unit, count);
                incoming[k] = load(carried[k] + place);
                if (k == 0) incoming[k] += load(d_h + n * d_h_head + local);
                if (d.d_states[k]) incoming[k] += load(d.d_states[k] + at * d.d_strides[k] + unit, count);
            }
            d.side.read(p, t, b, unit, count, own, drawn);
            for (int k = 0; k < Cell::KEPT_BACK; k++) held[k] = load(kept + k * p.padded + place);
            Cell::template backward<stage>(saved, columns, now, old, own, drawn, incoming, held, sums, hidden, terms, d_x, d_rs, d_old, d_params);
            if constexpr (!last) {
                for (int k = 0; k < Cell::KEPT_BACK; k++) store(kept + k * p.padded + place, held[k]);
                for (int j = 0; j < Cell::SUMS_BACK; j++)
                    if (Cell::stage_of_back(j) == stage)
                        partial[j] = Cell::add_back(j, partial[j], select(before(count), terms[j], splat(Cell::start_back(j))));
            } else {
                const M there = before(count);  // products must not meet what a step makes of lanes that do not exist
                for (int g = 0, different = 0; g < G; g++) {
                    store(d.d_x + (at * G + g) * p.H + unit, d_x[g], count);
                    if (Cell::differs(g)) store(d.d_r + (at * Cell::DIFFERENT + different++) * p.H + unit, d_rs[g], count);
                    store(d_r + (n * G + g) * p.vectors * L + local, select(there, rounded<stored>(d_rs[g]), V{}));
                }
                for (int k = 0; k < S; k++) store(carried[k] + place, d_old[k]);
                for (int k = 0; k < P; k++) store(d_own[k] + place, load(d_own[k] + place) + d_params[k]);
            }
        };
        p.each_vector(vector);
        for (int j = 0; j < Cell::SUMS_BACK; j++)
            if (Cell::stage_of_back(j) == stage) sums[j] = splat(Cell::reduce_back(j, partial[j]));
    });
}

static void backward_task(const Problem& p, const Backward& d, const real* packed, int64_t first, int64_t last) {
    const int64_t rows = last - first, head = packed_size(1, p.vectors), width = p.N * head;
    real* memory = scratch.take(rows * ((S + P + G) * p.padded + width) + Cell::KEPT_BACK * p.padded);
    const Each<real*, S> carried = carve<S>(memory, rows * p.padded);
    const Each<real*, P> d_own = carve<P>(memory, rows * p.padded);
    real *d_r = memory, *d_h = d_r + rows * G * p.padded, *kept = d_h + rows * width;
    std::fill_n(d_h, rows * width, real(0));
    for (int k = 0; k < P; k++) std::fill_n(d_own[k], rows * p.padded, real(0));
    for (int64_t k = 0; k < rows; k++)
        p.each_vector([&](int64_t unit, int64_t place, auto count) {
            for (int s = 0; s < S; s++)
                store(carried[s] + k * p.padded + place, d.d_finals[s] ? load(d.d_finals[s] + p.row(first + k) * p.H + unit, count) : V{});
        });
    const int64_t per_head = packed_size(G * p.K, p.vectors);
    for (int64_t s = p.T - 1; s >= 0; s--) {
        const int64_t active = running(p, first, last, s);
        for (int64_t k = 0; k < active; k++) {
            const int64_t b = p.row(first + k);
            Each<real*, S> own;
            Each<real*, P> sums;
            for (int j = 0; j < S; j++) own[j] = carried[j] + k * p.padded;
            for (int j = 0; j < P; j++) sums[j] = d_own[j] + k * p.padded;
            backward_row(p, d, s, p.time(s, b, d.reverse), b, own, d_h + k * width, head, d_r + k * G * p.padded, sums, kept);
        }
        for (int64_t n = 0; n < p.N; n++)
            product({d_r + n * G * p.vectors * L, G * p.padded, G, p.K, p.vectors * L}, active, packed + n * per_head, p.vectors, nullptr, d_h + n * head, width);
        for (int64_t k = active; k < rows; k++) {
            const int64_t at = s * p.B + p.row(first + k);
            std::memset(d.d_x + at * G * p.H, 0, G * p.H * sizeof(stored));
            if (Cell::DIFFERENT) std::memset(d.d_r + at * Cell::DIFFERENT * p.H, 0, Cell::DIFFERENT * p.H * sizeof(stored));
        }
    }
    for (int64_t k = 0; k < rows; k++)
        p.each_vector([&](int64_t unit, int64_t place, auto count) {
            const int64_t at = p.row(first + k) * p.H + unit, n = unit / p.K;
            for (int s = 0; s < S; s++) {
                V value = load(carried[s] + k * p.padded + place);
                if (s == 0) value += load(d_h + k * width + n * head + place - n * p.vectors * L);
                store(d.d_initial[s] + at, value, count);
            }
            for (int j = 0; j < P; j++) store(d.d_params[j] + at, load(d_own[j] + k * p.padded + place), count);
        });
}

static int64_t backward_packed(const Problem& p) { return p.N * packed_size(G * p.K, p.vectors); }

static void pack_backward(const Problem& p, const Backward& d, real* packed, int64_t n, int64_t panel) {
    pack_panel(packed + n * packed_size(G * p.K, p.vectors), G * p.K, p.vectors, panel, [&](int64_t k, int64_t c, int lane) {
        const int64_t unit = c * L + lane, g = k / p.K;
        return unit < p.K ? load_one(d.weight + (g * p.H + n * p.K + k % p.K) * p.K + unit) : real(0);
    });
}

// ---- what is called from outside

template <class Pass, class Pack, class Task>
static void run(const int64_t* arguments, int64_t columns(const Problem&), int64_t size(const Problem&), Pack pack, Task task) {
    Arguments given{arguments};
    const Problem p(given);
    Each<std::unique_ptr<Pass>, 2> directions;
    for (int64_t d = 0; d < p.D; d++) directions[d] = std::make_unique<Pass>(given);
    const int64_t each = size(p);
    real* packed = packing.take(p.D * each);
    const int64_t width = panel_width(columns(p)), panels = (columns(p) + width - 1) / width;
    each_task(p.D * p.N * panels, p.threads, [&](int64_t k) {
        pack(p, *directions[k / panels / p.N], packed + k / panels / p.N * each, k / panels % p.N, k % panels);
    });
    each_task(p.D * p.blocks, p.threads, [&](int64_t k) {
        const int64_t d = k / p.blocks, block = k % p.blocks;
        const int64_t rows = p.B / p.blocks, more = p.B % p.blocks, first = block * rows + std::min(block, more);
        task(p, *directions[d], packed + d * each, first, first + rows + (block < more));
    });
}

extern "C" {
void set_threads(Parallel parallel, Number number, Number count) { run_parallel = parallel, thread_number = number, thread_count = count; }
void forward(const int64_t* arguments) { run<Forward>(arguments, forward_columns, forward_packed, pack_forward, forward_task); }
// x W^T and d W for an input projection, and the gradients of weights and biases: in the order of their arguments
void project(const int64_t* arguments) {
    Arguments given{arguments};
    const auto a = given.address<const stored>(), weight = given.address<const stored>();
    const auto out = given.address<stored>();
    const int64_t rows = given.number(), inputs = given.number(), outputs = given.number(), threads = given.number();
    multiply_rows(a, rows, inputs, outputs, out, false, threads, [&](int64_t k, int64_t c) { return load_one(weight + c * inputs + k); });
}
void project_back(const int64_t* arguments) {
    Arguments given{arguments};
    const auto a = given.address<const stored>(), weight = given.address<const stored>();
    const auto out = given.address<stored>();
    const int64_t rows = given.number(), outputs = given.number(), inputs = given.number(), threads = given.number(), add = given.number();
    multiply_rows(a, rows, outputs, inputs, out, add, threads, [&](int64_t k, int64_t c) { return load_one(weight + k * inputs + c); });
}
void outer(const int64_t* arguments) {
    Arguments given{arguments};
    const auto a = given.address<const stored>();
    const int64_t a_stride = given.number();
    const auto b = given.address<const stored>();
    const int64_t b_stride = given.number(), depth = given.number(), rows = given.number(), columns = given.number();
    const auto out = given.address<stored>();
    const auto totals = given.address<stored>();
    const int64_t threads = given.number(), add = given.number();
    multiply_transposed(a, a_stride, b, b_stride, depth, rows, columns, out, add, totals, threads);
}
void sums(const int64_t* arguments) {
    Arguments given{arguments};
    const auto a = given.address<const real>();
    const auto out = given.address<stored>();
    const int64_t rows = given.number(), columns = given.number(), threads = given.number();
    sum_rows(a, rows, columns, out, threads);
}
void backward(const int64_t* arguments) {
    run<Backward>(arguments, [](const Problem& p) { return p.vectors; }, backward_packed, pack_backward, backward_task);
}
}
