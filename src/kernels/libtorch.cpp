// What tch does not bind: the convolution's own backward pass, LibTorch's threads and settings.

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/convolution_backward.h>
#include <ATen/ops/empty.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>

extern "C" {

// Gradients of input (where `wants_x`) and weight into fresh tensors that the caller owns.
// Returns 0, or 1 with the reason in `message`.
int bitscope_convolution_backward(const at::Tensor* g, const at::Tensor* x, const at::Tensor* weight,
                                  const int64_t* axes, int64_t groups, bool wants_x,
                                  at::Tensor** gx, at::Tensor** gw, char* message, size_t length) {
    try {
        auto [of_x, of_weight, of_bias] = at::convolution_backward(
            *g, *x, *weight, std::nullopt, {axes[0], axes[1]}, {axes[2], axes[3]},
            {axes[4], axes[5]}, false,
            {0, 0}, groups, {wants_x, true, false});
        *gx = wants_x ? new at::Tensor(of_x) : nullptr;
        *gw = new at::Tensor(of_weight);
        return 0;
    } catch (const std::exception& error) {
        std::snprintf(message, length, "%s", error.what());
        return 1;
    }
}

// The same values with the channels of a pixel side by side, in a tensor that the caller owns (a new
// name for the one given where they are).
// Returns 0, or 1 with the reason in `message`.
int bitscope_channels_last(const at::Tensor* x, at::Tensor** out, char* message, size_t length) {
    try {
        *out = new at::Tensor(x->contiguous(at::MemoryFormat::ChannelsLast));
        return 0;
    } catch (const std::exception& error) {
        std::snprintf(message, length, "%s", error.what());
        return 1;
    }
}

// Bytes on a card, in a fresh tensor that the caller owns. They pass through memory that the system
// cannot move away, from which the card copies by itself while the caller goes on.
// Returns 0, or 1 with the reason in `message`.
int bitscope_bytes_on_card(const uint8_t* bytes, int64_t count, int64_t card, at::Tensor** out,
                           char* message, size_t length) {
    try {
        at::Tensor pinned = at::empty({count}, at::TensorOptions(at::kByte).pinned_memory(true));
        std::memcpy(pinned.data_ptr(), bytes, static_cast<size_t>(count));
        at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(card));
        *out = new at::Tensor(pinned.to(device, /*non_blocking=*/true));
        return 0;
    } catch (const std::exception& error) {
        std::snprintf(message, length, "%s", error.what());
        return 1;
    }
}

// On a card cuDNN takes only algorithms that give the same bits every time.
void bitscope_make_deterministic() { at::globalContext().setDeterministicCuDNN(true); }

// Calls `work(context, begin, end)` on LibTorch's threads for parts that cover [0, count).
// `work` must not throw.
void bitscope_parallel_for(int64_t count, void (*work)(void*, int64_t, int64_t), void* context) {
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) { work(context, begin, end); });
}

}
