// The functions that Python calls: `forward`, `backward` and `set_threads`.
#pragma once
#include "backward.hpp"
#include "forward.hpp"

extern "C" void set_threads(Parallel parallel, Number number, Number count) { run_parallel = parallel, thread_number = number, thread_count = count; }
