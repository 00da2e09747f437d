// What tch does not bind: the convolution's own backward pass, and LibTorch's threads; and an element
// of the card's quantizer for the tests.

#include <ATen/Parallel.h>
#include <ATen/ops/convolution_backward.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>

#define ELEMENT static inline
#include "nvidia/element.cuh"

extern "C" {

// Gradients of input (where `wants_x`) and weight into fresh tensors that the caller owns.
// Returns 0, or 1 with the reason in `message`.
int bitscope_convolution_backward(const at::Tensor* g, const at::Tensor* x, const at::Tensor* weight,
                                  int64_t stride, int64_t padding, int64_t groups, bool wants_x,
                                  at::Tensor** gx, at::Tensor** gw, char* message, size_t length) {
    try {
        auto [of_x, of_weight, of_bias] = at::convolution_backward(
            *g, *x, *weight, std::nullopt, {stride, stride}, {padding, padding}, {1, 1}, false,
            {0, 0}, groups, {wants_x, true, false});
        *gx = wants_x ? new at::Tensor(of_x) : nullptr;
        *gw = new at::Tensor(of_weight);
        return 0;
    } catch (const std::exception& error) {
        std::snprintf(message, length, "%s", error.what());
        return 1;
    }
}

// Calls `work(context, begin, end)` on LibTorch's threads for parts that cover [0, count).
// `work` must not throw.
void bitscope_parallel_for(int64_t count, void (*work)(void*, int64_t, int64_t), void* context) {
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) { work(context, begin, end); });
}

// Q(x), then gradient, inner, outer, clipped and zero.
void bitscope_quantize_element(const QuantizerGrid* grid, float x, float g, float* out) {
    QuantizerShare share = quantize_backward(*grid, x, g);
    const float values[6] = {quantize(*grid, x), share.gradient, share.inner,
                             share.outer,        share.clipped,  share.zero};
    std::memcpy(out, values, sizeof values);
}

}
