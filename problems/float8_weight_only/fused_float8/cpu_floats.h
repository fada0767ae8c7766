// How weights meet activations where a CPU multiplies float32. Included before cpu_body.h, like it.
//
// Decoding. A 16-bit word holds two codes; the high one is s eeee mmm 0000 0000 (e4m3). Shifted
// right by 4 arithmetically and masked, it is a bfloat16 of the same value times 2^-120: the
// exponent biases are 7 and 127, and subnormal codes become subnormal bfloat16, so no code but the
// two NaNs (whose rows the caller overwrites) needs care. The low code gets there by one signed
// multiplication of bytes by 2^4. e5m2 is the same with a shift by 3 and 2^-112. A bfloat16 is the
// upper half of a float32: no conversion instruction is needed. The activations carry the missing
// power of two (Activations in cpu_kernels.cpp), and come in the order in which the lanes meet
// them, so that nothing is ever shuffled. Per 32 codes of 256-bit vectors: 2 multiplications (one
// shifts), 2 shifts, 4 ands and 4 fused multiply-adds, 12 operations or 3 cycles of four vector units.
//
// Reading. In 256 bits four rows share each load of the activations (two, of bfloat16: four and eight
// were slower). Lines are asked for in the order in which they lie, into the second cache: into the first
// they would drive out the activations. Twice, FURTHER_BYTES and AHEAD_BYTES before the next group of
// rows needs them: a core drops such a request where too many are under way, and a line that was
// dropped costs a whole wait. The second time costs an instruction per line and is worth 2 to 8 %.
//
// 512 bits take half as many instructions, which run too far ahead of the memory, for the reason that
// cpu_pairs.h gives. So weights are read as there: one row after the other, past the caches, and four
// rows at once only for several of activations. One row of activations then has to stay in the first
// cache; AVX2's kernel takes the longer ones (LONG_ROW in cpu_kernels.cpp), at which it was faster
// than one, two, four and eight rows of this.

using X = float;  // what activations are held as
constexpr int PARTS = 4;          // vectors that V::BYTES codes become
constexpr int INSTRUCTIONS = 12;  // that do it and multiply
constexpr int64_t FURTHER_BYTES = 16 << 10, AHEAD_BYTES = 4 << 10, NEAR_BYTES = 6 << 10;
constexpr bool WIDE = V::BYTES == 64;  // 32 registers, too

constexpr int rows_at_once(int m) { return WIDE ? (m == 1 ? 1 : 4) : (m == 1 ? 4 : 2); }
constexpr int BF16_ROWS = WIDE ? 1 : 2;

// One line of weights: of those that are read `here`, and as far on in the `next` group of rows.
TARGET static inline __attribute__((always_inline)) void ask_ahead(
    const void* here, const void* next, int m) {
  const char* from = static_cast<const char*>(next);
  if (WIDE && m == 1) {
    __builtin_prefetch(static_cast<const char*>(here) + NEAR_BYTES, 0, 0);
    return;
  }
  __builtin_prefetch(from + FURTHER_BYTES, 0, 2);
  if (m == 1) __builtin_prefetch(from + AHEAD_BYTES, 0, 2);
}

// Four vectors of float32 from V::BYTES codes, in the order of float8_order. Masked last, in 32
// bits: one mask does for all four, and every register counts.
template <int SHIFT>  // 4: e4m3fn, 3: e5m2
struct Decoder {
  using Part = typename V::F;
  TARGET inline __attribute__((always_inline)) void operator()(
      const uint8_t* codes, Part (&out)[PARTS]) const {
    const typename V::I raw = V::load(codes);
    const typename V::I mask = V::set32(SHIFT == 4 ? int32_t(0x87F00000) : int32_t(0x8FE00000));
    const typename V::I even = V::template low_byte_times<8 - SHIFT>(raw);
    const typename V::I odd = V::template sra16<SHIFT>(raw);
    out[0] = V::as_floats(V::both(V::sll32_by_16(even), mask));
    out[1] = V::as_floats(V::both(even, mask));
    out[2] = V::as_floats(V::both(V::sll32_by_16(odd), mask));
    out[3] = V::as_floats(V::both(odd, mask));
  }
};

TARGET static inline __attribute__((always_inline)) typename V::F multiply_add(
    typename V::F part, const X* x, typename V::F sum) {
  return V::fma(part, V::loadf(x), sum);
}

// V::BYTES / 2 bfloat16 weights at once, into two sums.
TARGET static inline __attribute__((always_inline)) void multiply_add_bf16(
    const uint16_t* w, const X* x, typename V::F& first, typename V::F& second) {
  const typename V::I raw = V::load(w);
  first = V::fma(V::low_halves(raw), V::loadf(x), first);
  second = V::fma(V::high_halves(raw), V::loadf(x + V::BYTES / 4), second);
}

// By what power of two a row of activations is multiplied whose largest finite magnitude is 2^log2:
// it becomes 2^99, and products with weights that are 2^-120 too small neither overflow nor lose bits.
static int power_for(int log2) { return std::min(99 - log2, 126); }
static int missing_power(int shift) { return shift == 4 ? 120 : 112; }

// The order in which decoded vectors meet the activations: of every four neighbouring columns each
// goes into a vector of its own. `from` is bfloat16, `count` a multiple of 64.
TARGET static void float8_order(const uint16_t* from, int64_t count, int power, void* ordered) {
  X* to = static_cast<X*>(ordered);
  constexpr int LANES = V::BYTES / 4;
  const float factor = std::ldexp(1.0f, power);
  for (int64_t k = 0; k < count; k += V::BYTES) {
    uint32_t pairs[2 * LANES], bits[4 * LANES];
    float floats[4 * LANES];
    std::memcpy(pairs, from + k, sizeof pairs);
    for (int i = 0; i < LANES; i++) {
      bits[i] = pairs[2 * i] << 16;
      bits[LANES + i] = pairs[2 * i + 1] << 16;
      bits[2 * LANES + i] = pairs[2 * i] & 0xFFFF0000u;
      bits[3 * LANES + i] = pairs[2 * i + 1] & 0xFFFF0000u;
    }
    std::memcpy(floats, bits, sizeof bits);
    for (int i = 0; i < 4 * LANES; i++) to[k + i] = floats[i] * factor;
  }
}

// The same for bfloat16 weights, of which each vector's even columns come before its odd ones.
TARGET static void bf16_order(const uint16_t* from, int64_t count, void* ordered) {
  X* to = static_cast<X*>(ordered);
  for (int64_t k = 0; k < count; k += V::BYTES / 2) {
    const typename V::I raw = V::load(from + k);
    const typename V::F halves[2] = {V::low_halves(raw), V::high_halves(raw)};
    std::memcpy(to + k, halves, sizeof halves);
  }
}
