// at::cuda::CUDAGraph as C functions: see cuda.rs, which declares them again.
//
// Every function that can fail gives back null, or a message that the caller frees. No exception leaves a function.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

namespace {

template <typename F>
char *guarded(F &&body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("an exception that is no std::exception");
  }
}

}  // namespace

extern "C" {

// A graph, and the side stream that it is captured on: the default stream cannot be captured.
struct ce_graph {
  explicit ce_graph(c10::DeviceIndex device)
      : stream(c10::cuda::getStreamFromPool(false, device)) {}

  c10::cuda::CUDAStream stream;
  at::cuda::CUDAGraph graph;
};

struct ce_stream_guard {
  explicit ce_stream_guard(c10::cuda::CUDAStream stream) : guard(stream) {}
  c10::cuda::CUDAStreamGuard guard;
};

void ce_error_free(char *error) { free(error); }

// A memory pool that graphs share: two numbers into `pool`.
char *ce_pool_new(uint64_t *pool) {
  return guarded([&] {
    const c10::MempoolId_t handle = at::cuda::graph_pool_handle();
    pool[0] = handle.first;
    pool[1] = handle.second;
  });
}

char *ce_graph_new(int device, ce_graph **graph) {
  return guarded([&] {
    const auto index = static_cast<c10::DeviceIndex>(device);
    // The constructor of CUDAGraph asks for the current device's stream.
    const c10::cuda::CUDAGuard guard(index);
    *graph = new ce_graph(index);
  });
}

void ce_graph_free(ce_graph *graph) {
  free(guarded([&] { delete graph; }));
}

// Makes the graph's stream the calling thread's current one, until ce_stream_leave on the same thread.
char *ce_stream_enter(ce_graph *graph, ce_stream_guard **guard) {
  return guarded([&] {
    // What was launched before on the current stream is what the work on the new one builds on.
    c10::cuda::device_synchronize();
    *guard = new ce_stream_guard(graph->stream);
  });
}

void ce_stream_leave(ce_stream_guard *guard) {
  free(guarded([&] { delete guard; }));
}

char *ce_synchronize() {
  return guarded([] { c10::cuda::device_synchronize(); });
}

// Other threads may go on allocating and launching meanwhile: only this thread's calls are held to what a capture allows.
char *ce_capture_begin(ce_graph *graph, const uint64_t *pool) {
  return guarded([&] {
    graph->graph.capture_begin({pool[0], pool[1]}, cudaStreamCaptureModeThreadLocal);
  });
}

char *ce_capture_end(ce_graph *graph) {
  return guarded([&] { graph->graph.capture_end(); });
}

// On the calling thread's current stream.
char *ce_replay(ce_graph *graph) {
  return guarded([&] { graph->graph.replay(); });
}

}  // extern "C"
