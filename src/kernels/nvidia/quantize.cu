// The quantizer on the card: one pass over memory forward, one backward. Compiled at run time,
// behind element.cuh and total.cuh.

extern "C" __global__ void quantize_forward(
    const float *x, float *y, unsigned long long count, QuantizerGrid grid) {
    unsigned long long step = (unsigned long long)gridDim.x * THREADS;
    for (unsigned long long i = (unsigned long long)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += step) {
        y[i] = quantize(grid, x[i]);
    }
}

// Each block leaves its own sums, parts [blocks, 4].
extern "C" __global__ void quantize_backward(
    const float *x, const float *g, float *gx, double *parts, unsigned long long count,
    QuantizerGrid grid) {
    float inner = 0.0f, outer = 0.0f, clipped = 0.0f, zeros = 0.0f;
    unsigned long long step = (unsigned long long)gridDim.x * THREADS;
    for (unsigned long long i = (unsigned long long)blockIdx.x * THREADS + threadIdx.x; i < count;
         i += step) {
        QuantizerShare share = quantizer_share(grid, x[i], g[i]);
        gx[i] = share.gradient;
        inner += share.inner;
        outer += share.outer;
        clipped += share.clipped;
        zeros += share.zero;
    }
    double totals[4] = {lane_total(inner, 1), lane_total(outer, 1), lane_total(clipped, 1),
                        lane_total(zeros, 1)};
    if (threadIdx.x == 0) {
        for (int k = 0; k < 4; k++) {
            parts[blockIdx.x * 4 + k] = totals[k];
        }
    }
}

// What the blocks left, added up by one more, [4].
extern "C" __global__ void quantize_sums(const double *parts, float *sums, unsigned int blocks) {
    for (unsigned int k = 0; k < 4; k++) {
        double total = column_total(parts, blocks, 4, k, 1);
        if (threadIdx.x == 0) {
            sums[k] = (float)total;
        }
    }
}
