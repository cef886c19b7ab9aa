/* Seals and opens data row records with OpenSSL's AES-256-GCM, in Asherah's layout.
 *
 * django_asherah/envelope/aead.py does the same in Python; both must read and write the same bytes. A sealed part is
 * ciphertext | 16-byte tag | 12-byte nonce, without associated data. A data row key lives on this file's stack and in an
 * OpenSSL context, never in a Python object, and both are overwritten before a call returns.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <limits.h>
#include <string.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>

enum { KEY = 32, NONCE = 12, TAG = 16, OVERHEAD = TAG + NONCE, SEALED_KEY = KEY + OVERHEAD };

/* From this size on, AES takes longer than handing the interpreter to another thread and back. */
enum { LARGE = 16 * 1024 };

enum Outcome { DONE, REFUSED, BROKEN };

/* The interpreter lock is held, so nobody else uses a context at the same time. */
typedef struct {
    PyObject_HEAD
    EVP_CIPHER_CTX *sealing, *opening;
} RowCipher;

static EVP_CIPHER *aes_256_gcm;

/* Rekeyed for each small row, whichever cipher it belongs to. */
static EVP_CIPHER_CTX *small_row;

static EVP_CIPHER_CTX *
new_context(const unsigned char *key, int sealing)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    if (context != NULL && EVP_CipherInit_ex(context, aes_256_gcm, NULL, key, NULL, sealing) != 1) {
        EVP_CIPHER_CTX_free(context);
        context = NULL;
    }
    return context;
}

/* Write `length` bytes of ciphertext, the tag and the nonce to `out`. `key` may be NULL if the context has one. */
static enum Outcome
seal(EVP_CIPHER_CTX *context, const unsigned char *key, const unsigned char *nonce, const unsigned char *in, int length,
     unsigned char *out)
{
    int written;
    if (EVP_EncryptInit_ex(context, NULL, NULL, key, nonce) != 1 ||
        EVP_EncryptUpdate(context, out, &written, in, length) != 1 ||
        EVP_EncryptFinal_ex(context, out + length, &written) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG, out + length) != 1) {
        return BROKEN;
    }
    memcpy(out + length + TAG, nonce, NONCE);
    return DONE;
}

/* Write the `length` bytes that were sealed to `out`. */
static enum Outcome
open_sealed(EVP_CIPHER_CTX *context, const unsigned char *key, const unsigned char *in, int length, unsigned char *out)
{
    int written;
    if (EVP_DecryptInit_ex(context, NULL, NULL, key, in + length + TAG) != 1 ||
        EVP_DecryptUpdate(context, out, &written, in, length) != 1 ||
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_SET_TAG, TAG, (void *)(in + length)) != 1) {
        return BROKEN;
    }
    return EVP_DecryptFinal_ex(context, out + length, &written) == 1 ? DONE : REFUSED;
}

/* Overwrite the last row's key. */
static int
forget_small_row(void)
{
    static const unsigned char nothing[KEY];
    return EVP_EncryptInit_ex(small_row, NULL, NULL, nothing, NULL) == 1;
}

/* Seal a row's payload under the row's key, or open it if there is no nonce; without the interpreter lock if large. */
static enum Outcome
with_row_key(const unsigned char *key, const unsigned char *nonce, const unsigned char *in, int length,
             unsigned char *out)
{
    enum Outcome outcome = BROKEN;
    if (length < LARGE) {
        outcome = nonce ? seal(small_row, key, nonce, in, length, out) : open_sealed(small_row, key, in, length, out);
        return forget_small_row() ? outcome : BROKEN;
    }
    EVP_CIPHER_CTX *own = new_context(NULL, 1);
    if (own != NULL) {
        Py_BEGIN_ALLOW_THREADS
        outcome = nonce ? seal(own, key, nonce, in, length, out) : open_sealed(own, key, in, length, out);
        Py_END_ALLOW_THREADS
        EVP_CIPHER_CTX_free(own);
    }
    return outcome;
}

static PyObject *
failed(enum Outcome outcome)
{
    /* The ssl module shares this queue, and would take our errors for its own. */
    ERR_clear_error();
    if (outcome == REFUSED) {
        PyErr_SetString(PyExc_ValueError, "sealed under another key, or tampered with");
    }
    else {
        PyErr_SetString(PyExc_RuntimeError, "OpenSSL failed, probably out of memory");
    }
    return NULL;
}

static PyObject *
RowCipher_seal_row(PyObject *self, PyObject *payload)
{
    RowCipher *cipher = (RowCipher *)self;
    char *plain;
    Py_ssize_t length;
    if (PyBytes_AsStringAndSize(payload, &plain, &length) < 0) {
        return NULL;
    }
    if (length > INT_MAX - OVERHEAD) {
        PyErr_SetString(PyExc_OverflowError, "too long to seal in one piece");
        return NULL;
    }
    unsigned char draw[KEY + 2 * NONCE];
    if (getentropy(draw, sizeof draw) != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    PyObject *rows_key = PyBytes_FromStringAndSize(NULL, SEALED_KEY);
    PyObject *sealed = PyBytes_FromStringAndSize(NULL, length + OVERHEAD);
    PyObject *both = NULL;
    if (rows_key != NULL && sealed != NULL) {
        enum Outcome outcome = with_row_key(draw, draw + KEY, (unsigned char *)plain, (int)length,
                                            (unsigned char *)PyBytes_AsString(sealed));
        if (outcome == DONE) {
            outcome = seal(cipher->sealing, NULL, draw + KEY + NONCE, draw, KEY,
                           (unsigned char *)PyBytes_AsString(rows_key));
        }
        both = outcome == DONE ? PyTuple_Pack(2, rows_key, sealed) : failed(outcome);
    }
    OPENSSL_cleanse(draw, sizeof draw);
    Py_XDECREF(rows_key);
    Py_XDECREF(sealed);
    return both;
}

static PyObject *
RowCipher_open_row(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    RowCipher *cipher = (RowCipher *)self;
    char *rows_key, *sealed;
    Py_ssize_t key_length, length;
    if (count != 2) {
        return PyErr_Format(PyExc_TypeError, "open_row() takes 2 arguments, not %zd", count);
    }
    if (PyBytes_AsStringAndSize(args[0], &rows_key, &key_length) < 0 ||
        PyBytes_AsStringAndSize(args[1], &sealed, &length) < 0) {
        return NULL;
    }
    if (key_length != SEALED_KEY || length < OVERHEAD || length > INT_MAX) {
        return failed(REFUSED);
    }
    length -= OVERHEAD;
    PyObject *plain = PyBytes_FromStringAndSize(NULL, length);
    if (plain == NULL) {
        return NULL;
    }
    unsigned char key[KEY];
    enum Outcome outcome = open_sealed(cipher->opening, NULL, (unsigned char *)rows_key, KEY, key);
    if (outcome == DONE) {
        unsigned char *out = (unsigned char *)PyBytes_AsString(plain);
        outcome = with_row_key(key, NULL, (unsigned char *)sealed, (int)length, out);
        if (outcome != DONE) {
            /* What is not authentic must not stay in memory. */
            OPENSSL_cleanse(out, (size_t)length);
        }
    }
    OPENSSL_cleanse(key, sizeof key);
    if (outcome != DONE) {
        Py_DECREF(plain);
        return failed(outcome);
    }
    return plain;
}

static void
RowCipher_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    RowCipher *cipher = (RowCipher *)self;
    EVP_CIPHER_CTX_free(cipher->sealing);
    EVP_CIPHER_CTX_free(cipher->opening);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *
RowCipher_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"key", NULL};
    Py_buffer key;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*:RowCipher", names, &key)) {
        return NULL;
    }
    PyObject *self = NULL;
    if (key.len != KEY) {
        PyErr_Format(PyExc_ValueError, "the key has %zd bytes, not 32", key.len);
    }
    else {
        allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
        self = allocate(type, 0);
    }
    if (self != NULL) {
        RowCipher *cipher = (RowCipher *)self;
        cipher->sealing = new_context(key.buf, 1);
        cipher->opening = new_context(key.buf, 0);
        if (cipher->sealing == NULL || cipher->opening == NULL) {
            Py_DECREF(self);
            self = failed(BROKEN);
        }
    }
    PyBuffer_Release(&key);
    return self;
}

static PyMethodDef RowCipher_methods[] = {
    {"seal_row", RowCipher_seal_row, METH_O,
     PyDoc_STR("seal_row($self, payload, /)\n--\n\n"
               "Return a fresh data row key, sealed (60 bytes), and the payload sealed by it (28 bytes longer).")},
    {"open_row", (PyCFunction)(void (*)(void))RowCipher_open_row, METH_FASTCALL,
     PyDoc_STR("open_row($self, sealed_key, sealed, /)\n--\n\n"
               "Return what seal_row() sealed; ValueError: another key sealed it, or it was tampered with.")},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot RowCipher_slots[] = {
    {Py_tp_doc, (void *)PyDoc_STR("RowCipher(key)\n--\n\nAES-256-GCM under an intermediate key of 32 bytes.")},
    {Py_tp_new, (void *)RowCipher_new},
    {Py_tp_dealloc, (void *)RowCipher_dealloc},
    {Py_tp_methods, RowCipher_methods},
    {0, NULL},
};

static PyType_Spec RowCipher_spec = {
    .name = "django_asherah_native.RowCipher",
    .basicsize = sizeof(RowCipher),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = RowCipher_slots,
};

static int
fill_module(PyObject *module)
{
    if (aes_256_gcm == NULL) {
        aes_256_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    }
    if (aes_256_gcm != NULL && small_row == NULL) {
        small_row = new_context(NULL, 1);
    }
    if (small_row == NULL) {
        ERR_clear_error();
        PyErr_SetString(PyExc_ImportError, "OpenSSL has no AES-256-GCM");
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &RowCipher_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int outcome = PyModule_AddObjectRef(module, "RowCipher", type);
    Py_DECREF(type);
    return outcome;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)fill_module},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "django_asherah_native",
    .m_doc = PyDoc_STR("The native part of django-asherah, which uses it automatically where it is installed."),
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit_django_asherah_native(void)
{
    return PyModuleDef_Init(&module_definition);
}
