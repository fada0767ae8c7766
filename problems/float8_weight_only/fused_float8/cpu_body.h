// The kernels for one instruction set. Included once per instruction set by cpu_kernels.cpp, inside
// a namespace that defines V (vectors of V::BYTES bytes) and TARGET (the function attribute), after
// cpu_floats.h or cpu_pairs.h, which say how weights are decoded and meet the activations.

// The largest finite magnitude of bfloat16 numbers (a multiple of 32 of them), as its bits: they
// compare like the magnitudes. In lanes, or the compiler goes through them one by one.
TARGET static int largest_finite(const uint16_t* from, int64_t count) {
  int16_t most[32] = {};
  for (int64_t k = 0; k < count; k += 32)
    for (int i = 0; i < 32; i++) {
      const int16_t magnitude = int16_t(from[k + i] & 0x7FFF);
      const int16_t finite = magnitude < 0x7F80 ? magnitude : int16_t(0);
      most[i] = finite > most[i] ? finite : most[i];
    }
  return *std::max_element(most, most + 32);
}

// sums[r][m] = dot(codes of row r, activations of row m): ROWS weight rows, M activation rows.
// `columns` is a multiple of 64; `stride` is bytes between weight rows, `x_stride` elements.
template <int SHIFT, int ROWS, int M>
TARGET static void dots(
    const uint8_t* codes, int64_t stride, const X* x, int64_t x_stride, int64_t columns,
    float* sums) {
  // Independent sums hide the latency of the products: as many as fit.
  constexpr int CHAINS = std::min(PARTS, ROWS * M <= 2 ? 4 : ROWS * M <= 4 ? 2 : 1);
  const Decoder<SHIFT> decode;
  typename V::F acc[ROWS][M][CHAINS];
  for (auto& row : acc)
    for (auto& one : row)
      for (auto& chain : one) chain = V::zero();
  const uint8_t* next = codes + ROWS * stride;
  for (int64_t k = 0; k < columns; k += 64) {
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++)
      ask_ahead(codes + r * stride + k, next + ROWS * k + 64 * r, M);
#pragma GCC unroll 2
    for (int part = 0; part < 64; part += V::BYTES) {
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++) {
        typename Decoder<SHIFT>::Part w[PARTS];
        decode(codes + r * stride + k + part, w);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) {
          const X* here = x + m * x_stride + k + part;
#pragma GCC unroll 4
          for (int i = 0; i < PARTS; i++) {
            auto& chain = acc[r][m][i % CHAINS];
            chain = multiply_add(w[i], here + i * (V::BYTES / PARTS), chain);
          }
        }
      }
    }
  }
  for (int r = 0; r < ROWS; r++)
    for (int m = 0; m < M; m++) {
      typename V::F sum = acc[r][m][0];
      for (int chain = 1; chain < CHAINS; chain++) sum = V::add(sum, acc[r][m][chain]);
      sums[r * M + m] += V::reduce(sum);
    }
}

template <int ROWS, int M>
TARGET static void float8_rows(const Float8Job& job, const uint8_t* codes, const X* x, float* sums) {
  if (job.shift == 4)
    dots<4, ROWS, M>(codes, job.columns, x, job.padded, job.whole, sums);
  else
    dots<3, ROWS, M>(codes, job.columns, x, job.padded, job.whole, sums);
  if (job.whole == job.columns) return;
  // The columns beyond the last multiple of 64, from a copy padded with zeros.
  alignas(64) uint8_t tail[ROWS * 64] = {};
  for (int r = 0; r < ROWS; r++)
    std::memcpy(tail + 64 * r, codes + r * job.columns + job.whole, job.columns - job.whole);
  if (job.shift == 4)
    dots<4, ROWS, M>(tail, 64, x + job.whole, job.padded, 64, sums);
  else
    dots<3, ROWS, M>(tail, 64, x + job.whole, job.padded, 64, sums);
}

template <int M>
TARGET static void float8_block(const Float8Job& job, int64_t from, int64_t to, int64_t m0) {
  constexpr int ROWS = rows_at_once(M);
  const X* x = static_cast<const X*>(job.x) + m0 * job.padded;
  int64_t n = from;
  for (; n + ROWS <= to; n += ROWS) {
    float sums[ROWS * M] = {};
    float8_rows<ROWS, M>(job, job.codes + n * job.columns, x, sums);
    for (int r = 0; r < ROWS; r++)
      for (int m = 0; m < M; m++) store(job, m0 + m, n + r, sums[r * M + m]);
  }
  for (; n < to; n++) {
    float sums[M] = {};
    float8_rows<1, M>(job, job.codes + n * job.columns, x, sums);
    for (int m = 0; m < M; m++) store(job, m0 + m, n, sums[m]);
  }
}

// Weight rows [from, to) against all activation rows, four of these at a time.
TARGET static void float8_linear(const Float8Job& job, int64_t from, int64_t to) {
  constexpr int64_t TILE = 8;  // rows that stay in the first cache while the activations pass
  for (int64_t n = from; n < to; n += job.m > 4 ? TILE : to - from) {
    const int64_t end = job.m > 4 ? std::min(n + TILE, to) : to;
    for (int64_t m0 = 0; m0 < job.m; m0 += 4) switch (std::min<int64_t>(job.m - m0, 4)) {
        case 1: float8_block<1>(job, n, end, m0); break;
        case 2: float8_block<2>(job, n, end, m0); break;
        case 3: float8_block<3>(job, n, end, m0); break;
        default: float8_block<4>(job, n, end, m0);
      }
  }
}

// One activation row times bfloat16 weight rows: the baseline that float8 must beat.
template <int ROWS>
TARGET static void bf16_rows(
    const uint16_t* w, int64_t stride, const X* x, int64_t columns, float* sums) {
  constexpr int STEP = V::BYTES / 2;
  constexpr int CHAINS = 4;  // of each row; a line at once uses the first two, pairs the first
  typename V::F acc[ROWS][CHAINS];
  for (auto& row : acc)
    for (auto& chain : row) chain = V::zero();
  const uint16_t* next = w + ROWS * stride;
  for (int64_t k = 0; k < columns; k += 32) {  // one cache line
#pragma GCC unroll 2
    for (int r = 0; r < ROWS; r++)
      ask_ahead(w + r * stride + k, next + ROWS * k + 32 * r, 1);
#pragma GCC unroll 2
    for (int part = 0; part < 32; part += STEP)
#pragma GCC unroll 2
      for (int r = 0; r < ROWS; r++) {
        const int chain = 2 * (part / STEP) % CHAINS;
        multiply_add_bf16(w + r * stride + k + part, x + k + part, acc[r][chain], acc[r][chain + 1]);
      }
  }
  for (int r = 0; r < ROWS; r++) {
    typename V::F sum = acc[r][0];
    for (int chain = 1; chain < CHAINS; chain++) sum = V::add(sum, acc[r][chain]);
    sums[r] += V::reduce(sum);
  }
}

template <int ROWS>
TARGET static void bf16_group(
    const uint16_t* w, int64_t columns, const X* x, uint16_t* y, int64_t n) {
  const int64_t whole = columns / 32 * 32, rest = columns - whole;
  float sums[ROWS] = {};
  bf16_rows<ROWS>(w + n * columns, columns, x, whole, sums);
  if (rest) {
    alignas(64) uint16_t tail[ROWS * 32] = {};
    for (int r = 0; r < ROWS; r++)
      std::memcpy(tail + 32 * r, w + (n + r) * columns + whole, 2 * rest);
    bf16_rows<ROWS>(tail, 32, x + whole, 32, sums);
  }
  for (int r = 0; r < ROWS; r++) y[n + r] = to_bf16(sums[r]);
}

TARGET static void bf16_gemv(
    const uint16_t* w, int64_t columns, const void* ordered, uint16_t* y, int64_t from, int64_t to) {
  const X* x = static_cast<const X*>(ordered);
  int64_t n = from;
  for (; n + BF16_ROWS <= to; n += BF16_ROWS) bf16_group<BF16_ROWS>(w, columns, x, y, n);
  for (; n < to; n++) bf16_group<1>(w, columns, x, y, n);
}

// Reads `bytes` (a multiple of 512) and does next to nothing with them: what the bus gives. With
// PREFETCH lines are asked for some before they are needed; without, the CPU's own are.
template <bool PREFETCH>
TARGET static int64_t read_stream(const uint8_t* from, int64_t bytes) {
  typename V::I acc[8];
  for (auto& one : acc) one = V::set16(0);
  for (int64_t k = 0; k < bytes; k += 8 * V::BYTES) {
    if (PREFETCH) {
#pragma GCC unroll 8
      for (int line = 0; line < 8 * V::BYTES; line += 64)
        __builtin_prefetch(from + k + line + READ_AHEAD_BYTES, 0, 3);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) acc[i] = V::exclusive(acc[i], V::load(from + k + i * V::BYTES));
  }
  for (int i = 1; i < 8; i++) acc[0] = V::exclusive(acc[0], acc[i]);
  return V::fold(acc[0]);
}
TARGET static int64_t read_only(const uint8_t* from, int64_t bytes, bool prefetch) {
  return prefetch ? read_stream<true>(from, bytes) : read_stream<false>(from, bytes);
}

// As many vector instructions as decode and multiply `codes` codes, all of a kind that every vector
// unit has, and nothing else: what the units give, whatever the memory does.
TARGET static void instructions_alone(int64_t codes) {
  typename V::I chains[8];
  for (auto& one : chains) one = V::set16(1);
  for (int64_t k = 0; k < codes; k += 8 * V::BYTES)
#pragma GCC unroll 12
    for (int round = 0; round < INSTRUCTIONS; round++)
#pragma GCC unroll 8
      for (auto& one : chains) one = V::doubled(one);
}
