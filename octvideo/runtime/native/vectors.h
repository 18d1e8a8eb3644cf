/* Vectors of floats, a full one and one of half its length, and the multiply-adds of a convolution with them. */

#ifndef VECTORS_H
#define VECTORS_H

#include "element.h"

#if defined(__x86_64__) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    (!defined(BFLOAT16) || defined(__AVX512BF16__))
#include <immintrin.h>
#define LANES 16
#define HALF(name) _mm256_##name
#define FULL(name) _mm512_##name
typedef __m512 Full;
typedef __m256 Half;
#elif defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__) && !defined(BFLOAT16)
#include <immintrin.h>
#define LANES 8
#define HALF(name) _mm_##name
#define FULL(name) _mm256_##name
typedef __m256 Full;
typedef __m128 Half;
#else
#define LANES 0 /* no kernel for this processor and type */
#endif

#if LANES && defined(BFLOAT16) && defined(__AMX_BF16__) && defined(__linux__)
#define MATRICES 1
#else
#define MATRICES 0
#endif

#if LANES && defined(BFLOAT16)

#define DEPTH 2 /* channels that one instruction takes */
typedef __m512i FullWeights;
typedef __m256i HalfWeights;
typedef int32_t Factor;

static inline FullWeights full_weights(const Element *w) { return _mm512_loadu_si512(w); }
static inline HalfWeights half_weights(const Element *w) { return _mm256_loadu_si256((const __m256i *)w); }

static inline Factor factor(const Element *x) {
    Factor both;
    memcpy(&both, x, sizeof both);
    return both;
}

static inline Factor last_factor(const Element *x) { return *x; } /* a channel without its neighbour */

static inline Full full_add(Full sum, Factor a, FullWeights b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
}

static inline Half half_add(Half sum, Factor a, HalfWeights b) {
    return _mm256_dpbf16_ps(sum, (__m256bh)_mm256_set1_epi32(a), (__m256bh)b);
}

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
typedef Full FullWeights;
typedef Half HalfWeights;
typedef float Factor;

static inline FullWeights full_weights(const Element *w) { return FULL(loadu_ps)(w); }
static inline HalfWeights half_weights(const Element *w) { return HALF(loadu_ps)(w); }
static inline Factor factor(const Element *x) { return *x; }
static inline Factor last_factor(const Element *x) { return *x; }
static inline Full full_add(Full sum, Factor a, FullWeights b) { return FULL(fmadd_ps)(FULL(set1_ps)(a), b, sum); }
static inline Half half_add(Half sum, Factor a, HalfWeights b) { return HALF(fmadd_ps)(HALF(set1_ps)(a), b, sum); }
static inline Full full_load(const Element *x) { return FULL(loadu_ps)(x); }
static inline Half half_load(const Element *x) { return HALF(loadu_ps)(x); }
static inline void full_store(Element *to, Full x) { FULL(storeu_ps)(to, x); }
static inline void half_store(Element *to, Half x) { HALF(storeu_ps)(to, x); }

#endif
#endif
