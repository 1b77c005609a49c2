// A stand-in for cuBLAS that computes matrix products on the host in the plainest way: it checks how a program passes
// its operands, column-major leading dimensions and transpositions included. Goes with fakecuda.c.
//
// build: cc -shared -fPIC -o libcublas.so.12 fakecublas.c
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum { F32 = 0, F16 = 2, BF16 = 14 };
enum { COMPUTE_F32 = 68, COMPUTE_F32_PEDANTIC = 69, COMPUTE_FAST_BF16 = 75, COMPUTE_FAST_TF32 = 77 };

static int handle, configured;

int cublasCreate_v2(void **out) { *out = &handle; return SUCCESS; }
int cublasDestroy_v2(void *h) { return SUCCESS; }
int cublasGetVersion_v2(void *h, int *version) { *version = 120400; return SUCCESS; }
int cublasSetStream_v2(void *h, void *stream) { return SUCCESS; }
int cublasSetMathMode(void *h, int mode) { return SUCCESS; }
int cublasSetWorkspace_v2(void *h, void *workspace, size_t bytes) { configured = workspace && bytes >= (1 << 20); return configured ? SUCCESS : INVALID_VALUE; }

static float element(const void *matrix, int type, ptrdiff_t at) {
    if (type == F32) return ((const float *)matrix)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)matrix)[at] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// op(X)[row, column] of a column-major matrix X with leading dimension ld.
static float operand(const void *x, int type, int transposed, int ld, int row, int column) {
    return element(x, type, transposed ? column + (ptrdiff_t)row * ld : row + (ptrdiff_t)column * ld);
}

int cublasGemmEx(void *h, int transpose_a, int transpose_b, int m, int n, int k, const float *alpha,
                 const void *a, int a_type, int lda, const void *b, int b_type, int ldb, const float *beta,
                 void *c, int c_type, int ldc, int compute, int algorithm) {
    if (!configured || c_type != F32 || (a_type != F32 && a_type != BF16) || a_type != b_type) return NOT_SUPPORTED;
    if (compute != COMPUTE_F32 && compute != COMPUTE_F32_PEDANTIC && compute != COMPUTE_FAST_BF16 && compute != COMPUTE_FAST_TF32) return NOT_SUPPORTED;
    if (lda < (transpose_a ? k : m) || ldb < (transpose_b ? n : k) || ldc < m) return INVALID_VALUE;
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            double sum = 0;
            for (int q = 0; q < k; q++) sum += (double)operand(a, a_type, transpose_a, lda, i, q) * operand(b, b_type, transpose_b, ldb, q, j);
            float *y = (float *)c + i + (ptrdiff_t)j * ldc;
            *y = (float)(*alpha * sum) + (*beta == 0 ? 0 : *beta * *y);
        }
    }
    return SUCCESS;
}
