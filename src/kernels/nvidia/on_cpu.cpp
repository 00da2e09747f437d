// The card's kernels on the CPU, so that tests can run them where there is no card. Blocks come one
// after the other; so do the threads of a block, each up to where it waits for the others. Shared
// memory is static.

#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace {

struct Index {
    unsigned int x, y;
};

Index threadIdx, blockIdx, gridDim;

constexpr unsigned int threads_of_block = 16;  // launch.rs: EMULATED_THREADS
constexpr std::size_t stack_size = 64 * 1024;

// A thread of the block, and whoever lets them run in turn.
struct Thread {
    ucontext_t context;
    bool is_over = false;
};

Thread threads[threads_of_block];
ucontext_t scheduler;
std::function<void()> kernel_of_thread;

void __syncthreads() { swapcontext(&threads[threadIdx.x].context, &scheduler); }

void run_thread() {
    kernel_of_thread();
    threads[threadIdx.x].is_over = true;
}

// Every thread of the block from one meeting to the next, until all are over. Where some wait for
// others that have gone, a card would hang or worse.
void run_block() {
    static std::vector<char> stacks(threads_of_block * stack_size);
    for (unsigned int t = 0; t < threads_of_block; t++) {
        threads[t].is_over = false;
        getcontext(&threads[t].context);
        threads[t].context.uc_stack.ss_sp = stacks.data() + t * stack_size;
        threads[t].context.uc_stack.ss_size = stack_size;
        threads[t].context.uc_link = &scheduler;
        makecontext(&threads[t].context, run_thread, 0);
    }
    unsigned int over = 0;
    while (over == 0) {
        for (threadIdx = {0, 0}; threadIdx.x < threads_of_block; threadIdx.x++) {
            swapcontext(&scheduler, &threads[threadIdx.x].context);
            over += threads[threadIdx.x].is_over;
        }
    }
    if (over != threads_of_block) {
        std::abort();
    }
}

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
    kernel_of_thread = [=] { call(kernel, arguments, std::index_sequence_for<A...>()); };
    for (unsigned int y = 0; y < gridDim.y; y++) {
        for (unsigned int x = 0; x < gridDim.x; x++) {
            blockIdx = {x, y};
            run_block();
        }
    }
}

}  // namespace

extern "C" {

// Runs a kernel on blocks of [y, x]. Returns 1 where there is none of that name.
int bitscope_launch_on_cpu(const char *name, unsigned int x, unsigned int y, void **arguments) {
    static std::mutex one_at_a_time;
    std::lock_guard<std::mutex> guard(one_at_a_time);
    gridDim = {x, y};
#define KERNEL(kernel)                     \
    if (std::strcmp(name, #kernel) == 0) { \
        launch(kernel, arguments);         \
        return 0;                          \
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
