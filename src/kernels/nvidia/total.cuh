// Sums that do not depend on which thread or block came first. DEVICE is the qualifier of a function
// that is only called from kernels, THREADS the size of a block, a power of two.

// The sum of every thread's value, to every thread of the block.
DEVICE double block_total(double value) {
    __shared__ double parts[THREADS];
    parts[threadIdx.x] = value;
    for (unsigned int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            parts[threadIdx.x] += parts[threadIdx.x + half];
        }
    }
    __syncthreads();
    double total = parts[0];
    // The next sum writes where this one is read.
    __syncthreads();
    return total;
}

// The sum of one column of [rows, width], to every thread of the block.
DEVICE double column_total(const double *table, unsigned int rows, unsigned int width,
                           unsigned int column) {
    double sum = 0.0;
    for (unsigned int row = threadIdx.x; row < rows; row += THREADS) {
        sum += table[(unsigned long long)row * width + column];
    }
    return block_total(sum);
}
