// Products of a few rows with a packed matrix: tiles of sums that stay in registers while the matrix streams by.
#pragma once
#include <algorithm>
#include <array>
#include <utility>
#include "vector.hpp"

constexpr int widths[] = {4, 3, 2, 1};  // of panels, in vectors
constexpr int most_rows(int width) { return std::min(8, MOST_SUMS / width); }

// How a matrix of `columns` vectors is cut into panels: without waste, or with the least
static int panel_width(int64_t columns) {
    int best = 4;
    for (int width : {3, 2, 1}) {
        auto padded = [&](int w) { return (columns + w - 1) / w * w; };
        if (padded(width) * (width > 1 ? 1.0 : 1.2) < padded(best) * 0.95) best = width;
    }
    return best;
}

// The rows of `a`, each `segments` runs of `depth` numbers that begin `skip` apart
struct Rows {
    const real* at;
    int64_t stride;
    int segments;
    int64_t depth, skip;
};

template <int R, int W>
static void multiply(const Rows& a, const real* panel, const real* start, real* out, int64_t stride) {
    V sums[R][W];
    for (int v = 0; v < W; v++) {
        const V first = start ? load(start + v * L) : V{};
        for (int r = 0; r < R; r++) sums[r][v] = first;
    }
    for (int s = 0; s < a.segments; s++) {
        const real* at = a.at + s * a.skip;
        for (int64_t k = 0; k < a.depth; k++, panel += W * L) {
            V column[W];
            for (int v = 0; v < W; v++) column[v] = load(panel + v * L);
            for (int r = 0; r < R; r++) {
                const V value = splat(at[r * a.stride + k]);
                for (int v = 0; v < W; v++) sums[r][v] += value * column[v];
            }
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < W; v++) store(out + r * stride + v * L, sums[r][v]);
}

using Multiply = void (*)(const Rows&, const real*, const real*, real*, int64_t);

template <int W, int... R> constexpr std::array<Multiply, 9> by_rows(std::integer_sequence<int, R...>) {
    return {nullptr, multiply<R + 1, W>...};
}
template <int W> constexpr std::array<Multiply, 9> by_rows() { return by_rows<W>(std::make_integer_sequence<int, most_rows(W)>()); }
static const std::array<Multiply, 9> table[] = {{}, by_rows<1>(), by_rows<2>(), by_rows<3>(), by_rows<4>()};

// out[rows][columns·L] = start + a · matrix, for one packed matrix [panels][segments·depth][width][L]
static void product(Rows a, int64_t rows, const real* matrix, int64_t columns, const real* start, real* out, int64_t stride) {
    if (!rows) return;
    const int width = panel_width(columns);
    const int64_t most = most_rows(width), tiles = (rows + most - 1) / most;
    const real* first = a.at;
    for (int64_t c = 0; c < columns; c += width) {
        for (int64_t tile = 0, row = 0; tile < tiles; tile++) {
            const int64_t count = (rows - row + (tiles - tile) - 1) / (tiles - tile);
            a.at = first + row * a.stride;
            table[width][count](a, matrix, start ? start + c * L : nullptr, out + row * stride + c * L, stride);
            row += count;
        }
        matrix += width * L * a.segments * a.depth;
    }
}

// Room for a packed matrix, and where its entries go
static int64_t packed_size(int64_t depth, int64_t columns) {
    const int width = panel_width(columns);
    return (columns + width - 1) / width * width * L * depth;
}

// element(k, column vector, lane) for all k; columns beyond the last are zero
template <class F> static void pack_panel(real* matrix, int64_t depth, int64_t columns, int64_t panel, F element) {
    const int width = panel_width(columns);
    real* at = matrix + panel * width * L * depth;
    for (int v = 0; v < width; v++)
        for (int lane = 0; lane < L; lane++)
            for (int64_t k = 0; k < depth; k++) {
                const int64_t c = panel * width + v;
                at[(k * width + v) * L + lane] = c < columns ? element(k, c, lane) : real(0);
            }
}
