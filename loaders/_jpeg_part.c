/* A part of JPEG pictures, straight into place: what lies right, left and below of it is not transformed, what lies above only
 * read over. Python's lock is released meanwhile. Built where there is a compiler and libjpeg-turbo's headers (setup.py);
 * loaders/pictures.py decodes whole pictures where it is not. Pixels are those of the whole picture to the last bit. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#if !defined(JCS_EXTENSIONS) || !defined(LIBJPEG_TURBO_VERSION_NUMBER) || LIBJPEG_TURBO_VERSION_NUMBER < 2001000
#error "libjpeg-turbo 2.1 or newer is needed: older ones crop and skip with errors, others not at all"
#endif

enum { ROWS = 4 }; /* asked for at a time; libjpeg hands over up to two */

typedef struct {
    unsigned int width, height;             /* of the whole picture, in pixels */
    unsigned int left, top, columns, rows;  /* of the part */
} Part;

typedef struct {
    struct jpeg_error_mgr base;
    jmp_buf back;
} Errors;

/* libjpeg's own ends the process. */
static void on_error(j_common_ptr info) {
    longjmp(((Errors *)info->err)->back, 1);
}

static void on_message(j_common_ptr info) {
    (void)info;
}

/* Rows of the part into `out`, RGB or BGR, without gaps. 0 for a picture that is damaged or of another size. */
static int decode(const unsigned char *data, size_t size, Part part, int bgr, unsigned char *out) {
    struct jpeg_decompress_struct info;
    Errors errors;
    memset(&info, 0, sizeof info); /* jpeg_destroy must be safe even where jpeg_create fails */
    info.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = on_error;
    errors.base.output_message = on_message;
    if (setjmp(errors.back)) {
        jpeg_destroy_decompress(&info);
        return 0;
    }
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, data, size);
    jpeg_read_header(&info, TRUE);
    if (info.image_width != part.width || info.image_height != part.height) {
        jpeg_destroy_decompress(&info);
        return 0;
    }
    info.out_color_space = bgr ? JCS_EXT_BGR : JCS_EXT_RGB;
    info.dct_method = JDCT_FASTEST;
    info.do_fancy_upsampling = FALSE;
    jpeg_start_decompress(&info);

    JDIMENSION left = part.left, columns = part.columns;
    if (columns < part.width) jpeg_crop_scanline(&info, &left, &columns); /* begins at a block: `left` moves left */
    /* The same for rows: to leave off within a row of blocks costs more than to transform it. */
    const JDIMENSION block = (JDIMENSION)(info.max_v_samp_factor * DCTSIZE), above = part.top / block * block;
    if (above) jpeg_skip_scanlines(&info, above);

    const size_t wide = (size_t)columns * 3, kept = (size_t)part.columns * 3, offset = (size_t)(part.left - left) * 3;
    const JDIMENSION end = part.top + part.rows;
    /* At odd addresses, or libjpeg-turbo writes round the cache and every row is read back from memory. */
    const size_t apart = (wide + 64) / 64 * 64;
    unsigned char *memory = (*info.mem->alloc_large)((j_common_ptr)&info, JPOOL_IMAGE, ROWS * apart + 1);
    JSAMPROW rows[ROWS];
    for (int i = 0; i < ROWS; i++) rows[i] = memory + i * apart + 1;
    for (JDIMENSION at = info.output_scanline; at < end;) {
        const JDIMENSION got = jpeg_read_scanlines(&info, rows, ROWS);
        for (JDIMENSION i = 0; i < got; i++, at++)
            if (at >= part.top && at < end) memcpy(out + (at - part.top) * kept, rows[i] + offset, kept);
    }
    const int whole = info.err->num_warnings == 0; /* a warning is damage that libjpeg has painted over */
    jpeg_destroy_decompress(&info);                /* what is below the part is left unread */
    return whole;
}

PyDoc_STRVAR(decode_parts_doc,
             "decode_parts(jpegs, out, width, height, left, top, columns, rows, bgr) -> int\n\n"
             "Columns and rows of JPEG files of width x height pixels into `out`, uint8 (N, rows, columns, 3) without gaps.\n"
             "How many were decoded before one that is no bytes, damaged in what was read, or of another size; what lies in\n"
             "`out` from there on is undefined. Raises: ValueError for a part that the pictures or `out` do not hold.");

static PyObject *decode_parts(PyObject *self, PyObject *args) {
    PyObject *given, *jpegs, *result = NULL;
    Py_buffer out;
    Part part;
    int bgr;
    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*IIIIIIp", &given, &out, &part.width, &part.height, &part.left, &part.top,
                          &part.columns, &part.rows, &bgr))
        return NULL;
    /* A tuple of our own holds the bytes while the lock is released. */
    if (!(jpegs = PySequence_Tuple(given))) goto release;
    const Py_ssize_t count = PyTuple_GET_SIZE(jpegs);
    const unsigned long long need = 3ULL * part.columns * part.rows;
    if (!need || (unsigned long long)part.left + part.columns > part.width ||
        (unsigned long long)part.top + part.rows > part.height || need * count > (unsigned long long)out.len) {
        PyErr_SetString(PyExc_ValueError, "the part does not lie in the picture, or does not fit into out");
        goto release;
    }
    Py_ssize_t good = 0, bytes = 0;
    while (bytes < count && PyBytes_Check(PyTuple_GET_ITEM(jpegs, bytes))) bytes++;
    Py_BEGIN_ALLOW_THREADS
    for (; good < bytes; good++) {
        PyObject *jpeg = PyTuple_GET_ITEM(jpegs, good);
        if (!decode((unsigned char *)PyBytes_AS_STRING(jpeg), (size_t)PyBytes_GET_SIZE(jpeg), part, bgr,
                    (unsigned char *)out.buf + good * need))
            break;
    }
    Py_END_ALLOW_THREADS
    result = PyLong_FromSsize_t(good);
release:
    Py_XDECREF(jpegs);
    PyBuffer_Release(&out);
    return result;
}

static PyMethodDef methods[] = {{"decode_parts", decode_parts, METH_VARARGS, decode_parts_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_jpeg_part", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__jpeg_part(void) {
    return PyModule_Create(&module);
}
