// The large products after the recurrence. One thread takes each sum, always in the same order. So results do not
// depend on the number of threads, as those of a library may.
#pragma once
#include "threads.hpp"
#include "product.hpp"

constexpr int64_t BLOCK = 48;       // rows at a time: several tiles of sums for each panel that is read
constexpr int64_t DEPTH = 256;      // time steps and rows of the batch per block of an outer product,
constexpr int64_t WIDE = 3 << 17;   // or as many as fit into this many bytes
constexpr int64_t PART = 256;       // rows of an outer product for one task

// Calls f(first column, number of lanes) for each vector of columns
template <class F> INLINE void each_column(int64_t columns, F f) {
    int64_t c = 0;
    for (; c + L <= columns; c += L) f(c, Full{});
    if (c < columns) f(c, int(columns - c));
}

// out[rows][columns] = (with `add`: +=) some rows of a[rows][depth] · packed matrix
static void multiply_rows(const stored* a, Range rows, int64_t depth, const real* packed, const Panels& panels, int64_t columns, stored* out, bool add) {
    const int64_t count = rows.to - rows.from;
    real *result = scratch.take(count * (panels.padded + depth)), *given = result + count * panels.padded;
    product({widened(a + rows.from * depth, count * depth, given), depth, 1, depth, 0}, count, packed, panels, panels.all(), nullptr, result, panels.padded);
    for (int64_t r = 0; r < count; r++) {
        stored* at = out + (rows.from + r) * columns;
        const real* sums = result + r * panels.padded;
        each_column(columns, [&](int64_t c, auto lanes) { store(at + c, add ? load(sums + c) + load(at + c, lanes) : load(sums + c), lanes); });
    }
}

// Copies up to STRIP columns of a[depth][·] side by side, because in place their cache lines would evict each other.
// Adds the sum of each column to `totals`.
constexpr int STRIP = 8;
typedef real Strip __attribute__((vector_size(STRIP * sizeof(real))));

static void gather(const stored* a, int64_t stride, int64_t depth, int64_t columns, real* out, real* totals) {
    Strip sums = {};
    const int64_t size = (depth - 1) * stride + columns;
    for (int64_t k = 0; k < depth; k++) {
        Strip row = {};
        if (std::is_same_v<stored, real> && k * stride + STRIP <= size)  // may read other columns, not past the end
            std::memcpy(&row, a + k * stride, sizeof row);
        else
            for (int64_t r = 0; r < columns; r++) row[r] = load_one(a + k * stride + r);
        std::memcpy(out + k * STRIP, &row, sizeof row);
        sums += row;
    }
    for (int64_t r = 0; r < columns; r++) totals[r] += sums[r];
}

// Takes a separate sum and adds it to `out` at the end: one long sum over all time steps would have ten times the
// rounding error
template <int R, int W>
static void multiply_outer(const real* a, const real* b, int64_t depth, real* out, int64_t stride, bool add) {
    V sums[R][W] = {};
    for (int64_t k = 0; k < depth; k++) {
        V row[W];
        for (int v = 0; v < W; v++) row[v] = load(b + (k * W + v) * L);
        for (int r = 0; r < R; r++) {
            const V value = splat(a[k * STRIP + r]);
            for (int v = 0; v < W; v++) sums[r][v] = multiply_add(value, row[v], sums[r][v]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < W; v++) store(out + r * stride + v * L, add ? sums[r][v] + load(out + r * stride + v * L) : sums[r][v]);
}

using Outer = void (*)(const real*, const real*, int64_t, real*, int64_t, bool);
template <int W> constexpr std::array<Outer, 2> outer_of_width() { return {multiply_outer<1, W>, multiply_outer<most_rows(W), W>}; }
static const std::array<Outer, 2> outer_table[] = {{}, outer_of_width<1>(), outer_of_width<2>(), outer_of_width<3>(), outer_of_width<4>()};

// Appends tasks that compute a^T b, for a[depth][rows] and a matrix b of `columns` vectors. fill(k, where) writes the
// k-th row of b. finish(row, sums, total) receives each row of the result, and the sum over depth of the matching
// column of `a`.
template <class Fill, class Finish>
static void multiply_transposed(Tasks& tasks, const stored* a, int64_t a_stride, int64_t depth, int64_t rows, int64_t columns, int64_t threads, Fill fill,
                                Finish finish) {
    const Panels panels{columns};
    const int64_t width = panels.width, padded = panels.padded, panel = width * L, most = most_rows(width);
    const int64_t tiles = (rows + most - 1) / most, parts = std::min(tiles, std::max<int64_t>(threads, (rows + PART - 1) / PART));
    const int64_t deep = std::max<int64_t>(32, std::min<int64_t>(DEPTH, WIDE / int64_t(padded * sizeof(real))));
    for (int64_t part = 0; part < parts; part++) tasks.push_back([=] {
        const int64_t first = tiles * part / parts * most, last = std::min(rows, tiles * (part + 1) / parts * most);
        real* block = scratch.take((deep + last - first + 1) * padded + deep * STRIP + last - first);  // [panels][deep][panel]
        real *result = block + deep * padded, *row = result + (last - first) * padded, *strip = row + padded, *totals = strip + deep * STRIP;
        std::fill_n(totals, last - first, real(0));
        std::fill_n(row, padded, real(0));
        for (int64_t done = 0; done < depth; done += deep) {
            const int64_t count = std::min(deep, depth - done);
            for (int64_t k = 0; k < count; k++) {
                fill(done + k, row);
                for (int64_t c = 0; c < panels.count; c++) std::memcpy(block + (c * count + k) * panel, row + c * panel, panel * sizeof(real));
            }
            for (int64_t r = first, tile; r < last; r += tile) {
                tile = r + most <= last ? most : 1;  // the last few rows one by one
                gather(a + done * a_stride + r, a_stride, count, tile, strip, totals + r - first);
                for (int64_t c = 0; c < panels.count; c++)
                    outer_table[width][tile > 1](strip, block + c * count * panel, count, result + (r - first) * padded + c * panel, padded, done > 0);
            }
        }
        for (int64_t r = first; r < last; r++) finish(r, result + (r - first) * padded, totals[r - first]);
    });
}

// out[columns] = sum over rows of a[rows][columns]
static void sum_rows(const real* a, int64_t rows, int64_t columns, stored* out) {
    each_column(columns, [&](int64_t c, auto lanes) {
        V sum = {};
        for (int64_t r = 0; r < rows; r++) sum += load(a + r * columns + c, lanes);
        store(out + c, sum, lanes);
    });
}
