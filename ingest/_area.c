/* Planes of a picture made smaller by area: every pixel of the target is the mean of what it covers of the source, each source
 * pixel weighted by how much of it lies there. Range and offset of the samples change on the way, at no cost. Built where there
 * is a compiler (setup.py); ingest/scaling.py leaves it to swscale where not, whose pixels are a little off these. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { TAPS = 4, ACROSS_BITS = 14, ROUND_BITS = ACROSS_BITS + 8 };

/* What the rows or columns of the target take of the source: pixels from firsts[i] on, TAPS weights each. */
typedef struct {
    const int32_t *firsts;
    const uint16_t *weights;
    Py_ssize_t count;
} Taps;

enum { TAPS_BYTES = 4 + 2 * TAPS }; /* in Python's hands: all firsts, then all weights */

static Taps taps_in(const Py_buffer *made) {
    const Py_ssize_t count = made->len / TAPS_BYTES;
    return (Taps){made->buf, (const uint16_t *)((const char *)made->buf + 4 * count), count};
}

/* Means of `count` rows of `width` samples, in 256ths, less 32768; `weights` sum to 65535. */
static void mean_of_rows(const uint8_t *rows, Py_ssize_t stride, const uint16_t *weights, int count, int width, int16_t *out) {
    int x = 0;
#ifdef __SSE2__
    const __m128i zero = _mm_setzero_si128(), bias = _mm_set1_epi16((short)0x8000);
    for (; x + 16 <= width; x += 16) {
        __m128i low = bias, high = bias;
        for (int k = 0; k < count; k++) {
            const __m128i row = _mm_loadu_si128((const __m128i *)(rows + k * stride + x));
            const __m128i weight = _mm_set1_epi16((short)weights[k]);
            low = _mm_add_epi16(low, _mm_mulhi_epu16(_mm_unpacklo_epi8(zero, row), weight));
            high = _mm_add_epi16(high, _mm_mulhi_epu16(_mm_unpackhi_epi8(zero, row), weight));
        }
        _mm_storeu_si128((__m128i *)(out + x), low);
        _mm_storeu_si128((__m128i *)(out + x + 8), high);
    }
#endif
    for (; x < width; x++) {
        int32_t sum = -32768;
        for (int k = 0; k < count; k++) sum += (int32_t)(((uint32_t)rows[k * stride + x] << 8) * weights[k] >> 16);
        out[x] = (int16_t)sum;
    }
}

/* Means along such a row, `offset` added, rounded down, as samples. */
static void mean_along(const int16_t *row, Taps taps, int32_t offset, uint8_t *out) {
    Py_ssize_t x = 0;
#ifdef __SSE2__
    const __m128i add = _mm_set1_epi32(offset);
    for (; x + 8 <= taps.count; x += 8) {
        __m128i sums[2];
        for (int half = 0; half < 2; half++) {
            const int32_t *first = taps.firsts + x + 4 * half;
            const __m128i *weights = (const __m128i *)(taps.weights + TAPS * (x + 4 * half));
            __m128i pairs[2]; /* of targets: four products each, summed two by two */
            for (int i = 0; i < 2; i++) {
                const __m128i four = _mm_loadl_epi64((const __m128i *)(row + first[2 * i]));
                const __m128 both = _mm_loadh_pi(_mm_castsi128_ps(four), (const __m64 *)(row + first[2 * i + 1]));
                pairs[i] = _mm_madd_epi16(_mm_castps_si128(both), _mm_loadu_si128(weights + i));
            }
            const __m128 a = _mm_castsi128_ps(pairs[0]), b = _mm_castsi128_ps(pairs[1]);
            const __m128i even = _mm_castps_si128(_mm_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)));
            const __m128i odd = _mm_castps_si128(_mm_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
            sums[half] = _mm_srai_epi32(_mm_add_epi32(_mm_add_epi32(even, odd), add), ROUND_BITS);
        }
        const __m128i words = _mm_packs_epi32(sums[0], sums[1]);
        _mm_storel_epi64((__m128i *)(out + x), _mm_packus_epi16(words, words));
    }
#endif
    for (; x < taps.count; x++) {
        int32_t sum = offset;
        for (int k = 0; k < TAPS; k++) sum += row[taps.firsts[x] + k] * (int32_t)taps.weights[TAPS * x + k];
        sum >>= ROUND_BITS;
        out[x] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
}

PyDoc_STRVAR(taps_doc, "taps(source, target, unit) -> bytes\n\n"
                       "What each of `target` pixels in a row takes of `source` ones: weights that sum to `unit`.\n"
                       "Raises: ValueError unless target <= source <= 3 target.");

static PyObject *taps(PyObject *self, PyObject *args) {
    int source, target, unit;
    (void)self;
    if (!PyArg_ParseTuple(args, "iii", &source, &target, &unit)) return NULL;
    if (target < 1 || source < target || source > 3LL * target || unit < 1 || unit > 65535) {
        PyErr_SetString(PyExc_ValueError, "scaled is down to a third at most, with a unit of 1 to 65535");
        return NULL;
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)target * TAPS_BYTES);
    if (!made) return NULL;
    int32_t *firsts = (int32_t *)PyBytes_AS_STRING(made);
    uint16_t *weights = memset(firsts + target, 0, (size_t)target * TAPS * sizeof *weights);
    for (int64_t i = 0; i < target; i++) {
        /* In units of 1 / target of a source pixel: from i * source, as long as `source`. */
        const int64_t begin = i * source, end = begin + source;
        int64_t covered = 0, given = 0;
        firsts[i] = (int32_t)(begin / target);
        for (int k = 0; covered < source; k++) {
            const int64_t until = (firsts[i] + k + 1LL) * target;
            covered = (until < end ? until : end) - begin;
            const int64_t so_far = (2 * covered * unit + source) / (2 * source); /* rounded, so that the sum is exact */
            weights[TAPS * i + k] = (uint16_t)(so_far - given);
            given = so_far;
        }
    }
    return made;
}

PyDoc_STRVAR(scale_doc,
             "scale(plane, stride, width, height, across, down, offset, out, out_stride) -> None\n\n"
             "A plane of `width` x `height` samples, `stride` bytes from row to row, into `out`, of as many columns and rows as\n"
             "there are taps `across` (unit: 16384 times the factor of the range) and `down` (unit 65535). `offset` is added to\n"
             "every sample. Raises: ValueError for taps of another size, or buffers that are too small.");

static int fit(Taps taps, Py_ssize_t num_bytes, int source) {
    if (taps.count < 1 || num_bytes % TAPS_BYTES) return 0;
    for (Py_ssize_t i = 0; i < taps.count; i++) {
        int last = TAPS - 1;
        while (last && !taps.weights[TAPS * i + last]) last--;
        if (taps.firsts[i] < 0 || taps.firsts[i] + last >= source) return 0;
    }
    return 1;
}

static PyObject *scale(PyObject *self, PyObject *args) {
    Py_buffer plane, across, down, out;
    Py_ssize_t stride, out_stride;
    int width, height;
    double offset;
    PyObject *result = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*niiy*y*dw*n", &plane, &stride, &width, &height, &across, &down, &offset, &out,
                          &out_stride))
        return NULL;
    const Taps along = taps_in(&across), below = taps_in(&down);
    int16_t *row = NULL;
    int32_t unit = 0;
    for (int k = 0; k < TAPS && along.count; k++) unit += along.weights[k];
    if (width < 1 || height < 1 || stride < width || (height - 1) * stride + width > plane.len ||
        !fit(along, across.len, width) || !fit(below, down.len, height) || out_stride < along.count ||
        (below.count - 1) * out_stride + along.count > out.len ||
        !((fabs(offset) + 1) * (1 << ROUND_BITS) + unit * 65536.0 < INT32_MAX)) { /* the largest sum */
        PyErr_SetString(PyExc_ValueError, "the taps are of another size, a buffer is too small or the range too large");
        goto release;
    }
    if (!(row = PyMem_Calloc((size_t)width + TAPS, sizeof *row))) { /* taps of no weight may lie past the end */
        PyErr_NoMemory();
        goto release;
    }
    Py_BEGIN_ALLOW_THREADS
    const int32_t add = (int32_t)((offset + 0.5) * (1 << ROUND_BITS)) + unit * 32768;
    for (Py_ssize_t y = 0; y < below.count; y++) {
        const uint16_t *weights = below.weights + TAPS * y;
        int count = TAPS;
        while (count > 1 && !weights[count - 1]) count--;
        mean_of_rows((const uint8_t *)plane.buf + below.firsts[y] * stride, stride, weights, count, width, row);
        mean_along(row, along, add, (uint8_t *)out.buf + y * out_stride);
    }
    Py_END_ALLOW_THREADS
    PyMem_Free(row);
    result = Py_NewRef(Py_None);
release:
    PyBuffer_Release(&plane);
    PyBuffer_Release(&across);
    PyBuffer_Release(&down);
    PyBuffer_Release(&out);
    return result;
}

static PyMethodDef methods[] = {{"taps", taps, METH_VARARGS, taps_doc},
                                {"scale", scale, METH_VARARGS, scale_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_area", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__area(void) {
    return PyModule_Create(&module);
}
