/* The type of the maps' elements, float or (with BFLOAT16) bfloat16, and how it becomes a float and back. */

#ifndef ELEMENT_H
#define ELEMENT_H

#include <stdint.h>
#include <string.h>

typedef int64_t Int;

/* A bfloat16 as a float. */
static inline float widened(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A float rounded to the nearest bfloat16, half to even; NaN stays NaN. */
static inline uint16_t rounded(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

#ifdef BFLOAT16
typedef uint16_t Element;

static inline float load(Element x) { return widened(x); }
static inline Element store(float value) { return rounded(value); }
#else
typedef float Element;

static inline float load(Element x) { return x; }
static inline Element store(float value) { return value; }
#endif

/* AVX-512 with instructions for the type: up to 16 elements at a time, of which a mask says which are there. */
#if defined(__x86_64__) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && \
    (!defined(BFLOAT16) || defined(__AVX512BF16__))
#define HAS_AVX512 1
#else
#define HAS_AVX512 0
#endif

#if HAS_AVX512
#include <immintrin.h>

static inline __mmask16 first_of_16(Int count) { return count >= 16 ? 0xffff : ~(~0u << count); }

#ifdef BFLOAT16
static inline __m512 load_some(__mmask16 some, const Element *x) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, x)), 16);
}

static inline void store_some(Element *to, __mmask16 some, __m512 x) {
    _mm256_mask_storeu_epi16(to, some, (__m256i)_mm512_cvtneps_pbh(x));
}
#else
static inline __m512 load_some(__mmask16 some, const Element *x) { return _mm512_maskz_loadu_ps(some, x); }
static inline void store_some(Element *to, __mmask16 some, __m512 x) { _mm512_mask_storeu_ps(to, some, x); }
#endif
#endif

#endif
