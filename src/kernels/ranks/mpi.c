/* What of MPI the ranks use: collectives that are begun and then asked after, so that whoever waits can
   also hear that it is to end, and sleeps instead of spinning where ranks share cores. One is in progress
   at a time. Every function returns 0, or MPI's error. */

#include <mpi.h>

static MPI_Request request = MPI_REQUEST_NULL;
static MPI_Comm machine = MPI_COMM_NULL;

/* out: rank, ranks, rank on this machine, ranks on it, whether threads other than the first may call. */
int bitscope_mpi_start(int *out)
{
    int provided = MPI_THREAD_SINGLE;
    int error = MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
    if (error)
        return error;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if ((error = MPI_Comm_rank(MPI_COMM_WORLD, &out[0])) || (error = MPI_Comm_size(MPI_COMM_WORLD, &out[1])) ||
        (error = MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, out[0], MPI_INFO_NULL, &machine)) ||
        (error = MPI_Comm_rank(machine, &out[2])) || (error = MPI_Comm_size(machine, &out[3])))
        return error;
    out[4] = provided >= MPI_THREAD_SERIALIZED;
    return 0;
}

/* Every rank's pair of numbers to all ranks of its machine, one after the other. */
int bitscope_mpi_neighbours(const int *own, int *all)
{
    return MPI_Allgather(own, 2, MPI_INT, all, 2, MPI_INT, machine);
}

/* Every rank's `bytes` bytes to all, one after the other. */
int bitscope_mpi_gather(const void *own, int bytes, void *all)
{
    return MPI_Iallgather(own, bytes, MPI_BYTE, all, bytes, MPI_BYTE, MPI_COMM_WORLD, &request);
}

/* The k-th `bytes` bytes of every rank to rank k, one after the other. */
int bitscope_mpi_exchange(const void *own, int bytes, void *all)
{
    return MPI_Ialltoall(own, bytes, MPI_BYTE, all, bytes, MPI_BYTE, MPI_COMM_WORLD, &request);
}

/* Bytes of rank 0 to all. */
int bitscope_mpi_broadcast(void *values, int bytes)
{
    return MPI_Ibcast(values, bytes, MPI_BYTE, 0, MPI_COMM_WORLD, &request);
}

/* Whether what was begun is done. */
int bitscope_mpi_is_done(int *done)
{
    return MPI_Test(&request, done, MPI_STATUS_IGNORE);
}

void bitscope_mpi_abort(int code)
{
    MPI_Abort(MPI_COMM_WORLD, code);
}

int bitscope_mpi_finish(void)
{
    return MPI_Finalize();
}
