/* Planes of a picture, YUV: made smaller by area, stretched to full range, and turned into RGB. Built where there is a compiler
 * (setup.py); where not, ingest/scaling.py leaves it to swscale and OpenCV.
 *
 * By area: every pixel of the target is the mean of what it covers of the source, each source pixel weighted by how much of it
 * lies there. Range and offset of the samples change on the way, at no cost. swscale's pixels are a little off these.
 *
 * Everything is there in plain C, and what takes time for x86 with AVX2 and AVX-512 too, with the same results to the last bit.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx2,avx512f,avx512bw")))
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

enum { TAPS = 4, ACROSS_BITS = 14, ROUND_BITS = ACROSS_BITS + 8, DOWN_UNIT = 0xFFFF, GROUP = 8, WINDOW = 32 };

/* What the rows or columns of the target take of `source` pixels: from firsts[i] on, TAPS weights each, that sum to `unit`. All
 * that a group of GROUP takes lies within WINDOW pixels of its first one; `picks` are the places therein. */
typedef struct {
    Py_ssize_t source, count;
    int32_t unit;
    uint16_t *weights, *picks;
    int32_t firsts[];
} Taps;

/* Samples of a plane, `stride` bytes from row to row, the last row `width` long. */
typedef struct {
    uint8_t *data;
    Py_ssize_t width, height, stride;
} Plane;

INLINE uint8_t clipped(int32_t value) {
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Smaller by area */

/* Means of `count` rows of `width` samples, in 256ths, less 32768; `weights` sum to 65535. */
typedef void Means(const uint8_t *rows, Py_ssize_t stride, const uint16_t *weights, int count, Py_ssize_t width, int16_t *out);

static void means_plain(const uint8_t *restrict rows, Py_ssize_t stride, const uint16_t *weights, int count, Py_ssize_t width,
                        int16_t *restrict out) {
    for (Py_ssize_t x = 0; x < width; x++) out[x] = -32768;
    for (int k = 0; k < count; k++, rows += stride) {
        const uint32_t weight = weights[k];
        for (Py_ssize_t x = 0; x < width; x++)
            out[x] = (int16_t)(out[x] + (uint16_t)((uint32_t)(uint16_t)(rows[x] << 8) * weight >> 16));
    }
}

/* `count` pixels of a row of the target: means along such a row, `offset` added, rounded down. */
typedef void Along(const int16_t *row, const Taps *taps, int32_t offset, uint8_t *out, Py_ssize_t count);

static void along_plain(const int16_t *restrict row, const Taps *taps, int32_t offset, uint8_t *restrict out, Py_ssize_t count) {
    const int32_t *restrict firsts = taps->firsts;
    const uint16_t *restrict weights = taps->weights;
    for (Py_ssize_t x = 0; x < count; x++, weights += TAPS) {
        const int16_t *four = row + firsts[x];
        const int32_t sum = four[0] * weights[0] + four[1] * weights[1] + four[2] * weights[2] + four[3] * weights[3];
        out[x] = clipped((sum + offset) >> ROUND_BITS);
    }
}

INLINE void shrink(Plane from, const Taps *across, const Taps *down, int32_t offset, Plane to, int16_t *row, Means *means,
                   Along *along) {
    for (Py_ssize_t y = 0; y < to.height; y++) {
        const uint16_t *weights = down->weights + TAPS * y;
        const int count = weights[3] ? 4 : weights[2] ? 3 : weights[1] ? 2 : 1;
        means(from.data + down->firsts[y] * from.stride, from.stride, weights, count, from.width, row);
        along(row, across, offset, to.data + y * to.stride, to.width);
    }
}

static void shrink_plain(Plane from, const Taps *across, const Taps *down, int32_t offset, Plane to, int16_t *row) {
    shrink(from, across, down, offset, to, row, means_plain, along_plain);
}

/* Range */

enum { STRETCH_BITS = 7 };

/* A row times `factor` / 2^15, less `less` / 2^STRETCH_BITS, rounded down, as samples. */
typedef void Stretched(const uint8_t *row, uint16_t factor, uint16_t less, Py_ssize_t width, uint8_t *out);

static void stretched_plain(const uint8_t *row, uint16_t factor, uint16_t less, Py_ssize_t width, uint8_t *out) {
    for (Py_ssize_t x = 0; x < width; x++) {
        const int32_t value = (int32_t)((row[x] << 8) * (uint32_t)factor >> 16) - less;
        out[x] = clipped((value < 0 ? 0 : value) >> STRETCH_BITS);
    }
}

INLINE void stretch(Plane from, uint16_t factor, uint16_t less, Plane to, Stretched *stretched) {
    for (Py_ssize_t y = 0; y < to.height; y++)
        stretched(from.data + y * from.stride, factor, less, to.width, to.data + y * to.stride);
}

static void stretch_plain(Plane from, uint16_t factor, uint16_t less, Plane to) {
    stretch(from, factor, less, to, stretched_plain);
}

/* RGB */

/* A row of `count` colour samples, twice as long, in quarters: each new one has 3/4 of the nearer and 1/4 of the next. */
INLINE void widened(const uint8_t *restrict row, Py_ssize_t count, uint16_t *restrict out) {
    out[0] = (uint16_t)(4 * row[0]);
    for (Py_ssize_t x = 0; x < count - 1; x++) {
        out[2 * x + 1] = (uint16_t)(3 * row[x] + row[x + 1]);
        out[2 * x + 2] = (uint16_t)(row[x] + 3 * row[x + 1]);
    }
    out[2 * count - 1] = (uint16_t)(4 * row[count - 1]);
}

/* The same between two such rows, less 128, rounded as OpenCV rounds. */
INLINE int32_t between(uint16_t near, uint16_t far) {
    return (((far >> 2) + (3 * near >> 2) + 2) >> 2) - 128;
}

/* OpenCV's numbers for YCrCb, in 2^14ths: JFIF's 1.402, -0.344, -0.714, 1.772 to within 0.001. */
enum { RED = 22987, GREEN_OF_BLUE = -5636, GREEN_OF_RED = -11698, BLUE = 29049 };

/* A row of RGB. */
static void coloured_plain(const uint8_t *y, const uint16_t *u, const uint16_t *u_far, const uint16_t *v, const uint16_t *v_far,
                           Py_ssize_t width, uint8_t *out) {
    const int32_t half = 1 << 13;
    for (Py_ssize_t x = 0; x < width; x++) {
        const int32_t blue = between(u[x], u_far[x]), red = between(v[x], v_far[x]);
        out[3 * x] = clipped(y[x] + ((RED * red + half) >> 14));
        out[3 * x + 1] = clipped(y[x] + ((GREEN_OF_BLUE * blue + GREEN_OF_RED * red + half) >> 14));
        out[3 * x + 2] = clipped(y[x] + ((BLUE * blue + half) >> 14));
    }
}

typedef void Coloured(const uint8_t *y, const uint16_t *u, const uint16_t *u_far, const uint16_t *v, const uint16_t *v_far,
                      Py_ssize_t width, uint8_t *out);

/* `rows` has room for four rows of colours of twice their width. */
INLINE void colour(Plane y, Plane u, Plane v, uint8_t *out, uint16_t *rows, Coloured *coloured) {
    uint16_t *us[2] = {rows, rows + 2 * u.width}, *vs[2] = {rows + 4 * u.width, rows + 6 * u.width};
    Py_ssize_t ready = 0;
    for (Py_ssize_t row = 0; row < y.height; row++) {
        const Py_ssize_t near = row / 2, beside = row % 2 ? near + 1 : near - 1;
        const Py_ssize_t far = beside < 0 || beside == u.height ? near : beside;
        for (; ready <= near || ready <= far; ready++) {
            widened(u.data + ready * u.stride, u.width, us[ready % 2]);
            widened(v.data + ready * v.stride, v.width, vs[ready % 2]);
        }
        coloured(y.data + row * y.stride, us[near % 2], us[far % 2], vs[near % 2], vs[far % 2], y.width,
                 out + 3 * row * y.width);
    }
}

static void colour_plain(Plane y, Plane u, Plane v, uint8_t *out, uint16_t *rows) {
    colour(y, u, v, out, rows, coloured_plain);
}

#ifdef AVX2

AVX2 static void means_avx2(const uint8_t *rows, Py_ssize_t stride, const uint16_t *weights, int count, Py_ssize_t width,
                            int16_t *out) {
    if (width < 32) {
        means_plain(rows, stride, weights, count, width, out);
        return;
    }
    const __m256i zero = _mm256_setzero_si256(), bias = _mm256_set1_epi16((short)0x8000);
    __m256i by[TAPS];
    for (int k = 0; k < count; k++) by[k] = _mm256_set1_epi16((short)weights[k]);
    for (Py_ssize_t x = 0; x < width; x += 32) {
        if (x > width - 32) x = width - 32; /* the last ones, some of them again */
        __m256i low = bias, high = bias; /* of each half: its first eight, its last eight */
        for (int k = 0; k < count; k++) {
            const __m256i samples = _mm256_loadu_si256((const __m256i *)(rows + k * stride + x));
            low = _mm256_add_epi16(low, _mm256_mulhi_epu16(_mm256_unpacklo_epi8(zero, samples), by[k]));
            high = _mm256_add_epi16(high, _mm256_mulhi_epu16(_mm256_unpackhi_epi8(zero, samples), by[k]));
        }
        _mm256_storeu_si256((__m256i *)(out + x), _mm256_permute2x128_si256(low, high, 0x20));
        _mm256_storeu_si256((__m256i *)(out + x + 16), _mm256_permute2x128_si256(low, high, 0x31));
    }
}

/* Pixels x to x + 7 of the target. */
AVX2 INLINE void eight_along_avx2(const int16_t *row, const Taps *taps, __m256i offset, Py_ssize_t x, uint8_t *out) {
    const int32_t *first = taps->firsts + x;
    const __m256i *weights = (const __m256i *)(taps->weights + TAPS * x);
    __m256i products[2]; /* of four targets each: four products, summed two by two */
    for (int i = 0; i < 2; i++, first += 4) {
        const __m128i a = _mm_loadl_epi64((const __m128i *)(row + first[0]));
        const __m128i c = _mm_loadl_epi64((const __m128i *)(row + first[2]));
        const __m128 ab = _mm_loadh_pi(_mm_castsi128_ps(a), (const __m64 *)(row + first[1]));
        const __m128 cd = _mm_loadh_pi(_mm_castsi128_ps(c), (const __m64 *)(row + first[3]));
        const __m256 four = _mm256_insertf128_ps(_mm256_castps128_ps256(ab), cd, 1);
        products[i] = _mm256_madd_epi16(_mm256_castps_si256(four), _mm256_loadu_si256(weights + i));
    }
    const __m256i sums = _mm256_hadd_epi32(products[0], products[1]); /* of targets 0 1 4 5, 2 3 6 7 */
    const __m256i means = _mm256_srai_epi32(_mm256_add_epi32(sums, offset), ROUND_BITS);
    const __m128i low = _mm256_castsi256_si128(means), high = _mm256_extracti128_si256(means, 1);
    const __m128i words = _mm_packs_epi32(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high));
    _mm_storel_epi64((__m128i *)(out + x), _mm_packus_epi16(words, words));
}

AVX2 static void along_avx2(const int16_t *row, const Taps *taps, int32_t offset, uint8_t *out, Py_ssize_t count) {
    if (count < GROUP) {
        along_plain(row, taps, offset, out, count);
        return;
    }
    const __m256i add = _mm256_set1_epi32(offset);
    for (Py_ssize_t x = 0; x + GROUP <= count; x += GROUP) eight_along_avx2(row, taps, add, x, out);
    if (count % GROUP) eight_along_avx2(row, taps, add, count - GROUP, out); /* the last ones, some of them again */
}

AVX2 static void shrink_avx2(Plane from, const Taps *across, const Taps *down, int32_t offset, Plane to, int16_t *row) {
    shrink(from, across, down, offset, to, row, means_avx2, along_avx2);
}

AVX512 static void along_avx512(const int16_t *row, const Taps *taps, int32_t offset, uint8_t *out, Py_ssize_t count) {
    if (count < GROUP) {
        along_plain(row, taps, offset, out, count);
        return;
    }
    const __m512i add = _mm512_set1_epi32(offset), zero = _mm512_setzero_si512();
    for (Py_ssize_t x = 0; x + GROUP <= count; x += GROUP) {
        const __m512i window = _mm512_loadu_si512(row + taps->firsts[x]);
        const __m512i taken = _mm512_permutexvar_epi16(_mm512_loadu_si512(taps->picks + TAPS * x), window);
        const __m512i pairs = _mm512_madd_epi16(taken, _mm512_loadu_si512(taps->weights + TAPS * x));
        const __m512i sums = _mm512_add_epi32(_mm512_add_epi32(pairs, _mm512_srli_epi64(pairs, 32)), add);
        const __m512i means = _mm512_srai_epi32(sums, ROUND_BITS); /* every second one is of a target */
        const __m512i alone = _mm512_maskz_max_epi32(0x5555, means, zero);
        _mm_storel_epi64((__m128i *)(out + x), _mm512_cvtusepi64_epi8(alone));
    }
    if (count % GROUP) eight_along_avx2(row, taps, _mm256_set1_epi32(offset), count - GROUP, out);
}

AVX512 static void shrink_avx512(Plane from, const Taps *across, const Taps *down, int32_t offset, Plane to, int16_t *row) {
    shrink(from, across, down, offset, to, row, means_avx2, along_avx512);
}

AVX2 static void stretched_avx2(const uint8_t *row, uint16_t factor, uint16_t less, Py_ssize_t width, uint8_t *out) {
    if (width < 32) {
        stretched_plain(row, factor, less, width, out);
        return;
    }
    const __m256i by = _mm256_set1_epi16((short)factor), down = _mm256_set1_epi16((short)less);
    for (Py_ssize_t x = 0; x < width; x += 32) {
        if (x > width - 32) x = width - 32; /* the last ones, some of them again */
        const __m256i samples = _mm256_loadu_si256((const __m256i *)(row + x)), zero = _mm256_setzero_si256();
        const __m256i low = _mm256_mulhi_epu16(_mm256_unpacklo_epi8(zero, samples), by);
        const __m256i high = _mm256_mulhi_epu16(_mm256_unpackhi_epi8(zero, samples), by);
        const __m256i made = _mm256_packus_epi16(_mm256_srli_epi16(_mm256_subs_epu16(low, down), STRETCH_BITS),
                                                 _mm256_srli_epi16(_mm256_subs_epu16(high, down), STRETCH_BITS));
        _mm256_storeu_si256((__m256i *)(out + x), made);
    }
}

AVX2 static void stretch_avx2(Plane from, uint16_t factor, uint16_t less, Plane to) {
    stretch(from, factor, less, to, stretched_avx2);
}

AVX2 INLINE __m256i between_16(const uint16_t *near, const uint16_t *far) {
    const __m256i three = _mm256_mullo_epi16(_mm256_loadu_si256((const __m256i *)near), _mm256_set1_epi16(3));
    const __m256i sum = _mm256_add_epi16(_mm256_srli_epi16(_mm256_loadu_si256((const __m256i *)far), 2),
                                         _mm256_srli_epi16(three, 2));
    return _mm256_sub_epi16(_mm256_srli_epi16(_mm256_add_epi16(sum, _mm256_set1_epi16(2)), 2), _mm256_set1_epi16(128));
}

AVX2 INLINE __m128i samples_16(__m256i y, __m256i more) {
    const __m256i sum = _mm256_add_epi16(y, more);
    return _mm_packus_epi16(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
}

/* Of 16 pixels of a channel, in the order in which the bytes of three times 16 want them: byte i of the part that has it. */
static const int8_t SPREAD[3][16] = {{0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15, 10, 5},
                                     {5, 0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15, 10},
                                     {10, 5, 0, 11, 6, 1, 12, 7, 2, 13, 8, 3, 14, 9, 4, 15}};
static const int8_t EVERY_THIRD[2][16] = {{-1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1},
                                          {0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0, -1, 0, 0}};

AVX2 static void coloured_avx2(const uint8_t *y, const uint16_t *u, const uint16_t *u_far, const uint16_t *v,
                               const uint16_t *v_far, Py_ssize_t width, uint8_t *out) {
    if (width < 16) {
        coloured_plain(y, u, u_far, v, v_far, width, out);
        return;
    }
    const __m256i green_of = _mm256_set1_epi32((GREEN_OF_RED * 65536) | (GREEN_OF_BLUE & 0xFFFF));
    const __m256i half = _mm256_set1_epi32(1 << 13);
    const __m128i first = _mm_loadu_si128((const __m128i *)EVERY_THIRD[0]), second = _mm_loadu_si128((const __m128i *)EVERY_THIRD[1]);
    for (Py_ssize_t x = 0; x < width; x += 16) {
        if (x > width - 16) x = width - 16; /* the last sixteen, some of them again */
        const __m256i bright = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(y + x)));
        const __m256i blue = between_16(u + x, u_far + x), red = between_16(v + x, v_far + x);
        const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(blue, red), green_of);
        const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(blue, red), green_of);
        const __m256i green = _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(low, half), 14),
                                                 _mm256_srai_epi32(_mm256_add_epi32(high, half), 14));
        /* mulhrs is a * b / 2^15, rounded half up. */
        const __m128i rgb[3] = {
            samples_16(bright, _mm256_mulhrs_epi16(_mm256_slli_epi16(red, 1), _mm256_set1_epi16(RED))),
            samples_16(bright, green),
            samples_16(bright, _mm256_mulhrs_epi16(_mm256_slli_epi16(blue, 1), _mm256_set1_epi16(BLUE))),
        };
        __m128i spread[3];
        for (int i = 0; i < 3; i++) spread[i] = _mm_shuffle_epi8(rgb[i], _mm_loadu_si128((const __m128i *)SPREAD[i]));
        for (int part = 0; part < 3; part++) { /* 16 bytes each; byte 0 is of channel `part`, as 16 = 1 mod 3 */
            const __m128i bytes = _mm_blendv_epi8(spread[(part + 2) % 3], spread[part], first);
            _mm_storeu_si128((__m128i *)(out + 3 * x) + part, _mm_blendv_epi8(bytes, spread[(part + 1) % 3], second));
        }
    }
}

AVX2 static void colour_avx2(Plane y, Plane u, Plane v, uint8_t *out, uint16_t *rows) {
    colour(y, u, v, out, rows, coloured_avx2);
}

#endif

/* What there is for one kind of processor. */
typedef struct {
    void (*shrink)(Plane from, const Taps *across, const Taps *down, int32_t offset, Plane to, int16_t *row);
    void (*stretch)(Plane from, uint16_t factor, uint16_t less, Plane to);
    void (*colour)(Plane y, Plane u, Plane v, uint8_t *out, uint16_t *rows);
} Build;

static const Build builds[] = {
    {shrink_plain, stretch_plain, colour_plain},
#ifdef AVX2
    {shrink_avx2, stretch_avx2, colour_avx2},
    {shrink_avx512, stretch_avx2, colour_avx2},
#endif
};
static int best = 0; /* of this processor, once the module has begun */

static int best_build(void) {
#ifdef AVX2
    if (__builtin_cpu_supports("avx512bw")) return 2;
    if (__builtin_cpu_supports("avx2")) return 1;
#endif
    return 0;
}

/* For Python */

static const char *const TAPS_NAME = "ingest._planes.taps";

static void free_taps(PyObject *capsule) {
    PyMem_Free(PyCapsule_GetPointer(capsule, TAPS_NAME));
}

PyDoc_STRVAR(taps_doc, "taps(source, target, unit, count) -> taps\n\n"
                       "What each of `target` pixels in a row takes of `source` ones: weights that sum to `unit`. Beyond `target`, up\n"
                       "to `count`, pixels are as the last one. Raises: ValueError unless target <= source <= 3 target.");

static PyObject *py_taps(PyObject *self, PyObject *args) {
    int source, target, unit, count;
    (void)self;
    if (!PyArg_ParseTuple(args, "iiii", &source, &target, &unit, &count)) return NULL;
    if (target < 1 || source < target || source > 3LL * target || unit < 1 || unit > DOWN_UNIT || count < target) {
        PyErr_SetString(PyExc_ValueError, "scaled is down to a third at most, with a unit of 1 to 65535");
        return NULL;
    }
    Taps *made = PyMem_Calloc(1, sizeof *made + (size_t)count * (sizeof *made->firsts + 2 * TAPS * sizeof *made->weights));
    if (!made) return PyErr_NoMemory();
    made->source = source, made->count = count, made->unit = unit;
    made->weights = (uint16_t *)(made->firsts + count), made->picks = made->weights + TAPS * count;
    for (int64_t i = 0; i < count; i++) {
        /* In units of 1 / target of a source pixel: from i * source, as long as `source`. */
        const int64_t begin = (i < target ? i : target - 1) * source, end = begin + source;
        int64_t covered = 0, given = 0;
        made->firsts[i] = (int32_t)(begin / target);
        for (int k = 0; covered < source; k++) {
            const int64_t until = (made->firsts[i] + k + 1LL) * target;
            covered = (until < end ? until : end) - begin;
            const int64_t so_far = (2 * covered * unit + source) / (2 * source); /* rounded, so that the sum is exact */
            made->weights[TAPS * i + k] = (uint16_t)(so_far - given);
            given = so_far;
        }
        for (int k = 0; k < TAPS; k++)
            made->picks[TAPS * i + k] = (uint16_t)(made->firsts[i] - made->firsts[i / GROUP * GROUP] + k);
    }
    PyObject *capsule = PyCapsule_New(made, TAPS_NAME, free_taps);
    if (!capsule) PyMem_Free(made);
    return capsule;
}

/* Whether this processor runs a build; an error if not. */
static int has(int build) {
    if (build >= 0 && build <= best) return 1;
    PyErr_Format(PyExc_ValueError, "builds here are 0 to %d", best);
    return 0;
}

/* An object's samples, uint8 (H, W), rows not packed; 0 and an error if it has none. To be released if not. */
static int plane_of(PyObject *object, int writable, Py_buffer *view, Plane *plane) {
    if (PyObject_GetBuffer(object, view, PyBUF_STRIDES | (writable ? PyBUF_WRITABLE : 0)) < 0) return 0;
    const Py_ssize_t height = view->ndim == 2 ? view->shape[0] : 0, width = height ? view->shape[1] : 0;
    const Py_ssize_t stride = height > 1 ? view->strides[0] : width;
    if (width < 1 || view->itemsize != 1 || (width > 1 && view->strides[1] != 1) || stride < width) {
        PyErr_SetString(PyExc_ValueError, "a plane is uint8 (H, W), row below row");
        PyBuffer_Release(view);
        return 0;
    }
    *plane = (Plane){view->buf, width, height, stride};
    return 1;
}

static void release(Py_buffer *views, int count) {
    while (count) PyBuffer_Release(&views[--count]);
}

/* The same of several, all or none; `written` is the place of the one that is written to, if any. */
static int planes_of(PyObject *const *objects, int count, int written, Py_buffer *views, Plane *planes) {
    for (int i = 0; i < count; i++) {
        if (!plane_of(objects[i], i == written, &views[i], &planes[i])) {
            release(views, i);
            return 0;
        }
    }
    return 1;
}

static PyObject *py_scale(PyObject *self, PyObject *args) {
    PyObject *objects[2], *across_object, *down_object, *result = NULL;
    double offset;
    int build = best;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOdO|i", &objects[0], &across_object, &down_object, &offset, &objects[1], &build) ||
        !has(build))
        return NULL;
    const Taps *across = PyCapsule_GetPointer(across_object, TAPS_NAME);
    const Taps *down = across ? PyCapsule_GetPointer(down_object, TAPS_NAME) : NULL;
    Py_buffer views[2];
    Plane planes[2];
    if (!down || !planes_of(objects, 2, 1, views, planes)) return NULL;
    const Plane from = planes[0], to = planes[1];
    int16_t *row = NULL;
    if (from.width != across->source || from.height != down->source || to.width > across->count || to.height > down->count ||
        down->unit != DOWN_UNIT || !((fabs(offset) + 1) * (1 << ROUND_BITS) + across->unit * 65536.0 < INT32_MAX)) {
        PyErr_SetString(PyExc_ValueError, "the taps are for planes of another size, or the range is too large");
    } else if (!(row = PyMem_Calloc((size_t)from.width + WINDOW, sizeof *row))) { /* what has no weight may lie past its end */
        PyErr_NoMemory();
    } else {
        const int32_t add = (int32_t)((offset + 0.5) * (1 << ROUND_BITS)) + across->unit * 32768;
        Py_BEGIN_ALLOW_THREADS
        builds[build].shrink(from, across, down, add, to, row);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyMem_Free(row);
    release(views, 2);
    return result;
}

static PyObject *py_stretch(PyObject *self, PyObject *args) {
    PyObject *objects[2], *result = NULL;
    double factor, offset;
    int build = best;
    (void)self;
    if (!PyArg_ParseTuple(args, "OddO|i", &objects[0], &factor, &offset, &objects[1], &build) || !has(build)) return NULL;
    const double scaled = round(factor * (1 << 15)), less = ceil((-offset - 0.5) * (1 << STRETCH_BITS));
    Py_buffer views[2];
    Plane planes[2];
    if (!planes_of(objects, 2, 1, views, planes)) return NULL;
    const Plane from = planes[0], to = planes[1];
    if (from.width != to.width || from.height != to.height || !(scaled >= 0 && scaled <= 65535 && less >= 0 && less <= 65535)) {
        PyErr_SetString(PyExc_ValueError, "the planes are of different sizes, or the range is no narrower one");
    } else {
        Py_BEGIN_ALLOW_THREADS
        builds[build].stretch(from, (uint16_t)scaled, (uint16_t)less, to);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    release(views, 2);
    return result;
}

static PyObject *py_rgb(PyObject *self, PyObject *args) {
    PyObject *objects[3], *out_object, *result = NULL;
    int build = best;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOOO|i", &objects[0], &objects[1], &objects[2], &out_object, &build) || !has(build))
        return NULL;
    Py_buffer views[4];
    Plane planes[3];
    if (!planes_of(objects, 3, -1, views, planes)) return NULL;
    if (PyObject_GetBuffer(out_object, &views[3], PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS) < 0) {
        release(views, 3);
        return NULL;
    }
    const Plane y = planes[0], u = planes[1], v = planes[2];
    uint16_t *rows = NULL;
    if (u.width != (y.width + 1) / 2 || u.height != (y.height + 1) / 2 || v.width != u.width || v.height != u.height ||
        views[3].len != 3 * y.width * y.height) {
        PyErr_SetString(PyExc_ValueError, "the planes are not of one 4:2:0 picture, or the RGB is of another size");
    } else if (!(rows = PyMem_Malloc(8 * (size_t)u.width * sizeof *rows))) {
        PyErr_NoMemory();
    } else {
        Py_BEGIN_ALLOW_THREADS
        builds[build].colour(y, u, v, views[3].buf, rows);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyMem_Free(rows);
    release(views, 4);
    return result;
}

PyDoc_STRVAR(scale_doc, "scale(plane, across, down, offset, out, build=BEST) -> None\n\n"
                        "A plane, uint8 (H, W), into `out`, of at most as many columns and rows as there are taps `across` (unit: 16384\n"
                        "times the factor of the range) and `down` (unit 65535). `offset` is added to every sample. Builds are 0, plain C, 1 for\n"
                        "AVX2, 2 for AVX-512; BEST is the highest that this processor runs.\n"
                        "Raises: ValueError for planes of another size than the taps', TypeError or BufferError for what is no plane.");
PyDoc_STRVAR(stretch_doc, "stretch(plane, factor, offset, out, build=BEST) -> None\n\n"
                          "factor * plane + offset, rounded and kept within 0 to 255, of uint8 (H, W) planes: of 0 <= factor < 2 and\n"
                          "offset <= -0.5, as a limited range needs them, into memory of its own. The rest as in scale.");
PyDoc_STRVAR(rgb_doc, "rgb(y, u, v, out, build=BEST) -> None\n\n"
                      "Planes of one 4:2:0 picture in the range of JPEG, uint8 (H, W) and twice (ceil(H/2), ceil(W/2)), into `out`,\n"
                      "uint8 (H, W, 3): the pixels of OpenCV's INTER_LINEAR and YCrCb2RGB. The rest as in scale.");

static PyMethodDef methods[] = {{"taps", py_taps, METH_VARARGS, taps_doc},
                                {"scale", py_scale, METH_VARARGS, scale_doc},
                                {"stretch", py_stretch, METH_VARARGS, stretch_doc},
                                {"rgb", py_rgb, METH_VARARGS, rgb_doc},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_planes", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__planes(void) {
    best = best_build();
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddIntConstant(made, "BEST", best) < 0) Py_CLEAR(made);
    return made;
}
