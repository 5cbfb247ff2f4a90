// The backward pass: first the gradients of the gates of all steps, then those of the input, weights and biases as
// large products.
#pragma once
#include "problem.hpp"

struct Backward {
    bool reverse;
    const stored *weight_ih, *weight_hh;
    Each<const stored*, S> initial;
    Side side;
    Sequences<S, const stored> states;
    const stored* saved;
    const real* columns;
    Sequences<S, const stored> d_states;     // each may be null
    Each<const stored*, S> d_finals;         // (B, H) each, or null
    stored *d_x, *d_r;                       // (T, B, G·H); (T, B, DIFFERENT·H) for gates where the two differ
    Each<real*, P> d_rows;                   // (B, H) each: gradients of the parameters per row of the batch
    Each<stored*, S> d_initial;              // (B, H) each
    stored *d_weight_ih, *d_weight_hh;       // shaped as the weights
    stored *d_bias_ih, *d_bias_hh;           // shaped as the biases
    Each<stored*, P> d_params;               // (H,) each

    explicit Backward(Arguments& given)
        : reverse(given.number()), weight_ih(given.address<stored>()), weight_hh(given.address<stored>()),
          initial(given.addresses<S, const stored>()), side(given), states(given), saved(given.address<stored>()),
          columns(given.address<real>()), d_states(given), d_finals(given.addresses<S, const stored>()), d_x(given.address<stored>()),
          d_r(given.address<stored>()), d_rows(given.addresses<P, real>()), d_initial(given.addresses<S, stored>()),
          d_weight_ih(given.address<stored>()), d_weight_hh(given.address<stored>()), d_bias_ih(given.address<stored>()),
          d_bias_hh(given.address<stored>()), d_params(given.addresses<P, stored>()) {}
};

// The recurrent weight of a direction, packed per head, for products with the gradients of all gates
struct BackwardWeights {
    const Panels panels;
    const int64_t each;  // size of one head's weight
    real* at;

    BackwardWeights(const Problem& p, real* memory) : panels{p.vectors}, each(panels.size(G * p.K)), at(memory) {}

    real* weight_hh(int64_t n) const { return at + n * each; }

    void pack(const Problem& p, const Backward& d, int64_t n, int64_t panel) const {
        pack_rows(weight_hh(n), G * p.K, panels, panel, [&](int64_t k, int64_t c) {
            const stored* row = d.weight_hh + (k / p.K * p.H + n * p.K + k % p.K) * p.K;
            return (c + 1) * L <= p.K ? load(row + c * L) : load(row + c * L, int(p.K - c * L));
        });
    }
};

static void backward_row(const Problem& p, const Backward& d, Range units, int64_t s, int64_t t, int64_t b, const Each<real*, S>& carried, const real* d_h, int64_t d_h_head,
                         real* d_r, const Each<real*, P>& d_own, real* kept) {
    using Sums = Each<V, Cell::SUMS_BACK>;
    const int64_t at = t * p.B + b, previous = p.time(s - 1, b, d.reverse);
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
                now[k] = load(d.states.row(k, t, b) + unit, count);
                old[k] = s ? load(d.states.row(k, previous, b) + unit, count) : load(d.initial[k] + b * p.H + unit, count);
                incoming[k] = load(carried[k] + place);
                if (k == 0) incoming[k] += load(d_h + n * d_h_head + local);
                if (d.d_states.at[k]) incoming[k] += load(d.d_states.row(k, t, b) + unit, count);
            }
            d.side.read(t, b, unit, count, own, drawn);
            for (int k = 0; k < Cell::KEPT_BACK; k++) held[k] = load(kept + k * p.padded + place);
            Cell::template backward<stage>(saved, columns, now, old, own, drawn, incoming, held, sums, hidden, terms, d_x, d_rs, d_old, d_params);
            if constexpr (!last) {
                for (int k = 0; k < Cell::KEPT_BACK; k++) store(kept + k * p.padded + place, held[k]);
                for (int j = 0; j < Cell::SUMS_BACK; j++)
                    if (Cell::stage_of_back(j) == stage)
                        partial[j] = Cell::add_back(j, partial[j], select(before(count), terms[j], splat(Cell::start_back(j))));
            } else {
                for (int g = 0, different = 0; g < G; g++) {
                    store(d.d_x + (at * G + g) * p.H + unit, d_x[g], count);
                    if (Cell::differs(g)) store(d.d_r + (at * DIFFERENT + different++) * p.H + unit, d_rs[g], count);
                    store(d_r + (n * G + g) * p.vectors * L + local, rounded<stored>(d_rs[g]));
                }
                for (int k = 0; k < S; k++) store(carried[k] + place, d_old[k]);
                for (int k = 0; k < P; k++) store(d_own[k] + place, load(d_own[k] + place) + d_params[k]);
            }
        };
        p.each_vector(units, vector);
        for (int j = 0; j < Cell::SUMS_BACK; j++)
            if (Cell::stage_of_back(j) == stage) sums[j] = splat(Cell::reduce_back(j, partial[j]));
    });
}

// `d_gates` holds the gradients of the recurrent projections of the task's rows, 2 × (rows, G·padded): one buffer for
// even steps and one for odd steps.
static void backward_task(const Problem& p, const Backward& d, const BackwardWeights& weights, real* d_gates, int64_t first, int64_t last, const Team& team) {
    const int64_t rows = last - first, head = weights.panels.padded, width = p.N * head;
    const int64_t together = weights.panels.width, every = weights.panels.padded / L;
    const Range vectors{team.share(team.me, every, together), team.share(team.me + 1, every, together)};
    const Range panels{vectors.from / together, vectors.to / together};
    const Range units{std::min(p.vectors, vectors.from), std::min(p.vectors, vectors.to)};
    real* memory = scratch.take(rows * ((S + P) * p.padded + width) + Cell::KEPT_BACK * p.padded);
    const Each<real*, S> carried = carve<S>(memory, rows * p.padded);
    const Each<real*, P> d_own = carve<P>(memory, rows * p.padded);
    real *d_h = memory, *kept = d_h + rows * width;
    std::fill_n(d_h, rows * width, real(0));
    for (int k = 0; k < P; k++) std::fill_n(d_own[k], rows * p.padded, real(0));
    for (int64_t k = 0; k < rows; k++)
        p.each_vector(units, [&](int64_t unit, int64_t place, auto count) {
            for (int s = 0; s < S; s++)
                store(carried[s] + k * p.padded + place, d.d_finals[s] ? load(d.d_finals[s] + p.row(first + k) * p.H + unit, count) : V{});
        });
    for (int64_t s = p.T - 1; s >= 0; s--) {
        const int64_t active = p.running(first, last, s);
        real* d_r = d_gates + s % 2 * rows * G * p.padded;
        for (int64_t k = 0; k < active; k++) {
            const int64_t b = p.row(first + k);
            Each<real*, S> own;
            Each<real*, P> sums;
            for (int j = 0; j < S; j++) own[j] = carried[j] + k * p.padded;
            for (int j = 0; j < P; j++) sums[j] = d_own[j] + k * p.padded;
            backward_row(p, d, units, s, p.time(s, b, d.reverse), b, own, d_h + k * width, head, d_r + k * G * p.padded, sums, kept);
        }
        team.wait(p.T - s);
        for (int64_t n = 0; n < p.N; n++)
            product({d_r + n * G * p.vectors * L, G * p.padded, G, p.K, p.vectors * L}, active, weights.weight_hh(n), weights.panels, panels, nullptr,
                    d_h + n * head, width, s % 2);
        for (int64_t k = active; k < rows && team.me == 0; k++) {
            const int64_t at = s * p.B + p.row(first + k);
            std::memset(d.d_x + at * G * p.H, 0, G * p.H * sizeof(stored));
            if (DIFFERENT) std::memset(d.d_r + at * DIFFERENT * p.H, 0, DIFFERENT * p.H * sizeof(stored));
        }
    }
    for (int64_t k = 0; k < rows; k++)
        p.each_vector(units, [&](int64_t unit, int64_t place, auto count) {
            const int64_t at = p.row(first + k) * p.H + unit, n = unit / p.K;
            for (int s = 0; s < S; s++) {
                V value = load(carried[s] + k * p.padded + place);
                if (s == 0) value += load(d_h + k * width + n * head + place - n * p.vectors * L);
                store(d.d_initial[s] + at, value, count);
            }
            for (int j = 0; j < P; j++) store(d.d_rows[j] + at, load(d_own[j] + k * p.padded + place), count);
        });
}

// ---- gradients of weights and biases

// Reads what enters each step of each row of the batch: x, or the first state before the step
struct Entering {
    const Problem& p;
    const Backward& d;

    void input(int64_t step, real* to) const {
        const stored* from = p.input(step / p.B, step % p.B);
        each_column(p.I, [&](int64_t c, auto lanes) { store(to + c, load(from + c, lanes)); });
    }
    // Reads `units` units, from `first` on: those of one head, or all
    void state(int64_t step, real* to, int64_t first, int64_t units) const {
        const int64_t t = step / p.B, b = step % p.B, length = p.length(b), before = d.reverse ? t + 1 : t - 1;
        if (t >= length) {
            std::fill_n(to, units, real(0));
            return;
        }
        const stored* from = before >= 0 && before < length ? d.states.row(0, before, b) : d.initial[0] + b * p.H;
        each_column(units, [&](int64_t c, auto lanes) { store(to + c, load(from + first + c, lanes)); });
    }
};

// Stores one row of a gradient
static void put(stored* to, const real* from, int64_t columns) {
    each_column(columns, [&](int64_t c, auto lanes) { store(to + c, load(from + c), lanes); });
}
static void put(stored* to, real value) {
    if (to) store_one(to, value);
}

// Appends tasks for gates `first` to `last` - 1: for all of these the gradients of x and r are the same, or for all
// they differ
static void weight_gradients(Tasks& tasks, const Problem& p, const Backward& d, int first, int last) {
    const Entering entering{p, d};
    const int64_t depth = p.T * p.B, inputs = (p.I + L - 1) / L, units = (p.H + L - 1) / L;
    const int64_t row = first * p.H, rows = (last - first) * p.H;
    const bool shared = !Cell::differs(first), together = shared && p.N == 1;  // one product with x and state
    multiply_transposed(
        tasks, d.d_x + row, G * p.H, depth, rows, inputs + together * units, p.threads,
        [=, &p](int64_t step, real* to) {
            entering.input(step, to);
            if (together) entering.state(step, to + inputs * L, 0, p.H);
        },
        [=, &p, &d](int64_t r, const real* sums, real total) {
            put(d.d_weight_ih + (row + r) * p.I, sums, p.I);
            put(d.d_bias_ih ? d.d_bias_ih + row + r : nullptr, total);
            if (shared) put(d.d_bias_hh ? d.d_bias_hh + row + r : nullptr, total);
            if (together) put(d.d_weight_hh + (row + r) * p.K, sums + inputs * L, p.K);
        });
    if (together) return;
    int before = 0;  // index of the first gate in d_r
    for (int g = 0; g < first; g++) before += Cell::differs(g);
    const stored* d_r = shared ? d.d_x + row : d.d_r + before * p.H;
    const int64_t stride = (shared ? G : DIFFERENT) * p.H, at_once = p.N == 1 ? rows : p.K;  // all, or a gate of a head
    for (int64_t part = 0; part < rows; part += at_once) {
        const int64_t unit = part % p.H;
        multiply_transposed(
            tasks, d_r + part, stride, depth, at_once, (p.K + L - 1) / L, p.threads,
            [=, &p](int64_t step, real* to) { entering.state(step, to, unit, p.K); },
            [=, &p, &d](int64_t r, const real* sums, real total) {
                put(d.d_weight_hh + (row + part + r) * p.K, sums, p.K);
                if (!shared) put(d.d_bias_hh ? d.d_bias_hh + row + part + r : nullptr, total);
            });
    }
}

static void run_backward(Arguments given) {
    const Problem p(given);
    stored* d_input = given.address<stored>();  // (T, B, I), or null
    Each<std::unique_ptr<Backward>, 2> directions;
    for (int64_t d = 0; d < p.D; d++) directions[d] = std::make_unique<Backward>(given);

    const BackwardWeights first(p, nullptr);
    const Panels ih{(p.I + L - 1) / L};
    const int64_t hh_size = p.N * first.each, ih_size = ih.size(G * p.H), gates_size = 2 * p.B * G * p.padded, each = hh_size + ih_size + gates_size;
    real* memory = packing.take(p.D * each);
    auto weights = [&](int64_t d) { return BackwardWeights(p, memory + d * each); };
    auto weight_ih = [&](int64_t d) { return memory + d * each + hh_size; };
    auto d_gates = [&](int64_t d) { return weight_ih(d) + ih_size; };
    const int64_t hh_panels = p.N * first.panels.count, panels = hh_panels + (d_input ? ih.count : 0);
    each_task(p.D * panels, p.threads, [&](int64_t task) {
        const int64_t d = task / panels, k = task % panels;
        if (k < hh_panels) return weights(d).pack(p, *directions[d], k / first.panels.count, k % first.panels.count);
        pack_rows(weight_ih(d), G * p.H, ih, k - hh_panels, [&](int64_t row, int64_t c) {
            return load(directions[d]->weight_ih + row * p.I + c * L, int(std::min<int64_t>(L, p.I - c * L)));
        });
    });
    p.each_block(Cell::STAGES_BACK, p.threads, [&](int64_t d, int64_t from, int64_t to, const Team& team) {
        backward_task(p, *directions[d], weights(d), d_gates(d) + from * 2 * G * p.padded, from, to, team);
    });

    Tasks tasks;
    for (int64_t d = 0; d < p.D; d++)
        for (int g = 0; g < G;) {
            const int start = g;
            while (g < G && Cell::differs(g) == Cell::differs(start)) g++;
            weight_gradients(tasks, p, *directions[d], start, g);
        }
    for (int64_t row = 0; d_input && row < p.T * p.B; row += BLOCK)
        tasks.push_back([&, row] {
            const Range rows{row, std::min(row + BLOCK, p.T * p.B)};
            for (int64_t d = 0; d < p.D; d++) multiply_rows(directions[d]->d_x, rows, G * p.H, weight_ih(d), ih, p.I, d_input, d > 0);
        });
    for (int64_t d = 0; d < p.D; d++)
        for (int j = 0; j < P; j++) tasks.push_back([&, d, j] { sum_rows(directions[d]->d_rows[j], p.B, p.H, directions[d]->d_params[j]); });
    run(tasks, p.threads);
}

extern "C" int backward(const int64_t* arguments) { return guarded([&] { run_backward({arguments}); }); }
