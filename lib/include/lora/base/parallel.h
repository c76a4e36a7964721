// Data-parallel loops of the light core.
#pragma once

#include <cstddef>
#include <functional>

namespace lora {

/// Number of processors this process may run on (its affinity mask), at least 1.
int available_threads();

/// Runs body(i) for i in [0, count) on up to `threads` threads (0: available_threads()), the
/// calling one included. Indices are handed out in ascending order, one at a time, so order items
/// from the most expensive to the cheapest for balance. Results must go to slot i: then the outcome
/// does not depend on the thread count. The first exception (by index) is rethrown after all
/// threads have stopped; indices not started by then are skipped.
void parallel_for(std::size_t count, int threads, const std::function<void(std::size_t)>& body);

}  // namespace lora
