// How weights meet activations where a CPU multiplies pairs of bfloat16 (AVX512_BF16) and looks 64
// bytes up in a table of 128 (AVX512_VBMI). Included before cpu_body.h, in place of cpu_floats.h.
//
// Decoding. The seven bits below the sign choose the two bytes of a bfloat16 of exactly that value,
// subnormal codes and NaN among them; the sign joins the upper byte. Interleaved, bytes become words;
// two vectors of them meet the activations, which stay bfloat16: half as many bytes in the first
// cache as float32. Per 64 codes: 2 look-ups, 1 for the sign, 2 to interleave, 2 that multiply and add
// pairs: 7 operations, where float32 in vectors of this width takes 12.
//
// The instruction takes subnormal numbers for zero, whatever the control register says. No float8
// weight is one; activations whose largest is below 2^-20 or above 2^60 are brought to 2^60. So one is
// lost only if it is smaller than another of its row by a factor of 2^90. bfloat16 weights and their
// activations are taken as they are: below 2^-126 they are zero, to torch's own products as well.
//
// Reading. One row of activations meets the weights in the order in which they lie, so that each thread
// reads one stream, and asks for its lines NEAR_BYTES before, past the caches: activations and stream
// together are little more than the first cache. So few instructions run far ahead of the memory: with
// four rows at once, as cpu_floats.h has it, the loads themselves, not yet answered, take the places
// that the requests ahead of them need (32 instructions that do nothing made that a tenth faster). Several
// rows of activations are worth four of weights, since both meet in registers, and there are 32.

using X = uint16_t;  // what activations are held as: bfloat16
constexpr int PARTS = 2;         // vectors that V::BYTES codes become
constexpr int INSTRUCTIONS = 7;  // that do it and multiply
constexpr int64_t NEAR_BYTES = 6 << 10, FURTHER_BYTES = 16 << 10;

constexpr int rows_at_once(int m) { return m == 1 ? 1 : 4; }
constexpr int BF16_ROWS = 1;

// One line of weights: of those that are read `here`, and as far on in the `next` group of rows.
TARGET static inline __attribute__((always_inline)) void ask_ahead(
    const void* here, const void* next, int m) {
  if (m == 1)
    __builtin_prefetch(static_cast<const char*>(here) + NEAR_BYTES, 0, 0);
  else
    __builtin_prefetch(static_cast<const char*>(next) + FURTHER_BYTES, 0, 2);
}

// The bfloat16 of the code without its sign, by the format's definition.
constexpr uint16_t bf16_of(int code, int shift) {
  const int mantissa_bits = shift - 1, exponent = code >> mantissa_bits;
  const int mantissa = code & ((1 << mantissa_bits) - 1), bias = shift == 4 ? 120 : 112;
  if (shift == 4 && code == 0x7F) return 0x7FC0;
  if (shift == 3 && exponent == 31) return mantissa ? 0x7FC0 : 0x7F80;
  if (code == 0) return 0;
  int up = 0;  // a subnormal code's first digit, moved to where it is implied
  if (exponent == 0)
    while (!((mantissa << up) >> mantissa_bits)) up++;
  const int digits = exponent ? mantissa : (mantissa << up) & ((1 << mantissa_bits) - 1);
  return uint16_t((bias + (exponent ? exponent : 1 - up)) << 7 | digits << (7 - mantissa_bits));
}

template <int SHIFT>
struct Tables {
  alignas(64) uint8_t low[128] = {}, high[128] = {};
  constexpr Tables() {
    for (int code = 0; code < 128; code++) {
      low[code] = uint8_t(bf16_of(code, SHIFT) & 0xFF);
      high[code] = uint8_t(bf16_of(code, SHIFT) >> 8);
    }
  }
};
template <int SHIFT>
constexpr Tables<SHIFT> TABLES{};

template <int SHIFT>  // 4: e4m3fn, 3: e5m2
struct Decoder {
  using Part = typename V::I;
  typename V::Table low, high;
  typename V::I sign;
  TARGET inline __attribute__((always_inline)) Decoder()
      : low(V::table(TABLES<SHIFT>.low)), high(V::table(TABLES<SHIFT>.high)),
        sign(V::set32(int32_t(0x80808080))) {}
  TARGET inline __attribute__((always_inline)) void operator()(
      const uint8_t* codes, Part (&out)[PARTS]) const {
    const typename V::I raw = V::load(codes);
    const typename V::I lower = V::lookup(low, raw);
    const typename V::I upper = V::with(V::lookup(high, raw), raw, sign);
    out[0] = V::interleave_first(lower, upper);
    out[1] = V::interleave_last(lower, upper);
  }
};

TARGET static inline __attribute__((always_inline)) typename V::F multiply_add(
    typename V::I part, const X* x, typename V::F sum) {
  return V::dot(part, V::load(x), sum);
}

// V::BYTES / 2 bfloat16 weights at once, into one of two sums.
TARGET static inline __attribute__((always_inline)) void multiply_add_bf16(
    const uint16_t* w, const X* x, typename V::F& first, typename V::F&) {
  first = V::dot(V::load(w), V::load(x), first);
}

static int power_for(int log2) { return log2 >= -20 && log2 <= 60 ? 0 : std::min(60 - log2, 126); }
static int missing_power(int) { return 0; }

// Bytes are interleaved within 16 of them: of each 64 codes the first eight of every 16, then the last.
TARGET static void float8_order(const uint16_t* from, int64_t count, int power, void* ordered) {
  X* to = static_cast<X*>(ordered);
  constexpr int64_t EIGHT = 8 * sizeof(X);
  for (int64_t k = 0; k < count; k += 64)
    for (int lane = 0; lane < 4; lane++) {
      std::memcpy(to + k + 8 * lane, from + k + 16 * lane, EIGHT);
      std::memcpy(to + k + 32 + 8 * lane, from + k + 16 * lane + 8, EIGHT);
    }
  if (power == 0) return;
  const float factor = std::ldexp(1.0f, power);
  for (int64_t k = 0; k < count; k++) {
    uint32_t bits = uint32_t(to[k]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    value *= factor;  // exact: a bfloat16 again, but for what is 2^186 times smaller than the largest
    std::memcpy(&bits, &value, 4);
    to[k] = X(bits >> 16);
  }
}

TARGET static void bf16_order(const uint16_t* from, int64_t count, void* ordered) {
  std::memcpy(ordered, from, count * sizeof(X));
}
