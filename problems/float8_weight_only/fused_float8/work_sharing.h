// How do threads share a range of rows? Each begins with a stretch of its own and takes it piece by piece,
// in order, so that what it asks memory for ahead of time is what it needs next. Who is done takes the
// rear half of what another has left. Cores are not equally fast where their units or their time are
// shared with other programs, and a product is ready when its last row is: halves that are fixed wait
// for the slower core.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

class Stretches {
 public:
  Stretches(int64_t count, int64_t piece, int64_t threads) : piece_(piece), all_(threads) {
    for (int64_t i = 0; i < threads; i++) {
      all_[i].from = count * i / threads;
      all_[i].to = count * (i + 1) / threads;
    }
  }

  // The next piece [a, b) for a thread; false when there is nothing left to begin anywhere.
  bool next(int64_t thread, int64_t& a, int64_t& b) {
    while (!take(all_[thread], a, b))
      if (!steal(thread)) return false;
    return true;
  }

 private:
  struct alignas(64) Stretch {  // a cache line each
    std::mutex mutex;
    int64_t from = 0, to = 0;
  };

  bool take(Stretch& own, int64_t& a, int64_t& b) {
    const std::lock_guard<std::mutex> held(own.mutex);
    a = own.from;
    b = own.from = std::min(own.from + piece_, own.to);
    return a < b;
  }

  // From whoever has most left: a thread that finds only pieces that are begun is done.
  bool steal(int64_t thread) {
    Stretch* most = nullptr;
    int64_t left = 0;
    for (Stretch& each : all_) {
      const std::lock_guard<std::mutex> held(each.mutex);
      if (each.to - each.from > left) {
        left = each.to - each.from;
        most = &each;
      }
    }
    if (most == nullptr) return false;
    int64_t from, to;
    {
      const std::lock_guard<std::mutex> held(most->mutex);
      const int64_t half = (most->to - most->from + 1) / 2;
      to = most->to;
      from = most->to = to - half;
    }
    const std::lock_guard<std::mutex> held(all_[thread].mutex);
    all_[thread].from = from;
    all_[thread].to = to;
    return true;  // or empty by now: then the caller looks again
  }

  int64_t piece_;
  std::vector<Stretch> all_;
};

// Calls work(next) on each thread; next(a, b) gives it one piece [a, b) of [0, count) after the other,
// of `piece` or fewer, and false when there are no more.
template <class Work>
void share_work(int64_t count, int64_t piece, const Work& work) {
  const int64_t most = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t threads = std::min<int64_t>(most, (count + piece - 1) / piece);
  if (threads < 1) return;
  Stretches stretches(count, piece, threads);
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    for (int64_t thread = first; thread < last; thread++)
      work([&stretches, thread](int64_t& a, int64_t& b) { return stretches.next(thread, a, b); });
  });
}
