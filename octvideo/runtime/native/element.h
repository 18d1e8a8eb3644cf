/* The type of the maps' elements, float or (with BFLOAT16) bfloat16, and how it becomes a float and back. */

#ifndef ELEMENT_H
#define ELEMENT_H

#include <stdint.h>
#include <string.h>

typedef int64_t Int;

#ifdef BFLOAT16
typedef uint16_t Element;

static inline float load(Element x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline Element store(float value) { /* rounded to the nearest, half to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded;
}
#else
typedef float Element;

static inline float load(Element x) { return x; }
static inline Element store(float value) { return value; }
#endif

#if defined(BFLOAT16) && defined(__AVX512BF16__)
#include <immintrin.h>

/* Compilers do not find this instruction for a loop over `store`. */
static inline void store_all(Element *restrict to, const float *restrict from, Int count) {
    Int c = 0;
    for (; c + 16 <= count; c += 16)
        _mm256_storeu_si256((__m256i *)(to + c), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + c)));
    if (c < count) {
        __mmask16 rest = (1u << (count - c)) - 1;
        _mm256_mask_storeu_epi16(to + c, rest, (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(rest, from + c)));
    }
}
#else
static inline void store_all(Element *restrict to, const float *restrict from, Int count) {
#pragma omp simd
    for (Int c = 0; c < count; c++) to[c] = store(from[c]);
}
#endif

#endif
