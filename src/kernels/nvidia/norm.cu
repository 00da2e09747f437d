// Batch norm, residual addition and activation on the card: a pass over memory for the statistics
// and one for the output, and the same number back. Compiled at run time, behind element.cuh and
// total.cuh.
//
// Layout [n, c, p], or [n, p, c], where a block takes a few channels that lie side by side. blockIdx.y
// is the channel, or the group of channels; the gridDim.x blocks of a group share its values, and each
// leaves its sums, channel by channel, for the next kernel to add up.

struct NormLayer {
    unsigned int images;
    unsigned int channels;
    unsigned int pixels;
    unsigned int lanes;  // channels of a block: 1 in [n, c, p], more, a power of two, in [n, p, c]
    float epsilon;       // added to the variance
    int activation;      // 0: nothing, 1: ReLU, 2: the quantizer, 3: a clip to the grid's low and high
    QuantizerGrid grid;
};

struct NormChannel {
    float mean;
    float deviation;  // sqrt(var + epsilon)
    float gamma;
    float beta;
};

// A thread's channel. Where the last group of channels is not full, the threads beyond it follow the
// last channel and have no values.
struct NormLane {
    unsigned int channel;
    unsigned int values;
    bool first;  // of the threads that share a channel in a block, if it has one
};

DEVICE NormLane lane_of(const NormLayer &layer) {
    unsigned int channel = blockIdx.y * layer.lanes + threadIdx.x % layer.lanes;
    bool exists = channel < layer.channels;
    NormLane lane = {exists ? channel : layer.channels - 1,
                     exists ? layer.images * layer.pixels : 0,
                     exists && threadIdx.x < layer.lanes};
    return lane;
}

#define EACH_VALUE(i, layer, lane)                                                              \
    for (unsigned int i = blockIdx.x * (THREADS / layer.lanes) + threadIdx.x / layer.lanes,    \
                      stride_ = gridDim.x * (THREADS / layer.lanes);                           \
         i < lane.values; i += stride_)

// Where the i-th value of a channel lies.
DEVICE unsigned long long offset(const NormLayer &layer, const NormLane &lane, unsigned int i) {
    if (layer.lanes > 1) {
        return (unsigned long long)i * layer.channels + lane.channel;
    }
    unsigned int image = i / layer.pixels;
    unsigned long long row = (unsigned long long)image * layer.channels + lane.channel;
    return row * layer.pixels + (i - image * layer.pixels);
}

// The row of a block among those that blocks leave a channel's sums in.
DEVICE unsigned long long row_of(const NormLane &lane, unsigned int block) {
    return (unsigned long long)lane.channel * gridDim.x + block;
}

DEVICE NormChannel channel_of(const NormLayer &layer, const NormLane &lane, float mean,
                              float variance, const float *gamma, const float *beta) {
    NormChannel channel = {mean, sqrtf(variance + layer.epsilon), gamma[lane.channel],
                           beta[lane.channel]};
    return channel;
}

// With the statistics [2, c].
DEVICE NormChannel channel_with(const NormLayer &layer, const NormLane &lane,
                                const float *statistics, const float *gamma, const float *beta) {
    return channel_of(layer, lane, statistics[lane.channel],
                      statistics[layer.channels + lane.channel], gamma, beta);
}

DEVICE float normalised(const NormChannel &channel, float x) {
    return (x - channel.mean) / channel.deviation;
}

// What goes into the activation, without the residual, from the normalised value.
DEVICE float scaled(const NormChannel &channel, float n) {
    return n * channel.gamma + channel.beta;
}

DEVICE float activated(const NormLayer &layer, float z) {
    if (layer.activation == 2) {
        return quantize(layer.grid, z);
    }
    if (layer.activation == 3) {
        float raised = z <= layer.grid.low ? layer.grid.low : z;
        return raised >= layer.grid.high ? layer.grid.high : raised;
    }
    return layer.activation == 1 && z <= 0.0f ? 0.0f : z;
}

DEVICE QuantizerShare activation_backward(const NormLayer &layer, float z, float g) {
    if (layer.activation == 2) {
        return quantizer_share(layer.grid, z, g);
    }
    bool outside = layer.activation == 3 && (z <= layer.grid.low || z >= layer.grid.high);
    bool cut = outside || (layer.activation == 1 && z <= 0.0f);
    QuantizerShare share = {cut ? 0.0f : g, 0.0f, 0.0f, 0.0f, 0.0f};
    return share;
}

// Deviations from the channel's first value, and their squares: parts [c, blocks, 2].
extern "C" __global__ void norm_moments(const float *x, double *parts, NormLayer layer) {
    NormLane lane = lane_of(layer);
    float pivot = x[offset(layer, lane, 0)];
    double sum = 0.0, square = 0.0;
    EACH_VALUE(i, layer, lane) {
        double deviation = (double)x[offset(layer, lane, i)] - (double)pivot;
        sum += deviation;
        square += deviation * deviation;
    }
    double totals[2] = {lane_total(sum, layer.lanes), lane_total(square, layer.lanes)};
    if (lane.first) {
        parts[row_of(lane, blockIdx.x) * 2] = totals[0];
        parts[row_of(lane, blockIdx.x) * 2 + 1] = totals[1];
    }
}

// With parts, the batch's statistics [2, c] are written; without, those there are used.
extern "C" __global__ void norm_forward(
    const float *x, const float *residual, const float *gamma, const float *beta,
    const double *parts, float *statistics, float *y, NormLayer layer) {
    NormLane lane = lane_of(layer);
    NormChannel channel;
    if (parts) {
        const double *own = parts + row_of(lane, 0) * 2;
        double count = (double)(layer.images * layer.pixels);
        double shift = column_total(own, gridDim.x, 2, 0, layer.lanes) / count;
        double spread = column_total(own, gridDim.x, 2, 1, layer.lanes) / count - shift * shift;
        float mean = (float)((double)x[offset(layer, lane, 0)] + shift);
        float variance = spread < 0.0 ? 0.0f : (float)spread;
        if (blockIdx.x == 0 && lane.first) {
            statistics[lane.channel] = mean;
            statistics[layer.channels + lane.channel] = variance;
        }
        channel = channel_of(layer, lane, mean, variance, gamma, beta);
    } else {
        channel = channel_with(layer, lane, statistics, gamma, beta);
    }
    EACH_VALUE(i, layer, lane) {
        unsigned long long at = offset(layer, lane, i);
        float z = scaled(channel, normalised(channel, x[at]));
        y[at] = activated(layer, residual ? z + residual[at] : z);
    }
}

// Gradient of the activation's input, gz, where a residual wants it; and parts [c, blocks, 6]: sums
// of gz times the normalised value, of gz, and the quantizer's four.
extern "C" __global__ void norm_backward_sums(
    const float *x, const float *residual, const float *gamma, const float *beta,
    const float *statistics, const float *g, float *gz, double *parts, NormLayer layer) {
    NormLane lane = lane_of(layer);
    NormChannel channel = channel_with(layer, lane, statistics, gamma, beta);
    float sums[6] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    EACH_VALUE(i, layer, lane) {
        unsigned long long at = offset(layer, lane, i);
        float n = normalised(channel, x[at]);
        float z = scaled(channel, n);
        QuantizerShare share = activation_backward(layer, residual ? z + residual[at] : z, g[at]);
        if (gz) {
            gz[at] = share.gradient;
        }
        sums[0] += share.gradient * n;
        sums[1] += share.gradient;
        sums[2] += share.inner;
        sums[3] += share.outer;
        sums[4] += share.clipped;
        sums[5] += share.zero;
    }
    for (unsigned int k = 0; k < 6; k++) {
        double total = lane_total(sums[k], layer.lanes);
        if (lane.first) {
            parts[row_of(lane, blockIdx.x) * 6 + k] = total;
        }
    }
}

// Everything else: from gz where it was kept, else (there is no residual then) from g.
extern "C" __global__ void norm_backward(
    const float *x, const float *gamma, const float *beta, const float *statistics,
    const float *g, const float *gz, const double *parts, float *gx, float *gamma_gradient,
    float *beta_gradient, float *quantizer_sums, NormLayer layer) {
    NormLane lane = lane_of(layer);
    NormChannel channel = channel_with(layer, lane, statistics, gamma, beta);
    const double *own = parts + row_of(lane, 0) * 6;
    float product = (float)column_total(own, gridDim.x, 6, 0, layer.lanes);
    float sum = (float)column_total(own, gridDim.x, 6, 1, layer.lanes);
    if (blockIdx.x == 0) {
        if (lane.first) {
            gamma_gradient[lane.channel] = product;
            beta_gradient[lane.channel] = sum;
        }
        if (blockIdx.y == 0) {
            for (unsigned int k = 0; k < 4; k++) {
                double total = column_total(parts, layer.channels * gridDim.x, 6, 2 + k, 1);
                if (threadIdx.x == 0) {
                    quantizer_sums[k] = (float)total;
                }
            }
        }
    }
    float share = 1.0f / (float)(layer.images * layer.pixels);
    float mean_product = product * share, mean_sum = sum * share;
    EACH_VALUE(i, layer, lane) {
        unsigned long long at = offset(layer, lane, i);
        float n = normalised(channel, x[at]);
        float upstream =
            gz ? gz[at] : activation_backward(layer, scaled(channel, n), g[at]).gradient;
        float centred = upstream - mean_sum - n * mean_product;
        gx[at] = centred * channel.gamma / channel.deviation;
    }
}
