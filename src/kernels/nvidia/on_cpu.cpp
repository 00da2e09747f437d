// The card's kernels on the CPU, so that tests can run them where there is no card: the threads of
// a block are threads, its shared memory is static, and blocks come one after the other.

#include <barrier>
#include <cmath>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace {

struct Index {
    unsigned int x, y;
};

thread_local Index threadIdx, blockIdx;
Index gridDim;

constexpr unsigned int threads_of_block = 8;
std::barrier<> meeting(threads_of_block);

void __syncthreads() { meeting.arrive_and_wait(); }

#define ELEMENT static inline
#define DEVICE static inline
#define THREADS threads_of_block
#define __global__
#define __shared__ static

#include "element.cuh"
#include "total.cuh"
#include "quantize.cu"
#include "norm.cu"

// Calls a kernel with the arguments that lie at the addresses in `arguments`.
template <typename... A, std::size_t... I>
void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(arguments[I])...);
}

template <typename... A>
void launch(void (*kernel)(A...), void **arguments) {
    std::vector<std::thread> threads;
    for (unsigned int t = 0; t < threads_of_block; t++) {
        threads.emplace_back([=] {
            threadIdx = {t, 0};
            for (unsigned int y = 0; y < gridDim.y; y++) {
                for (unsigned int x = 0; x < gridDim.x; x++) {
                    blockIdx = {x, y};
                    call(kernel, arguments, std::index_sequence_for<A...>());
                    __syncthreads();
                }
            }
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
}

}  // namespace

extern "C" {

// Runs a kernel on blocks of [y, x]. Returns 1 where there is none of that name.
int bitscope_launch_on_cpu(const char *name, unsigned int x, unsigned int y, void **arguments) {
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> guard(one_at_a_time);
    gridDim = {x, y};
#define KERNEL(kernel)                      \
    if (std::strcmp(name, #kernel) == 0) {  \
        launch(kernel, arguments);          \
        return 0;                           \
    }
    KERNEL(quantize_forward)
    KERNEL(quantize_backward)
    KERNEL(quantize_sums)
    KERNEL(norm_moments)
    KERNEL(norm_forward)
    KERNEL(norm_backward_sums)
    KERNEL(norm_backward)
    return 1;
}

// Q(x), then gradient, inner, outer, clipped and zero.
void bitscope_quantize_element(const QuantizerGrid *grid, float x, float g, float *out) {
    QuantizerShare share = quantizer_share(*grid, x, g);
    const float values[6] = {quantize(*grid, x), share.gradient, share.inner,
                             share.outer,        share.clipped,  share.zero};
    std::memcpy(out, values, sizeof values);
}

}
