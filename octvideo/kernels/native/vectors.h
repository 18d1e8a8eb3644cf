/* Vectors of floats, a full one and one of half its length, and the multiply-adds of a convolution with them. */

#ifndef VECTORS_H
#define VECTORS_H

#include "element.h"

#if HAS_AVX512 && defined(__AVX512DQ__)
#define LANES 16
#define HALF(name) _mm256_##name
#define FULL(name) _mm512_##name
#define FULL_INTEGERS(name) _mm512_##name
#define SET_PAIRS _mm512_set1_epi64
typedef __m512 Full;
typedef __m256 Half;
typedef __m512i Integers;

/* The sums of pairs of neighbours. */
static inline Half add_pairs(Full x) {
    const __m512i evens_first = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    const __m512 sorted = _mm512_permutexvar_ps(evens_first, x);
    return _mm256_add_ps(_mm512_castps512_ps256(sorted), _mm512_extractf32x8_ps(sorted, 1));
}
#elif defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__) && !defined(BFLOAT16)
#include <immintrin.h>
#define LANES 8
#define HALF(name) _mm_##name
#define FULL(name) _mm256_##name
#define FULL_INTEGERS(name) _mm256_##name
#define SET_PAIRS _mm256_set1_epi64x
typedef __m256 Full;
typedef __m128 Half;
typedef __m256i Integers;

/* The sums of pairs of neighbours. */
static inline Half add_pairs(Full x) {
    const __m128 first = _mm256_castps256_ps128(x), second = _mm256_extractf128_ps(x, 1);
    return _mm_add_ps(_mm_shuffle_ps(first, second, 0x88), _mm_shuffle_ps(first, second, 0xdd));
}
#else
#define LANES 0 /* no kernel for this processor and type */
#endif

#if LANES
typedef Integers __attribute__((aligned(1), may_alias)) Unaligned;
#endif

#if LANES == 16 && defined(__AMX_BF16__) && !defined(NO_MATRICES)
#define MATRICES 1
#else
#define MATRICES 0
#endif

#if LANES && defined(BFLOAT16)

#define DEPTH 2 /* channels that one instruction takes */

static inline Full full_dot(Full sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

static inline Full full_load(const Element *x) {
    return (Full)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)), 16);
}

static inline Half half_load(const Element *x) {
    return (Half)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)x)), 16);
}

static inline void full_store(Element *to, Full x) { _mm256_storeu_si256((__m256i *)to, (__m256i)_mm512_cvtneps_pbh(x)); }
static inline void half_store(Element *to, Half x) { _mm_storeu_si128((__m128i *)to, (__m128i)_mm256_cvtneps_pbh(x)); }

#elif LANES

#define DEPTH 1

static inline Full full_dot(Full sum, Integers a, Integers b) { return FULL(fmadd_ps)((Full)a, (Full)b, sum); }
static inline Full full_load(const Element *x) { return FULL(loadu_ps)(x); }
static inline Half half_load(const Element *x) { return HALF(loadu_ps)(x); }
static inline void full_store(Element *to, Full x) { FULL(storeu_ps)(to, x); }
static inline void half_store(Element *to, Half x) { HALF(storeu_ps)(to, x); }

#endif

#if LANES

/* What an instruction takes of a place, as many channels as DEPTH, and two of that side by side. */
static inline int32_t factor(const Element *x) {
    int32_t one;
    memcpy(&one, x, sizeof one);
    return one;
}

static inline int64_t factors(const Element *x) {
    int64_t both;
    memcpy(&both, x, sizeof both);
    return both;
}

/* The same where only `count` channels are left; those of another place must not be read. */
static inline int64_t last_factors(const Element *x, Int count) {
#ifdef BFLOAT16
    uint64_t both = count & 2 ? (uint32_t)factor(x) : 0;
    if (count & 1) both |= (uint64_t)x[count - 1] << 16 * (count - 1);
    return both;
#else
    (void)count;
    return (uint32_t)factor(x);
#endif
}

/* Add products with the weights of a vector of output channels. */
static inline Full add_product(Full sum, int32_t factor, const Element *weights) {
    return full_dot(sum, FULL_INTEGERS(set1_epi32)(factor), *(const Unaligned *)weights);
}

/* With the weights of half a vector of output channels: two sums for each, side by side. */
static inline Full add_products(Full sums, int64_t factors, const Element *weights) {
    return full_dot(sums, SET_PAIRS(factors), *(const Unaligned *)weights);
}

#endif
#endif
