// Vectors of float or double, as wide as the machine supports, and the functions that steps call. Uses the vector
// extensions of GCC and Clang, and works on any CPU.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <type_traits>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int BYTES = 64;
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
#if defined(__aarch64__)
#include <arm_neon.h>
#endif
// The largest tile of sums (rows times vectors) that fits into registers along with the operands
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int MOST_SUMS = 24;
#else
constexpr int MOST_SUMS = 12;
#endif

#define INLINE_MEMBER inline __attribute__((always_inline))
#define INLINE static INLINE_MEMBER

typedef real V __attribute__((vector_size(BYTES)));
constexpr int L = BYTES / sizeof(real);  // lanes
typedef std::conditional_t<sizeof(real) == 4, int32_t, int64_t> whole;
typedef whole M __attribute__((vector_size(BYTES)));  // truth values: all bits set, or none

template <class T, int N> using Each = std::array<T, N ? N : 1>;

INLINE V splat(real value) { return value - V{}; }
INLINE V select(M condition, V yes, V no) { return condition ? yes : no; }
INLINE M bits(V x) { return (M)x; }
INLINE V number(M x) { return (V)x; }

// x y + sum. Compilers decide loop by loop whether to fuse it, but sums must not depend on the loop that computes them.
INLINE V multiply_add(V x, V y, V sum) {
    constexpr bool single = sizeof(real) == 4;
#if defined(__AVX512F__)
    if constexpr (single) return (V)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)sum);
    else return (V)_mm512_fmadd_pd((__m512d)x, (__m512d)y, (__m512d)sum);
#elif defined(__AVX2__) && defined(__FMA__)
    if constexpr (single) return (V)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)sum);
    else return (V)_mm256_fmadd_pd((__m256d)x, (__m256d)y, (__m256d)sum);
#elif defined(__aarch64__)
    if constexpr (single) return (V)vfmaq_f32((float32x4_t)sum, (float32x4_t)x, (float32x4_t)y);
    else return (V)vfmaq_f64((float64x2_t)sum, (float64x2_t)x, (float64x2_t)y);
#else
    return x * y + sum;
#endif
}

// ---- memory

INLINE real load_one(const real* at) { return *at; }
INLINE void store_one(real* at, real value) { *at = value; }

INLINE V load(const real* at) {
    V value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

INLINE void store(real* at, V value) { std::memcpy(at, &value, sizeof value); }

// Returns numbers in the type of arithmetic: in place, or converted into `room`
INLINE const real* widened(const real* at, int64_t, real*) { return at; }

#if STORED_BFLOAT16  // stored in bfloat16, computed in float32
struct bfloat16 {
    uint16_t bits;
};
typedef uint16_t Narrow __attribute__((vector_size(BYTES / 2)));
typedef uint32_t Wide __attribute__((vector_size(BYTES)));

INLINE real load_one(const bfloat16* at) {
    const uint32_t wide = uint32_t(at->bits) << 16;
    real value;
    std::memcpy(&value, &wide, 4);
    return value;
}

INLINE const real* widened(const bfloat16* at, int64_t count, real* room) {
    for (int64_t k = 0; k < count; k++) room[k] = load_one(at + k);
    return room;
}

INLINE void store_one(bfloat16* at, real value) {  // to the nearest, ties to even
    uint32_t wide;
    std::memcpy(&wide, &value, 4);
    at->bits = value != value ? 0x7fc0 : (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
}

INLINE V load(const bfloat16* at) {
    Narrow narrow;
    std::memcpy(&narrow, at, sizeof narrow);
    return (V)(__builtin_convertvector(narrow, Wide) << 16);
}

INLINE void store(bfloat16* at, V value) {
    const Wide wide = (Wide)value;
    const Wide rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    const Narrow narrow = __builtin_convertvector(value != value ? Wide{} + 0x7fc0 : rounded, Narrow);
    std::memcpy(at, &narrow, sizeof narrow);
}
#endif

// The number of lanes in use is a Full (all, known at compile time), or an int for the first lanes of the last vector
struct Full {
    constexpr operator int() const { return L; }
};
template <class T> INLINE V load(const T* at, Full) { return load(at); }
template <class T> INLINE void store(T* at, V value, Full) { store(at, value); }

// Loads or stores the first `count` lanes (1 to L). The other lanes are loaded as zero, and not stored.
template <class T> INLINE V load(const T* at, int count) {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>) return (V)_mm512_maskz_loadu_ps((1u << count) - 1, at);
    if constexpr (std::is_same_v<T, double>) return (V)_mm512_maskz_loadu_pd((1u << count) - 1, at);
#endif
    alignas(BYTES) real lanes[L] = {};
    for (int k = 0; k < count; k++) lanes[k] = load_one(at + k);
    return load(lanes);
}

template <class T> INLINE void store(T* at, V value, int count) {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>) return _mm512_mask_storeu_ps(at, (1u << count) - 1, (__m512)value);
    if constexpr (std::is_same_v<T, double>) return _mm512_mask_storeu_pd(at, (1u << count) - 1, (__m512d)value);
#endif
    for (int k = 0; k < count; k++) store_one(at + k, value[k]);
}

// Rounds a value as storing and loading it would
template <class T> INLINE V rounded(V value) {
    if constexpr (std::is_same_v<T, real>) return value;
    alignas(BYTES) T lanes[L];
    store(lanes, value);
    return load(lanes);
}

// ---- functions, elementwise and named as in torch

template <class F> INLINE V lanewise(V x, F f) {
    V y;
    for (int k = 0; k < L; k++) y[k] = f(x[k]);
    return y;
}

INLINE V abs(V x) { return number(bits(x) & std::numeric_limits<whole>::max()); }
INLINE V maximum(V x, V y) { return select((x > y) | (x != x), x, y); }  // nan if either is nan
INLINE V minimum(V x, V y) { return select((x < y) | (x != x), x, y); }

// 2^n for integer n in the exponent range of normal numbers
INLINE V two_to(V n) {
    constexpr int mantissa = std::numeric_limits<real>::digits - 1;
    constexpr whole bias = std::numeric_limits<real>::max_exponent - 1;
    return number((__builtin_convertvector(n, M) + bias) << mantissa);
}

// Rounds to the nearest integer, for |x| < 2^22: the sum has no mantissa bits left for a fraction
INLINE V nearest(V x) {
    constexpr real shift = sizeof(real) == 4 ? real(0x1.8p23) : real(0x1.8p52);
    return (x + shift) - shift;
}

// Clamps to bounds; nan stays nan
INLINE V clamp(V x, real low, real high) {
    x = select(x < low, splat(low), x);
    return select(x > high, splat(high), x);
}

// e^x = 2^n e^r with integer n and |r| <= log(2)/2. Returns n, and e^r - 1 by its Taylor series, to the last bit of a
// mantissa.
struct Parts {
    V n, minus_one;
};
INLINE Parts exp_parts(V x) {
    constexpr bool single = sizeof(real) == 4;
    constexpr real high = single ? real(0.693359375) : real(0x1.62e42fefa38p-1);  // log(2) with trailing zero bits
    constexpr real low = single ? real(-2.12194440054690583e-4) : real(0x1.ef35793c7673p-45);  // the rest of log(2)
    const V n = nearest(x * real(1.44269504088896340736));
    const V r = (x - n * high) - n * low;
    V p;
    if constexpr (single) {
        p = splat(real(1.0 / 5040));
        for (real c : {real(1.0 / 720), real(1.0 / 120), real(1.0 / 24), real(1.0 / 6), real(0.5)}) p = p * r + c;
    } else {
        p = splat(real(1.0 / 87178291200));
        for (real c : {real(1.0 / 6227020800), real(1.0 / 479001600), real(1.0 / 39916800), real(1.0 / 3628800), real(1.0 / 362880),
                       real(1.0 / 40320), real(1.0 / 5040), real(1.0 / 720), real(1.0 / 120), real(1.0 / 24), real(1.0 / 6), real(0.5)})
            p = p * r + c;
    }
    return {n, p * r * r + r};
}

constexpr real TOP = sizeof(real) == 4 ? real(88.7228394) : real(709.782712893384);        // above it e^x is infinite
constexpr real BOTTOM = sizeof(real) == 4 ? real(-103.972084) : real(-745.1332191019412);  // below it e^x is zero
constexpr real NORMAL = sizeof(real) == 4 ? real(87) : real(708);  // up to it e^x and e^-x are normal numbers

INLINE V exp(V x) {
    const auto [n, minus_one] = exp_parts(clamp(x, BOTTOM, TOP));
    const V half = nearest(n * real(0.5));  // in two steps, because 2^n alone may be out of range
    const V y = (minus_one + real(1)) * two_to(half) * two_to(n - half);
    return select(x > TOP, splat(std::numeric_limits<real>::infinity()), select(x < BOTTOM, V{}, y));
}

INLINE V sigmoid(V x) {
    const auto [n, minus_one] = exp_parts(clamp(-x, -NORMAL, NORMAL + 2));  // at the end 2^n is infinite
    return real(1) / ((minus_one + real(1)) * two_to(n) + real(1));
}

// (e^2|x| - 1) / (e^2|x| + 1)
INLINE V tanh(V x) {
    const V magnitude = abs(x);
    const auto [n, minus_one] = exp_parts(clamp(magnitude * real(2), real(0), real(40)));  // beyond 40 the result is 1
    const V scale = two_to(n), t = minus_one * scale + (scale - real(1));
    return number(bits(t / (t + real(2))) | (bits(x) & ~std::numeric_limits<whole>::max()));
}

// Less common functions call the C library lane by lane
INLINE V exp2(V x) { return lanewise(x, [](real v) { return std::exp2(v); }); }
INLINE V log(V x) { return lanewise(x, [](real v) { return std::log(v); }); }
INLINE V log1p(V x) { return lanewise(x, [](real v) { return std::log1p(v); }); }
INLINE V expm1(V x) { return lanewise(x, [](real v) { return std::expm1(v); }); }
INLINE V erf(V x) { return lanewise(x, [](real v) { return std::erf(v); }); }
INLINE V sin(V x) { return lanewise(x, [](real v) { return std::sin(v); }); }
INLINE V cos(V x) { return lanewise(x, [](real v) { return std::cos(v); }); }
INLINE V floor(V x) { return lanewise(x, [](real v) { return std::floor(v); }); }
INLINE V sqrt(V x) { return lanewise(x, [](real v) { return std::sqrt(v); }); }
INLINE V rsqrt(V x) { return real(1) / sqrt(x); }
INLINE V sign(V x) { return select(x > V{}, splat(1), select(x < V{}, splat(-1), V{})); }
INLINE V power(V x, V y) {
    V z;
    for (int k = 0; k < L; k++) z[k] = std::pow(x[k], y[k]);
    return z;
}

INLINE real total(V x) {  // always in the same order
    real sum = 0;
    for (int k = 0; k < L; k++) sum += x[k];
    return sum;
}
INLINE real largest(V x) {
    real most = x[0];
    for (int k = 1; k < L; k++) most = x[k] > most || x[k] != x[k] ? x[k] : most;
    return most;
}
