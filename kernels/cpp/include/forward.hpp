// The forward pass of one direction. The input projections are computed a few time steps ahead, as many as fill the
// tiles of a product, and never leave the cache.
#pragma once
#include "problem.hpp"

struct Forward {
    bool reverse, keep;                   // keep: what backward needs
    const stored *weight_ih, *weight_hh;  // (G·H, I), (G·H, K)
    const stored *bias_ih, *bias_hh;      // (G·H,), or null
    Each<const stored*, S> initial;       // (B, H) each
    Side side;
    Sequences<S, stored> states;          // null if not kept
    stored* saved;                        // (T, B, SAVED·H), if kept
    real* columns;                        // (T, B, COLUMNS)
    Each<stored*, S> finals;              // (B, H) each

    explicit Forward(Arguments& given)
        : reverse(given.number()), keep(given.number()), weight_ih(given.address<stored>()), weight_hh(given.address<stored>()), bias_ih(given.address<stored>()),
          bias_hh(given.address<stored>()), initial(given.addresses<S, const stored>()), side(given), states(given),
          saved(given.address<stored>()), columns(given.address<real>()), finals(given.addresses<S, stored>()) {}
};

// Both weights of a direction, packed per head in panels of units with all their gates, and the biases in the same
// order
struct ForwardWeights {
    const Panels panels;
    const int64_t ih, hh, each;  // sizes for one head
    real* at;

    ForwardWeights(const Problem& p, real* memory) : panels{p.vectors * G}, ih(panels.size(p.I)), hh(panels.size(p.K)), each(ih + hh + 2 * panels.size(1)), at(memory) {}

    real* weight_ih(int64_t n) const { return at + n * each; }
    real* weight_hh(int64_t n) const { return weight_ih(n) + ih; }
    real* bias_ih(int64_t n) const { return weight_hh(n) + hh; }
    real* bias_hh(int64_t n) const { return bias_ih(n) + panels.size(1); }

    static int64_t unit(int64_t c) { return c / G * L; }  // first unit of vector c; `row`: its row of the weights
    static int64_t row(const Problem& p, int64_t n, int64_t c) { return c % G * p.H + n * p.K + unit(c); }
    static int lanes(const Problem& p, int64_t c) { return int(std::min<int64_t>(L, p.K - unit(c))); }

    void pack(const Problem& p, const Forward& d, int64_t n, int64_t panel) const {
        auto rows = [&](const stored* weight, int64_t depth) {
            return [&, weight, depth](int64_t c, int lane) {
                return c < panels.columns && lane < lanes(p, c) ? weight + (row(p, n, c) + lane) * depth : nullptr;
            };
        };
        pack_columns(weight_ih(n), p.I, panels, panel, rows(d.weight_ih, p.I));
        pack_columns(weight_hh(n), p.K, panels, panel, rows(d.weight_hh, p.K));
        auto bias = [&](const stored* from) {
            return [&, from](int64_t, int64_t c) { return from ? load(from + row(p, n, c), lanes(p, c)) : V{}; };
        };
        pack_rows(bias_ih(n), 1, panels, panel, bias(d.bias_ih));
        pack_rows(bias_hh(n), 1, panels, panel, bias(d.bias_hh));
    }
};

// Computes a vector of gates for one row from weights that are not packed. For few rows and a single step, packing
// would take most of the time.
static V project_in_place(const Problem& p, int64_t n, int64_t c, const stored* weight, const stored* bias, const stored* a, int64_t depth) {
    const int lanes = ForwardWeights::lanes(p, c);
    const int64_t row = ForwardWeights::row(p, n, c);
    V block[L] = {};
    for (int lane = 0; lane < lanes; lane++)
        each_column(depth, [&](int64_t k, auto count) { block[lane] = multiply_add(load(weight + (row + lane) * depth + k, count), load(a + k, count), block[lane]); });
    transpose(block);
    V sum = bias ? load(bias + row, lanes) : V{};
    for (int lane = 0; lane < L; lane++) sum += block[lane];
    return sum;
}

template <bool KEEP>
static void forward_row(const Problem& p, const Forward& d, Range units, int64_t t, int64_t b, const Each<real*, S>& state, real* entering, const real* projected,
                        const real* r, int64_t head, real* kept) {
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
                x[g] = rounded<stored>(load(projected + n * head + (c * G + g) * L));
                rs[g] = rounded<stored>(load(r + n * head + (c * G + g) * L));
            }
            for (int k = 0; k < S; k++) old[k] = load(state[k] + place);
            d.side.read(t, b, unit, count, own, drawn);
            for (int k = 0; k < Cell::KEPT; k++) held[k] = load(kept + k * p.padded + place);
            Cell::template forward<stage>(x, rs, old, own, drawn, held, sums, hidden, terms, now, saved, columns);
            if constexpr (!last) {
                for (int k = 0; k < Cell::KEPT; k++) store(kept + k * p.padded + place, held[k]);
                for (int j = 0; j < Cell::SUMS; j++)
                    if (Cell::stage_of(j) == stage) partial[j] = Cell::add(j, partial[j], select(before(count), terms[j], splat(Cell::start(j))));
            } else {
                for (int k = 0; k < S; k++) {
                    store(state[k] + place, now[k]);
                    if (d.states.at[k]) store(d.states.row(k, t, b) + unit, now[k], count);
                }
                store(entering + place, rounded<stored>(now[0]));
                if constexpr (KEEP) {
                    for (int k = 0; k < Cell::SAVED; k++) store(d.saved + (at * Cell::SAVED + k) * p.H + unit, saved[k], count);
                    for (int k = 0; k < Cell::COLUMNS; k++) d.columns[at * Cell::COLUMNS + k] = columns[k][0];
                }
            }
        };
        p.each_vector(units, vector);
        for (int j = 0; j < Cell::SUMS; j++)
            if (Cell::stage_of(j) == stage) sums[j] = splat(Cell::reduce(j, partial[j]));
    });
}

// `entering` holds the task's first states as products read them, 2 × (rows, padded): those that enter a step, and
// those that leave it. `given`, if not null, holds the projections of the only step: (B, N·head) of the input, then as
// many of the state.
static void forward_task(const Problem& p, const Forward& d, const ForwardWeights& weights, real* entering, const real* given, int64_t first, int64_t last,
                         const Team& team) {
    const int64_t rows = last - first, head = weights.panels.padded, width = p.N * head, ahead = std::max<int64_t>(1, BLOCK / rows);
    const int64_t together = std::lcm(weights.panels.width, G);  // columns that are both whole panels and whole units
    const Range columns{team.share(team.me, weights.panels.padded / L, together), team.share(team.me + 1, weights.panels.padded / L, together)};
    const Range panels{columns.from / weights.panels.width, columns.to / weights.panels.width};
    const Range units{std::min(p.vectors, columns.from / G), std::min(p.vectors, columns.to / G)};
    real* memory = scratch.take(rows * (S * p.padded + width) + Cell::KEPT * p.padded + ahead * rows * (width + p.I));
    const Each<real*, S> states = carve<S>(memory, rows * p.padded);
    real *r = memory, *kept = r + rows * width;
    real *projected = kept + Cell::KEPT * p.padded, *inputs = projected + ahead * rows * width;
    for (int64_t k = 0; k < rows; k++)
        p.each_vector(units, [&](int64_t unit, int64_t place, auto count) {
            for (int s = 0; s < S; s++) store(states[s] + k * p.padded + place, load(d.initial[s] + p.row(first + k) * p.H + unit, count));
            store(entering + k * p.padded + place, load(d.initial[0] + p.row(first + k) * p.H + unit, count));
        });
    team.wait(1);
    const real* next = nullptr;  // projections of the rows that run at the next step
    for (int64_t s = 0; s < p.T; s++) {
        const real* here = entering + s % 2 * rows * p.padded;
        real* leaving = entering + (s + 1) % 2 * rows * p.padded;
        const int64_t active = p.running(first, last, s);
        if (s % ahead == 0 && !given) {
            int64_t count = 0;
            for (int64_t later = s; later < std::min(s + ahead, p.T); later++) {
                const int64_t running = p.running(first, last, later);
                for (int64_t k = 0; k < running; k++, count++) {
                    const int64_t b = p.row(first + k);
                    const stored* x = p.input(p.time(later, b, d.reverse), b);
                    each_column(p.I, [&](int64_t c, auto lanes) { store(inputs + count * p.I + c, load(x + c, lanes), lanes); });
                }
            }
            for (int64_t n = 0; n < p.N; n++)
                product({inputs, p.I, 1, p.I, 0}, count, weights.weight_ih(n), weights.panels, panels, weights.bias_ih(n), projected + n * head, width);
            next = projected;
        }
        for (int64_t n = 0; n < p.N && !given; n++)
            product({here + n * p.vectors * L, p.padded, 1, p.K, 0}, active, weights.weight_hh(n), weights.panels, panels, weights.bias_hh(n), r + n * head,
                    width, s % 2);
        for (int64_t k = 0; k < active; k++) {
            const int64_t b = p.row(first + k), t = p.time(s, b, d.reverse);
            Each<real*, S> own;
            for (int j = 0; j < S; j++) own[j] = states[j] + k * p.padded;
            (d.keep ? forward_row<true> : forward_row<false>)(
                p, d, units, t, b, own, leaving + k * p.padded, given ? given + b * width : next, given ? given + (p.B + b) * width : r + k * width, head, kept);
            if (!given) next += width;
        }
        team.wait(s + 2);
        for (int64_t k = active; k < rows && team.me == 0; k++) {
            const int64_t b = p.row(first + k), at = s * p.B + b;
            for (int j = 0; j < S; j++)
                if (d.states.at[j]) std::memset(d.states.row(j, s, b), 0, p.H * sizeof(stored));
            if (d.keep && Cell::SAVED) std::memset(d.saved + at * Cell::SAVED * p.H, 0, Cell::SAVED * p.H * sizeof(stored));
            if (d.keep && Cell::COLUMNS) std::memset(d.columns + at * Cell::COLUMNS, 0, Cell::COLUMNS * sizeof(real));
        }
    }
    for (int64_t k = 0; k < rows; k++)
        p.each_vector(units, [&](int64_t unit, int64_t place, auto count) {
            for (int s = 0; s < S; s++) store(d.finals[s] + p.row(first + k) * p.H + unit, load(states[s] + k * p.padded + place), count);
        });
}

constexpr int64_t FEW = 16;       // most rows of a single step without packed weights
constexpr int64_t MUCH = 1 << 16;  // multiplications that justify more than one thread

static void forward_step(const Problem& p, const Each<std::unique_ptr<Forward>, 2>& directions) {
    const ForwardWeights weights(p, nullptr);
    const int64_t columns = weights.panels.columns, width = p.N * weights.panels.padded;
    real *entering = packing.take(2 * p.B * (p.padded + p.D * width)), *given = entering + 2 * p.B * p.padded;
    each_task(p.D * p.N * columns, G * p.H * (p.I + p.K) > MUCH ? p.threads : 1, [&](int64_t k) {
        const int64_t direction = k / columns / p.N, n = k / columns % p.N, c = k % columns;
        const Forward& d = *directions[direction];
        for (int64_t b = 0; b < p.B; b++) {
            real* to = given + (2 * direction * p.B + b) * width + n * weights.panels.padded + c * L;
            store(to, project_in_place(p, n, c, d.weight_ih, d.bias_ih, p.input(0, b), p.I));
            store(to + p.B * width, project_in_place(p, n, c, d.weight_hh, d.bias_hh, d.initial[0] + b * p.H + n * p.K, p.K));
        }
    });
    p.each_block(Cell::STAGES, 1, [&](int64_t d, int64_t from, int64_t to, const Team& team) {
        forward_task(p, *directions[d], weights, entering, given + 2 * d * p.B * width, from, to, team);
    });
}

static void run_forward(Arguments given) {
    const Problem p(given);
    Each<std::unique_ptr<Forward>, 2> directions;
    for (int64_t d = 0; d < p.D; d++) directions[d] = std::make_unique<Forward>(given);
    if (p.T == 1 && p.B <= FEW) return forward_step(p, directions);
    const ForwardWeights first(p, nullptr);
    real *memory = packing.take(p.D * (p.N * first.each + 2 * p.B * p.padded)), *entering = memory + p.D * p.N * first.each;
    auto weights = [&](int64_t d) { return ForwardWeights(p, memory + d * p.N * first.each); };
    const int64_t panels = first.panels.count;
    each_task(p.D * p.N * panels, p.threads, [&](int64_t k) {
        const int64_t d = k / panels / p.N;
        weights(d).pack(p, *directions[d], k / panels % p.N, k % panels);
    });
    p.each_block(Cell::STAGES, p.threads, [&](int64_t d, int64_t from, int64_t to, const Team& team) {
        forward_task(p, *directions[d], weights(d), entering + (d * p.B + from) * 2 * p.padded, nullptr, from, to, team);
    });
}

extern "C" int forward(const int64_t* arguments) { return guarded([&] { run_forward({arguments}); }); }
