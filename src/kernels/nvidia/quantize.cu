// The quantizer on the card: one pass over memory forward, one backward. Compiled at run time,
// behind element.cuh.

extern "C" __global__ void quantize_forward(
    const float *x, float *y, unsigned long long count, QuantizerGrid grid) {
    unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
    for (unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
         i < count; i += step) {
        y[i] = quantize(grid, x[i]);
    }
}

// Each block leaves its own sums, [blocks, 4]: added up in order by whoever launches, they do not
// depend on which block came first. THREADS is the size of a block, a power of two.
extern "C" __global__ void quantize_backward(
    const float *x, const float *g, float *gx, double *sums, unsigned long long count,
    QuantizerGrid grid) {
    __shared__ double parts[4][THREADS];
    float inner = 0.0f, outer = 0.0f, clipped = 0.0f, zeros = 0.0f;
    unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
    for (unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x;
         i < count; i += step) {
        QuantizerShare share = quantize_backward(grid, x[i], g[i]);
        gx[i] = share.gradient;
        inner += share.inner;
        outer += share.outer;
        clipped += share.clipped;
        zeros += share.zero;
    }
    parts[0][threadIdx.x] = inner;
    parts[1][threadIdx.x] = outer;
    parts[2][threadIdx.x] = clipped;
    parts[3][threadIdx.x] = zeros;
    for (unsigned int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            for (int k = 0; k < 4; k++) {
                parts[k][threadIdx.x] += parts[k][threadIdx.x + half];
            }
        }
    }
    if (threadIdx.x == 0) {
        for (int k = 0; k < 4; k++) {
            sums[blockIdx.x * 4 + k] = parts[k][0];
        }
    }
}
