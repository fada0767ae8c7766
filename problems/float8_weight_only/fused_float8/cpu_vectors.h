// Vectors of one instruction set each, with only what cpu_body.h needs. Everything is lane by lane
// (lanes of 8, 16 or 32 bits) but reduce, so that a vector of twice the width is two of them: Twice
// runs the 512-bit code on machines that have 256-bit vectors only, to test it there.
#pragma once
#include <immintrin.h>
#include <cstdint>
#include <cstring>

#define AVX2_TARGET __attribute__((target("avx2,fma,f16c")))
#define AVX512_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")))
#define BF16_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16,avx2,fma,f16c")))
#define INLINE(target) target static inline __attribute__((always_inline))

struct Avx2 {
  using I = __m256i;
  using F = __m256;
  static constexpr int BYTES = 32;
  INLINE(AVX2_TARGET) I load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  INLINE(AVX2_TARGET) F loadf(const float* p) { return _mm256_loadu_ps(p); }
  INLINE(AVX2_TARGET) I set16(int16_t v) { return _mm256_set1_epi16(v); }
  INLINE(AVX2_TARGET) F zero() { return _mm256_setzero_ps(); }
  // As the upper half of a product: one load less than a shift, which takes no operand in memory, and
  // no place in the units that shift. 1 to 4 % faster where a core's units are shared with another
  // tenant, as usual here; up to 5 % slower, out of caches, where they are not.
  template <int N> INLINE(AVX2_TARGET) I sra16(I v) {
    return _mm256_mulhi_epi16(v, _mm256_set1_epi16(1 << (16 - N)));
  }
  // The low byte of each 16-bit lane, as a signed number, times 2^N.
  template <int N> INLINE(AVX2_TARGET) I low_byte_times(I v) {
    return _mm256_maddubs_epi16(_mm256_set1_epi16(1 << N), v);
  }
  INLINE(AVX2_TARGET) I both(I a, I b) { return _mm256_and_si256(a, b); }
  INLINE(AVX2_TARGET) I exclusive(I a, I b) { return _mm256_xor_si256(a, b); }
  INLINE(AVX2_TARGET) I doubled(I v) {  // and not known to be: the compiler must do it each time
    v = _mm256_add_epi16(v, v);
    __asm__ volatile("" : "+x"(v));
    return v;
  }
  INLINE(AVX2_TARGET) I set32(int32_t v) { return _mm256_set1_epi32(v); }
  INLINE(AVX2_TARGET) I sll32_by_16(I v) { return _mm256_slli_epi32(v, 16); }
  INLINE(AVX2_TARGET) F as_floats(I v) { return _mm256_castsi256_ps(v); }
  INLINE(AVX2_TARGET) F low_halves(I v) { return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16)); }
  INLINE(AVX2_TARGET) F high_halves(I v) {
    return _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32(int32_t(0xFFFF0000))));
  }
  INLINE(AVX2_TARGET) F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  INLINE(AVX2_TARGET) F add(F a, F b) { return _mm256_add_ps(a, b); }
  INLINE(AVX2_TARGET) float reduce(F v) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
  }
  INLINE(AVX2_TARGET) int64_t fold(I v) {
    return _mm256_extract_epi64(v, 0) ^ _mm256_extract_epi64(v, 1) ^ _mm256_extract_epi64(v, 2) ^
           _mm256_extract_epi64(v, 3);
  }
};

struct Avx512 {
  using I = __m512i;
  using F = __m512;
  static constexpr int BYTES = 64;
  INLINE(AVX512_TARGET) I load(const void* p) { return _mm512_loadu_si512(p); }
  INLINE(AVX512_TARGET) F loadf(const float* p) { return _mm512_loadu_ps(p); }
  INLINE(AVX512_TARGET) I set16(int16_t v) { return _mm512_set1_epi16(v); }
  INLINE(AVX512_TARGET) F zero() { return _mm512_setzero_ps(); }
  template <int N> INLINE(AVX512_TARGET) I sra16(I v) { return _mm512_srai_epi16(v, N); }
  template <int N> INLINE(AVX512_TARGET) I low_byte_times(I v) {
    return _mm512_maddubs_epi16(_mm512_set1_epi16(1 << N), v);
  }
  INLINE(AVX512_TARGET) I both(I a, I b) { return _mm512_and_si512(a, b); }
  INLINE(AVX512_TARGET) I exclusive(I a, I b) { return _mm512_xor_si512(a, b); }
  INLINE(AVX512_TARGET) I doubled(I v) {
    v = _mm512_add_epi16(v, v);
    __asm__ volatile("" : "+v"(v));
    return v;
  }
  INLINE(AVX512_TARGET) I set32(int32_t v) { return _mm512_set1_epi32(v); }
  INLINE(AVX512_TARGET) I sll32_by_16(I v) { return _mm512_slli_epi32(v, 16); }
  INLINE(AVX512_TARGET) F as_floats(I v) { return _mm512_castsi512_ps(v); }
  INLINE(AVX512_TARGET) F low_halves(I v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
  INLINE(AVX512_TARGET) F high_halves(I v) {
    return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(int32_t(0xFFFF0000))));
  }
  INLINE(AVX512_TARGET) F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  INLINE(AVX512_TARGET) F add(F a, F b) { return _mm512_add_ps(a, b); }
  INLINE(AVX512_TARGET) float reduce(F v) { return _mm512_reduce_add_ps(v); }
  INLINE(AVX512_TARGET) int64_t fold(I v) {
    return Avx2::fold(_mm512_castsi512_si256(v)) ^ Avx2::fold(_mm512_extracti64x4_epi64(v, 1));
  }
};

struct Twice {
  struct I { __m256i a, b; };
  struct F { __m256 a, b; };
  static constexpr int BYTES = 64;
  INLINE(AVX2_TARGET) I load(const void* p) {
    return {Avx2::load(p), Avx2::load(static_cast<const uint8_t*>(p) + 32)};
  }
  INLINE(AVX2_TARGET) F loadf(const float* p) { return {Avx2::loadf(p), Avx2::loadf(p + 8)}; }
  INLINE(AVX2_TARGET) I set16(int16_t v) { return {Avx2::set16(v), Avx2::set16(v)}; }
  INLINE(AVX2_TARGET) F zero() { return {Avx2::zero(), Avx2::zero()}; }
  template <int N> INLINE(AVX2_TARGET) I sra16(I v) { return {Avx2::sra16<N>(v.a), Avx2::sra16<N>(v.b)}; }
  template <int N> INLINE(AVX2_TARGET) I low_byte_times(I v) {
    return {Avx2::low_byte_times<N>(v.a), Avx2::low_byte_times<N>(v.b)};
  }
  INLINE(AVX2_TARGET) I both(I x, I y) { return {Avx2::both(x.a, y.a), Avx2::both(x.b, y.b)}; }
  INLINE(AVX2_TARGET) I exclusive(I x, I y) {
    return {Avx2::exclusive(x.a, y.a), Avx2::exclusive(x.b, y.b)};
  }
  INLINE(AVX2_TARGET) I doubled(I v) { return {Avx2::doubled(v.a), Avx2::doubled(v.b)}; }
  INLINE(AVX2_TARGET) I set32(int32_t v) { return {Avx2::set32(v), Avx2::set32(v)}; }
  INLINE(AVX2_TARGET) I sll32_by_16(I v) { return {Avx2::sll32_by_16(v.a), Avx2::sll32_by_16(v.b)}; }
  INLINE(AVX2_TARGET) F as_floats(I v) { return {Avx2::as_floats(v.a), Avx2::as_floats(v.b)}; }
  INLINE(AVX2_TARGET) F low_halves(I v) { return {Avx2::low_halves(v.a), Avx2::low_halves(v.b)}; }
  INLINE(AVX2_TARGET) F high_halves(I v) { return {Avx2::high_halves(v.a), Avx2::high_halves(v.b)}; }
  INLINE(AVX2_TARGET) F fma(F x, F y, F z) {
    return {Avx2::fma(x.a, y.a, z.a), Avx2::fma(x.b, y.b, z.b)};
  }
  INLINE(AVX2_TARGET) F add(F x, F y) { return {Avx2::add(x.a, y.a), Avx2::add(x.b, y.b)}; }
  INLINE(AVX2_TARGET) float reduce(F v) { return Avx2::reduce(Avx2::add(v.a, v.b)); }
  INLINE(AVX2_TARGET) int64_t fold(I v) { return Avx2::fold(v.a) ^ Avx2::fold(v.b); }
};

// What cpu_pairs.h needs besides: bytes from a table, bytes to words, products of pairs of bfloat16.
struct Avx512Bf16 : Avx512 {
  struct Table { I first, last; };  // 128 bytes
  INLINE(BF16_TARGET) Table table(const uint8_t* p) { return {load(p), load(p + 64)}; }
  INLINE(BF16_TARGET) I lookup(const Table& table, I index) {  // by the lower seven bits of each byte
    return _mm512_permutex2var_epi8(table.first, index, table.last);
  }
  INLINE(BF16_TARGET) I with(I a, I b, I mask) {  // a | (b & mask)
    return _mm512_ternarylogic_epi32(a, b, mask, 0xF8);
  }
  INLINE(BF16_TARGET) I interleave_first(I a, I b) { return _mm512_unpacklo_epi8(a, b); }
  INLINE(BF16_TARGET) I interleave_last(I a, I b) { return _mm512_unpackhi_epi8(a, b); }
  INLINE(BF16_TARGET) F dot(I a, I b, F sum) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
};

struct TwiceBf16 : Twice {
  using Table = const uint8_t*;
  INLINE(AVX2_TARGET) Table table(const uint8_t* p) { return p; }
  INLINE(AVX2_TARGET) I lookup(Table table, I index) {
    uint8_t bytes[64];
    std::memcpy(bytes, &index, 64);
    for (uint8_t& one : bytes) one = table[one & 0x7F];
    return load(bytes);
  }
  INLINE(AVX2_TARGET) I with(I a, I b, I mask) {
    return {_mm256_or_si256(a.a, Avx2::both(b.a, mask.a)), _mm256_or_si256(a.b, Avx2::both(b.b, mask.b))};
  }
  INLINE(AVX2_TARGET) I interleave_first(I x, I y) {
    return {_mm256_unpacklo_epi8(x.a, y.a), _mm256_unpacklo_epi8(x.b, y.b)};
  }
  INLINE(AVX2_TARGET) I interleave_last(I x, I y) {
    return {_mm256_unpackhi_epi8(x.a, y.a), _mm256_unpackhi_epi8(x.b, y.b)};
  }
  INLINE(AVX2_TARGET) F dot(I x, I y, F sum) {  // subnormal numbers are zero on the way in and out
    const F odd = flushed(fma(flushed(high_halves(x)), flushed(high_halves(y)), sum));
    return flushed(fma(flushed(low_halves(x)), flushed(low_halves(y)), odd));
  }

 private:
  INLINE(AVX2_TARGET) F flushed(F v) { return {flushed(v.a), flushed(v.b)}; }
  INLINE(AVX2_TARGET) __m256 flushed(__m256 v) {
    const __m256 exponents = _mm256_castsi256_ps(_mm256_set1_epi32(0x7F800000));
    const __m256i exponent = _mm256_castps_si256(_mm256_and_ps(v, exponents));
    const __m256i subnormal = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
    return _mm256_andnot_ps(_mm256_castsi256_ps(subnormal), v);
  }
};
