// Sums that do not depend on which thread or block came first. DEVICE is the qualifier of a function
// that is only called from kernels, THREADS the size of a block, a power of two.

// A block's threads may be dealt out to as many lanes as a power of two says, thread by thread: each
// lane has a sum of its own. With one lane it is the whole block's.

// The sum of the value of every thread of a lane, to all of them.
DEVICE double lane_total(double value, unsigned int lanes) {
    __shared__ double parts[THREADS];
    parts[threadIdx.x] = value;
    for (unsigned int half = THREADS / 2; half >= lanes; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) {
            parts[threadIdx.x] += parts[threadIdx.x + half];
        }
    }
    __syncthreads();
    double total = parts[threadIdx.x % lanes];
    // The next sum writes where this one is read.
    __syncthreads();
    return total;
}

// The sum of one column of a lane's table [rows, width], to every thread of the lane.
DEVICE double column_total(const double *table, unsigned int rows, unsigned int width,
                           unsigned int column, unsigned int lanes) {
    double sum = 0.0;
    for (unsigned int row = threadIdx.x / lanes; row < rows; row += THREADS / lanes) {
        sum += table[(unsigned long long)row * width + column];
    }
    return lane_total(sum, lanes);
}
