// Products of a few rows with a packed matrix: tiles of sums stay in registers while the matrix streams through.
#pragma once
#include <algorithm>
#include <array>
#include <utility>
#include "vector.hpp"

constexpr int WIDEST = MOST_SUMS >= 24 ? 4 : 2;  // of panels, in vectors; few registers favor tall tiles
constexpr int most_rows(int width) { return std::min(8, MOST_SUMS / width); }

// Returns the width, in vectors, of panels for a matrix of `columns` vectors, so that little or no padding is wasted
static int panel_width(int64_t columns) {
    int best = WIDEST;
    for (int width = WIDEST - 1; width > 0; width--) {
        auto padded = [&](int w) { return (columns + w - 1) / w * w; };
        if (padded(width) * (width > 1 ? 1.0 : 1.2) < padded(best) * 0.95) best = width;
    }
    return best;
}

struct Range {
    int64_t from, to;
};

struct Panels {
    int64_t columns;  // of the matrix, in vectors
    int width = panel_width(columns);
    int64_t count = (columns + width - 1) / width;
    int64_t padded = count * width * L;

    Range all() const { return {0, count}; }

    // Number of elements for a matrix of `depth` rows
    int64_t size(int64_t depth) const { return padded * depth; }
};

// The rows of `a`: each has `segments` runs of `depth` numbers, whose starts are `skip` apart
struct Rows {
    const real* at;
    int64_t stride;
    int64_t segments;
    int64_t depth, skip;
};

// Most products in one sum. Longer sums are split, as libraries do: otherwise rounding errors would be larger than
// theirs.
constexpr int64_t LONG = 512;

template <int R, int W>
static void multiply(const Rows& a, const real* panel, const real* start, real* out, int64_t stride) {
    for (int64_t s = 0, done = 0; s < a.segments;) {
        const bool first = s == 0 && done == 0;
        V sums[R][W] = {};
        for (int64_t left = LONG; left > 0 && s < a.segments;) {
            const int64_t count = std::min(left, a.depth - done);
            const real* at = a.at + s * a.skip + done;
            for (int64_t k = 0; k < count; k++, panel += W * L) {
                V column[W];
                for (int v = 0; v < W; v++) column[v] = load(panel + v * L);
                for (int r = 0; r < R; r++) {
                    const V value = splat(at[r * a.stride + k]);
                    for (int v = 0; v < W; v++) sums[r][v] = multiply_add(value, column[v], sums[r][v]);
                }
            }
            left -= count;
            done += count;
            if (done == a.depth) done = 0, s++;
        }
        for (int r = 0; r < R; r++)
            for (int v = 0; v < W; v++) {
                real* to = out + r * stride + v * L;
                store(to, !first ? sums[r][v] + load(to) : start ? sums[r][v] + load(start + v * L) : sums[r][v]);
            }
    }
}

using Multiply = void (*)(const Rows&, const real*, const real*, real*, int64_t);

template <int W, int... R> constexpr std::array<Multiply, 9> by_rows(std::integer_sequence<int, R...>) {
    return {nullptr, multiply<R + 1, W>...};
}
template <int W> constexpr std::array<Multiply, 9> by_rows() { return by_rows<W>(std::make_integer_sequence<int, most_rows(W)>()); }
static const std::array<Multiply, 9> table[] = {{}, by_rows<1>(), by_rows<2>(), by_rows<3>(), by_rows<4>()};

// out[rows][padded] = start + a · matrix, for a range of panels of one packed matrix
// [panels][segments·depth][width][L]. `fro` goes through the panels in reverse. A caller that multiplies by the same
// matrix repeatedly alternates the direction, because the panels that it used last are still in the cache.
static void product(Rows a, int64_t rows, const real* matrix, const Panels& panels, Range which, const real* start, real* out, int64_t stride, bool fro = false) {
    if (!rows) return;
    const int width = panels.width;
    const int64_t most = most_rows(width), tiles = (rows + most - 1) / most, size = width * L * a.segments * a.depth;
    const real* first = a.at;
    for (int64_t k = which.from; k < which.to; k++) {
        const int64_t panel = fro ? which.from + which.to - 1 - k : k, c = panel * width * L;
        for (int64_t tile = 0, row = 0; tile < tiles; tile++) {
            const int64_t count = (rows - row + (tiles - tile) - 1) / (tiles - tile);
            a.at = first + row * a.stride;
            table[width][count](a, matrix + panel * size, start ? start + c : nullptr, out + row * stride + c, stride);
            row += count;
        }
    }
}

// ---- packing: matrix[panels][depth][width][L]; columns beyond the last are zero

// Packs rows that are contiguous already: vector(k, c) is the c-th vector of row k
template <class F> static void pack_rows(real* matrix, int64_t depth, const Panels& panels, int64_t panel, F vector) {
    real* at = matrix + panel * panels.size(depth) / panels.count;
    for (int64_t k = 0; k < depth; k++)
        for (int64_t c = panel * panels.width; c < (panel + 1) * panels.width; c++, at += L) store(at, c < panels.columns ? vector(k, c) : V{});
}

template <int STEP, int... K> INLINE V lower(V a, V b, std::integer_sequence<int, K...>) { return V{(K & STEP ? b[(K - STEP) & (L - 1)] : a[K])...}; }
template <int STEP, int... K> INLINE V upper(V a, V b, std::integer_sequence<int, K...>) { return V{(K & STEP ? b[K] : a[(K + STEP) & (L - 1)])...}; }

// Transposes in place, by exchanging blocks of decreasing size
template <int STEP = L / 2> INLINE void transpose(V (&rows)[L]) {
    constexpr auto lanes = std::make_integer_sequence<int, L>{};
    for (int k = 0; k < L; k++)
        if (!(k & STEP)) {
            const V a = rows[k], b = rows[k + STEP];
            rows[k] = lower<STEP>(a, b, lanes), rows[k + STEP] = upper<STEP>(a, b, lanes);
        }
    if constexpr (STEP > 1) transpose<STEP / 2>(rows);
}

// Packs columns: row(c, lane) points to the numbers for that lane of the c-th vectors, or is null for zeros
template <class F> static void pack_columns(real* matrix, int64_t depth, const Panels& panels, int64_t panel, F row) {
    real* at = matrix + panel * panels.size(depth) / panels.count;
    const int64_t stride = panels.width * L;
    for (int v = 0; v < panels.width; v++)
        for (int64_t k = 0; k < depth; k += L) {
            const int count = int(std::min<int64_t>(L, depth - k));
            V block[L];
            for (int lane = 0; lane < L; lane++) {
                const auto from = row(panel * panels.width + v, lane);
                block[lane] = !from ? V{} : count == L ? load(from + k) : load(from + k, count);
            }
            transpose(block);
            for (int j = 0; j < count; j++) store(at + (k + j) * stride + v * L, block[j]);
        }
}
