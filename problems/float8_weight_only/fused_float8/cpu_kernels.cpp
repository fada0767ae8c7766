// y = x @ weight.T with float8 weights on a CPU, its bfloat16 counterpart, and a pure read.
// Built and loaded by build.py, which also defines the operators; docs of the arguments are there.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <torch/library.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "work_sharing.h"
#if defined(__x86_64__)
#include "cpu_vectors.h"
#endif

namespace {

constexpr int READ_AHEAD_BYTES = 4096;  // of what is only read
constexpr int64_t BYTES_PER_TASK = 64 << 10;

struct Float8Job {
  const uint8_t* codes;  // (rows, columns)
  const void* x;         // (m, padded), of the type, in the order and with the power of two needed
  const float* scale;    // (rows) or (1)
  const double* back;    // (m): undoes that power of two
  uint16_t* y;           // (m, rows)
  int64_t m, rows, columns, padded, whole;
  int shift;
  bool scale_per_row;
};

float from_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

uint16_t to_bf16(float value) {  // to nearest, ties to even; NaN stays NaN
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if (std::isnan(value)) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

void store(const Float8Job& job, int64_t m, int64_t n, float sum) {
  const double scale = job.scale[job.scale_per_row ? n : 0];
  job.y[m * job.rows + n] = to_bf16(float(sum * job.back[m] * scale));
}

#if defined(__x86_64__)
namespace avx2 {
using V = Avx2;
#define TARGET AVX2_TARGET
#include "cpu_floats.h"
#include "cpu_body.h"
#undef TARGET
}  // namespace avx2
namespace avx512 {
using V = Avx512;
#define TARGET AVX512_TARGET
#include "cpu_floats.h"
#include "cpu_body.h"
#undef TARGET
}  // namespace avx512
namespace avx512_bf16 {
using V = Avx512Bf16;
#define TARGET BF16_TARGET
#include "cpu_pairs.h"
#include "cpu_body.h"
#undef TARGET
}  // namespace avx512_bf16
namespace avx512_emulated {
using V = Twice;
#define TARGET AVX2_TARGET
#include "cpu_floats.h"
#include "cpu_body.h"
#undef TARGET
}  // namespace avx512_emulated
namespace avx512_bf16_emulated {
using V = TwiceBf16;
#define TARGET AVX2_TARGET
#include "cpu_pairs.h"
#include "cpu_body.h"
#undef TARGET
}  // namespace avx512_bf16_emulated
#endif

// One code at a time, by the format's definition: for other CPUs, and what the others are tested by.
namespace portable {

float value_of(int code, int shift) {
  const int mantissa_bits = shift - 1, exponent_bits = 8 - shift, bias = (1 << (exponent_bits - 1)) - 1;
  const int mantissa = code & ((1 << mantissa_bits) - 1);
  const int exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1);
  const int top = (1 << exponent_bits) - 1;
  float value;
  if (shift == 4 && (code & 0x7F) == 0x7F)
    value = NAN;
  else if (shift == 3 && exponent == top)
    value = mantissa ? NAN : INFINITY;
  else if (exponent == 0)
    value = std::ldexp(float(mantissa), 1 - bias - mantissa_bits);
  else
    value = std::ldexp(float(mantissa + (1 << mantissa_bits)), exponent - bias - mantissa_bits);
  return code & 0x80 ? -value : value;
}

void float8_linear(const Float8Job& job, int64_t from, int64_t to) {
  float values[256];
  for (int code = 0; code < 256; code++) values[code] = value_of(code, job.shift);
  const float* x = static_cast<const float*>(job.x);
  for (int64_t n = from; n < to; n++)
    for (int64_t m = 0; m < job.m; m++) {
      float sum = 0;
      for (int64_t k = 0; k < job.columns; k++)
        sum += values[job.codes[n * job.columns + k]] * x[m * job.padded + k];
      store(job, m, n, sum);
    }
}

void bf16_gemv(
    const uint16_t* w, int64_t columns, const void* ordered, uint16_t* y, int64_t from, int64_t to) {
  const float* x = static_cast<const float*>(ordered);
  for (int64_t n = from; n < to; n++) {
    float sum = 0;
    for (int64_t k = 0; k < columns; k++) sum += from_bf16(w[n * columns + k]) * x[k];
    y[n] = to_bf16(sum);
  }
}

void bf16_order(const uint16_t* from, int64_t count, void* ordered) {
  float* to = static_cast<float*>(ordered);
  for (int64_t k = 0; k < count; k++) to[k] = from_bf16(from[k]);
}

int64_t read_only(const uint8_t* from, int64_t bytes, bool) {
  int64_t all = 0, one;
  for (int64_t k = 0; k < bytes; k += 8) {
    std::memcpy(&one, from + k, 8);
    all ^= one;
  }
  return all;
}

}  // namespace portable

struct Kernels {
  const char* name;
  int64_t element_bytes;  // of activations
  void (*float8_linear)(const Float8Job&, int64_t, int64_t);
  void (*bf16_gemv)(const uint16_t*, int64_t, const void*, uint16_t*, int64_t, int64_t);
  int64_t (*read_only)(const uint8_t*, int64_t, bool);
  void (*bf16_order)(const uint16_t*, int64_t, void*);
  // The portable kernels have none of these:
  void (*float8_order)(const uint16_t*, int64_t, int, void*) = nullptr;
  int (*largest_finite)(const uint16_t*, int64_t) = nullptr;
  int (*power_for)(int) = nullptr;      // of two, by the exponent of the largest activation
  int (*missing_power)(int) = nullptr;  // in decoded weights, by the shift
  void (*instructions_alone)(int64_t) = nullptr;
  int instructions = 0;  // per vector of codes, or 0 where nobody counted them
  const Kernels* long_row = nullptr;  // who is faster with one row of activations beyond LONG_ROW
};

const Kernels PORTABLE = {
    "portable", sizeof(float), portable::float8_linear, portable::bf16_gemv, portable::read_only,
    portable::bf16_order};
#if defined(__x86_64__)
#define KERNELS_OF(isa)                                                                        \
  sizeof(isa::X), isa::float8_linear, isa::bf16_gemv, isa::read_only, isa::bf16_order,         \
      isa::float8_order, isa::largest_finite, isa::power_for, isa::missing_power,              \
      isa::instructions_alone, isa::INSTRUCTIONS
const Kernels AVX2 = {"avx2", KERNELS_OF(avx2)};
const Kernels AVX512 = {"avx512", KERNELS_OF(avx512), &AVX2};
const Kernels AVX512_BF16 = {"avx512-bf16", KERNELS_OF(avx512_bf16)};
const Kernels EMULATED = {"avx512-emulated", KERNELS_OF(avx512_emulated)};
const Kernels BF16_EMULATED = {"avx512-bf16-emulated", KERNELS_OF(avx512_bf16_emulated)};
#undef KERNELS_OF
#endif

std::vector<const Kernels*> usable() {  // the best first
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512bf16"))
    found.push_back(&AVX512_BF16);
  if (avx512) found.push_back(&AVX512);
  if (avx2) found.insert(found.end(), {&AVX2, &EMULATED, &BF16_EMULATED});
#endif
  found.push_back(&PORTABLE);
  return found;
}

std::atomic<const Kernels*> chosen{nullptr};

const Kernels& kernels() {
  if (chosen == nullptr) chosen = usable().front();
  return *chosen;
}

// Columns of which one row in float32 (28 KiB) and the stream of weights share a first cache of 32 KiB,
// as some CPUs have. Where between 6144 and 10240 columns the change should be depends on the cache: with
// 48 KiB AVX2 was 4 % faster at 8192.
constexpr int64_t LONG_ROW = 7168;

const Kernels& kernels_for(int64_t m, int64_t columns) {
  const Kernels& chosen = kernels();
  return chosen.long_row && m == 1 && columns > LONG_ROW ? *chosen.long_row : chosen;
}

// Choose an instruction set by name ("" changes nothing); returns the one in use.
std::string instruction_set(const std::string& wanted) {
  if (!wanted.empty()) {
    const Kernels* found = nullptr;
    for (const Kernels* each : usable())
      if (wanted == each->name) found = each;
    TORCH_CHECK_VALUE(found, "this CPU cannot run ", wanted, " kernels; choose another set");
    chosen = found;
  }
  return kernels().name;
}

// Subnormal codes are subnormal numbers on the way: flush-to-zero must be off in each thread.
class ExactSubnormals {
#if defined(__x86_64__)
 public:
  ExactSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ & ~0x8040u); }
  ~ExactSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#endif
};

// Room for `bytes` that begins with a cache line: each load of activations that crosses one is two.
void* aligned(std::vector<uint8_t>& held, int64_t bytes) {
  if (int64_t(held.size()) < bytes + 63) held.resize(bytes + 63);
  const auto address = reinterpret_cast<uintptr_t>(held.data());
  return held.data() + (64 - address % 64) % 64;
}

// The row itself, or a copy with zeros up to `padded` columns.
const uint16_t* padded_row(
    const uint16_t* row, int64_t columns, int64_t padded, std::vector<uint16_t>& held) {
  if (columns == padded) return row;
  held.assign(padded, 0);
  std::copy_n(row, columns, held.data());
  return held.data();
}

// The activations as the kernels want them, each row times a power of two where they ask for one.
// Each thread makes its own: to fetch them from another core's cache takes longer (25 us for 64 KiB
// here). The memory is kept: what is fresh costs a page fault per 4 KiB.
struct Activations {
  void* values;
  std::vector<double> back;
  Activations(const uint16_t* x, int64_t m, int64_t columns, int64_t padded, const Kernels& use, int shift)
      : back(m, 1.0) {
    static thread_local std::vector<uint8_t> held;
    static thread_local std::vector<uint16_t> padding;
    const int64_t row_bytes = padded * use.element_bytes;
    values = aligned(held, m * row_bytes);
    for (int64_t row = 0; row < m; row++) {
      const uint16_t* from = padded_row(x + row * columns, columns, padded, padding);
      void* to = static_cast<uint8_t*>(values) + row * row_bytes;
      if (!use.float8_order) {
        use.bf16_order(from, padded, to);
        continue;
      }
      const int largest = use.largest_finite(from, padded);
      const int power = largest ? use.power_for(std::ilogb(from_bf16(uint16_t(largest)))) : 0;
      back[row] = std::ldexp(1.0, use.missing_power(shift) - power);
      use.float8_order(from, padded, power, to);
    }
  }
};

at::Tensor float8_linear(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& scale,
    const at::Tensor& nan_rows) {
  const bool e4m3 = weight.scalar_type() == at::kFloat8_e4m3fn;
  TORCH_CHECK_VALUE(
      (e4m3 || weight.scalar_type() == at::kFloat8_e5m2) && weight.dim() == 2 && weight.is_contiguous(),
      "weight must be contiguous float8_e4m3fn or float8_e5m2 (N, K), not ", weight.scalar_type(),
      " ", weight.sizes(), "; pack it with fused_float8.linear.pack");
  const int64_t rows = weight.size(0), columns = weight.size(1);
  TORCH_CHECK_VALUE(
      x.scalar_type() == at::kBFloat16 && x.dim() == 2 && x.size(1) == columns,
      "x must be bfloat16 (M, ", columns, "), not ", x.scalar_type(), " ", x.sizes(),
      "; convert or reshape it");
  TORCH_CHECK_VALUE(
      scale.scalar_type() == at::kFloat && scale.is_contiguous() &&
          (scale.numel() == rows || scale.numel() == 1),
      "scale must be contiguous float32 with ", rows, " elements or 1, not ", scale.scalar_type(),
      " ", scale.sizes(), "; pass one per row or one for all");
  TORCH_CHECK_VALUE(nan_rows.scalar_type() == at::kLong, "nan_rows must be int64; use pack's");
  const int64_t m = x.size(0);
  at::Tensor y = at::empty({m, rows}, x.options());
  if (y.numel() == 0) return y;
  const at::Tensor plain = x.contiguous();
  const Kernels& use = kernels_for(m, columns);
  const int shift = e4m3 ? 4 : 3;
  const int64_t padded = (columns + 63) / 64 * 64;
  const auto* from = static_cast<const uint16_t*>(plain.const_data_ptr());
  const Float8Job job = {
      static_cast<const uint8_t*>(weight.const_data_ptr()),
      nullptr,
      scale.const_data_ptr<float>(),
      nullptr,
      static_cast<uint16_t*>(y.data_ptr()),
      m, rows, columns, padded, columns / 64 * 64, shift, scale.numel() == rows && rows > 1};
  const int64_t quads = (rows + 3) / 4, bytes = std::max<int64_t>(4 * columns, 1);
  share_work(quads, std::max<int64_t>(1, BYTES_PER_TASK / bytes), [&](auto next) {
    const ExactSubnormals here;
    const Activations activations(from, m, columns, padded, use, shift);
    Float8Job part = job;
    part.x = activations.values;
    part.back = activations.back.data();
    for (int64_t a, b; next(a, b);) use.float8_linear(part, 4 * a, std::min(4 * b, rows));
  });
  if (nan_rows.numel()) {
    const int64_t* bad = nan_rows.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < nan_rows.numel(); i++) {
      TORCH_CHECK_VALUE(bad[i] >= 0 && bad[i] < rows, "nan_rows is out of range; use pack's");
      for (int64_t row = 0; row < m; row++) job.y[row * rows + bad[i]] = 0x7FC0;
    }
  }
  return y;
}

at::Tensor bf16_gemv(const at::Tensor& x, const at::Tensor& weight) {
  TORCH_CHECK_VALUE(
      weight.scalar_type() == at::kBFloat16 && weight.dim() == 2 && weight.is_contiguous(),
      "weight must be contiguous bfloat16 (N, K), not ", weight.scalar_type(), " ", weight.sizes(),
      "; convert it");
  const int64_t rows = weight.size(0), columns = weight.size(1);
  TORCH_CHECK_VALUE(
      x.scalar_type() == at::kBFloat16 && x.dim() == 2 && x.size(0) == 1 && x.size(1) == columns,
      "x must be bfloat16 (1, ", columns, "), not ", x.scalar_type(), " ", x.sizes(), "; reshape it");
  at::Tensor y = at::empty({1, rows}, x.options());
  const at::Tensor plain = x.contiguous();
  const Kernels& use = kernels_for(1, columns);
  const auto* from = static_cast<const uint16_t*>(plain.const_data_ptr());
  const int64_t padded = (columns + 63) / 64 * 64;
  const auto* w = static_cast<const uint16_t*>(weight.const_data_ptr());
  auto* out = static_cast<uint16_t*>(y.data_ptr());
  const int64_t pairs = (rows + 1) / 2, bytes = std::max<int64_t>(4 * columns, 1);
  share_work(pairs, std::max<int64_t>(1, BYTES_PER_TASK / bytes), [&](auto next) {
    static thread_local std::vector<uint8_t> held;  // each thread's own, as above
    static thread_local std::vector<uint16_t> padding;
    void* ordered = aligned(held, padded * use.element_bytes);
    use.bf16_order(padded_row(from, columns, padded, padding), padded, ordered);
    for (int64_t a, b; next(a, b);)
      use.bf16_gemv(w, columns, ordered, out, 2 * a, std::min(2 * b, rows));
  });
  return y;
}

// Reads all bytes of a tensor (but the last incomplete 512) and returns a number made of them.
int64_t read_only(const at::Tensor& tensor, bool prefetch) {
  TORCH_CHECK_VALUE(tensor.is_contiguous(), "the tensor to read must be contiguous; copy it");
  const auto* data = static_cast<const uint8_t*>(tensor.const_data_ptr());
  const Kernels& use = kernels();
  std::atomic<int64_t> all{0};
  const int64_t parts = int64_t(tensor.nbytes()) / 512;
  share_work(parts, BYTES_PER_TASK / 512, [&](auto next) {
    for (int64_t a, b; next(a, b);) all ^= use.read_only(data + 512 * a, 512 * (b - a), prefetch);
  });
  return all;
}

// Runs what instructions_alone says, for so many codes on all threads. How many instructions it takes
// for one vector of codes; 0 where nobody counted.
int64_t instructions_alone(int64_t codes) {
  const Kernels& use = kernels();
  if (!use.instructions_alone) return 0;
  share_work(codes, BYTES_PER_TASK, [&](auto next) {
    for (int64_t a, b; next(a, b);) use.instructions_alone(b - a);
  });
  return use.instructions;
}

// A contiguous copy in memory that the kernel may back with pages of 2 MiB: a stream through 4 KiB
// pages stops at each of them for a translation. Small tensors, and other systems, get a plain copy.
// Mapped anew each time: what malloc gives has been used before, in small pages that stay small.
at::Tensor on_huge_pages(const at::Tensor& tensor) {
  const at::Tensor plain = tensor.contiguous();
#if defined(__linux__)
  constexpr size_t PAGE = 2 << 20;
  const size_t bytes = plain.nbytes();
  if (bytes >= PAGE) {
    const size_t mapped = (bytes + PAGE - 1) / PAGE * PAGE + PAGE;
    void* whole = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole != MAP_FAILED) {
      madvise(whole, mapped, MADV_HUGEPAGE);  // before the first touch; a refusal costs only speed
      void* memory = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(whole) + PAGE - 1) / PAGE * PAGE);
      std::memcpy(memory, plain.const_data_ptr(), bytes);
      const auto unmap = [whole, mapped](void*) { munmap(whole, mapped); };
      return at::from_blob(memory, plain.sizes(), unmap, plain.options());
    }
  }
#endif
  return plain.clone();
}

}  // namespace

TORCH_LIBRARY_IMPL(float8_weight_only, CPU, library) {
  library.impl("on_huge_pages", on_huge_pages);
  library.impl("linear", float8_linear);
  library.impl("bf16_gemv", bf16_gemv);
  library.impl("read_only", read_only);
}
TORCH_LIBRARY_IMPL(float8_weight_only, CompositeExplicitAutograd, library) {
  library.impl("instruction_set", instruction_set);
  library.impl("instructions_alone", instructions_alone);
}
