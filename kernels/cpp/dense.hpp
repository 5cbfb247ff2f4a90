// The large products before and after the recurrence. Every sum is taken by one thread in one order: results do not depend on the
// number of threads, as those of a library may.
#pragma once
#include "threads.hpp"
#include "product.hpp"

constexpr int64_t BLOCK = 48;      // rows at once: several tiles of sums for each panel that is read
constexpr int64_t DEPTH = 256;     // and of an outer product

// f(first column, how many) for each vector of columns
template <class F> INLINE void each_column(int64_t columns, F f) {
    int64_t c = 0;
    for (; c + L <= columns; c += L) f(c, Full{});
    if (c < columns) f(c, int(columns - c));
}

// out[rows][columns] (+)= a[rows][depth] · matrix, where element(k, column) is the matrix's
template <class F>
static void multiply_rows(const stored* a, int64_t rows, int64_t depth, int64_t columns, stored* out, bool add, int64_t threads, F element) {
    const int64_t vectors = (columns + L - 1) / L, width = panel_width(vectors), panels = (vectors + width - 1) / width;
    real* packed = packing.take(packed_size(depth, vectors));
    each_task(panels, threads, [&](int64_t panel) {
        pack_panel(packed, depth, vectors, panel, [&](int64_t k, int64_t c, int lane) { return c * L + lane < columns ? element(k, c * L + lane) : real(0); });
    });
    const int64_t padded = panels * width * L;
    each_task((rows + BLOCK - 1) / BLOCK, threads, [&](int64_t task) {
        const int64_t first = task * BLOCK, count = std::min(BLOCK, rows - first);
        real *result = scratch.take(BLOCK * (padded + depth)), *given = result + BLOCK * padded;
        const real* from = given;
        if constexpr (std::is_same_v<stored, real>)
            from = a + first * depth;
        else
            for (int64_t k = 0; k < count * depth; k++) given[k] = load_one(a + first * depth + k);
        product({from, depth, 1, depth, 0}, count, packed, vectors, nullptr, result, padded);
        for (int64_t r = 0; r < count; r++) {
            stored* at = out + (first + r) * columns;
            const real* sums = result + r * padded;
            each_column(columns, [&](int64_t c, auto lanes) { store(at + c, add ? load(sums + c) + load(at + c, lanes) : load(sums + c), lanes); });
        }
    });
}

// Up to STRIP columns of a[depth][·], side by side: where they lie, lines of the cache would get in each other's way. And their sums.
constexpr int STRIP = 8;
typedef real Strip __attribute__((vector_size(STRIP * sizeof(real))));

static void gather(const stored* a, int64_t stride, int64_t depth, int64_t columns, real* out, real* totals) {
    Strip sums = {};
    const int64_t size = (depth - 1) * stride + columns;
    for (int64_t k = 0; k < depth; k++) {
        Strip row = {};
        if (std::is_same_v<stored, real> && k * stride + STRIP <= size)  // beyond the columns are others, but for the last
            std::memcpy(&row, a + k * stride, sizeof row);
        else
            for (int64_t r = 0; r < columns; r++) row[r] = load_one(a + k * stride + r);
        std::memcpy(out + k * STRIP, &row, sizeof row);
        sums += row;
    }
    for (int64_t r = 0; r < columns; r++) totals[r] += sums[r];
}

template <int R, int W>
static void multiply_outer(const real* a, const real* b, int64_t b_stride, int64_t depth, real* out, int64_t stride, bool add) {
    V sums[R][W];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < W; v++) sums[r][v] = add ? load(out + r * stride + v * L) : V{};
    for (int64_t k = 0; k < depth; k++) {
        V row[W];
        for (int v = 0; v < W; v++) row[v] = load(b + k * b_stride + v * L);
        for (int r = 0; r < R; r++) {
            const V value = splat(a[k * STRIP + r]);
            for (int v = 0; v < W; v++) sums[r][v] += value * row[v];
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < W; v++) store(out + r * stride + v * L, sums[r][v]);
}

using Outer = void (*)(const real*, const real*, int64_t, int64_t, real*, int64_t, bool);
template <int W, int... R> constexpr std::array<Outer, 9> outer_by_rows(std::integer_sequence<int, R...>) {
    return {nullptr, multiply_outer<R + 1, W>...};
}
template <int W> constexpr std::array<Outer, 9> outer_by_rows() { return outer_by_rows<W>(std::make_integer_sequence<int, most_rows(W)>()); }
static const std::array<Outer, 9> outer_table[] = {{}, outer_by_rows<1>(), outer_by_rows<2>(), outer_by_rows<3>(), outer_by_rows<4>()};

// out[rows][columns] (+)= a^T b, for a[depth][rows] and b[depth][columns]; totals[rows], if wanted, are the sums over depth of a
static void multiply_transposed(const stored* a, int64_t a_stride, const stored* b, int64_t b_stride, int64_t depth, int64_t rows, int64_t columns,
                                stored* out, bool add, stored* totals, int64_t threads) {
    const int64_t vectors = (columns + L - 1) / L, width = panel_width(vectors), panels = (vectors + width - 1) / width;
    const int64_t padded = panels * width * L, most = most_rows(width);
    const int64_t tiles = (rows + most - 1) / most, parts = std::min(tiles, std::max<int64_t>(threads, (rows + 255) / 256));
    each_task(parts, threads, [&](int64_t part) {
        const int64_t first = tiles * part / parts * most, last = std::min(rows, tiles * (part + 1) / parts * most);
        real* block = scratch.take((DEPTH + last - first) * padded + DEPTH * STRIP + last - first);
        real *result = block + DEPTH * padded, *strip = result + (last - first) * padded, *sums = strip + DEPTH * STRIP;
        std::fill_n(sums, last - first, real(0));
        for (int64_t done = 0; done < depth; done += DEPTH) {
            const int64_t count = std::min(DEPTH, depth - done);
            for (int64_t k = 0; k < count; k++) {
                each_column(columns, [&](int64_t c, auto lanes) { store(block + k * padded + c, load(b + (done + k) * b_stride + c, lanes)); });
                std::fill(block + k * padded + vectors * L, block + (k + 1) * padded, real(0));
            }
            for (int64_t row = first; row < last; row += most) {
                const int64_t tile = std::min(most, last - row);
                gather(a + done * a_stride + row, a_stride, count, tile, strip, sums + row - first);
                for (int64_t c = 0; c < padded; c += width * L)
                    outer_table[width][tile](strip, block + c, padded, count, result + (row - first) * padded + c, padded, done > 0);
            }
        }
        for (int64_t row = first; row < last; row++) {
            const real* from = result + (row - first) * padded;
            stored* to = out + row * columns;
            each_column(columns, [&](int64_t c, auto lanes) { store(to + c, add ? load(from + c) + load(to + c, lanes) : load(from + c), lanes); });
            if (totals) store_one(totals + row, sums[row - first]);
        }
    });
}

// out[columns] = sum over rows of a[rows][columns]
template <class T> static void sum_rows(const T* a, int64_t rows, int64_t columns, stored* out, int64_t threads) {
    const int64_t vectors = (columns + L - 1) / L, parts = std::min<int64_t>(vectors, threads);
    each_task(parts, threads, [&](int64_t part) {
        const int64_t first = vectors * part / parts, last = vectors * (part + 1) / parts;
        real* sums = scratch.take((last - first) * L);
        std::fill_n(sums, (last - first) * L, real(0));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t v = first; v < last; v++) {
                real* at = sums + (v - first) * L;
                store(at, load(at) + (v * L + L <= columns ? load(a + r * columns + v * L) : load(a + r * columns + v * L, int(columns - v * L))));
            }
        for (int64_t v = first; v < last; v++)
            store(out + v * L, load(sums + (v - first) * L), int(std::min<int64_t>(L, columns - v * L)));
    });
}
