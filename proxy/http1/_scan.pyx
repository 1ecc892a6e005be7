# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The fast twin of ``proxy.http1.pure``: one pass over a whole, plain head.

What is not plain (incomplete, malformed, beyond a limit, a repeated field, blanks after a value) goes to ``pure``,
which reads or refuses it. So this must never accept what ``pure`` refuses, nor read it differently; the tests compare.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from proxy.http1 import fields as _fields
from proxy.http1 import pure as _pure
from proxy.http1.splice import connection_options as _connection_options

cdef extern from "strings.h" nogil:
    int strncasecmp(const char *, const char *, size_t)

cdef enum:
    MAX_OFFSET = 65535
    MAX_FIELDS = 128

cdef uint8_t TOKEN[256]
cdef uint8_t VALUE[256]
cdef uint8_t IN_PATH[256]
cdef uint8_t IN_HOST[256]
cdef int _i
for _i in range(256):
    TOKEN[_i] = chr(_i).encode("latin-1") in b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    IN_PATH[_i] = _i in _fields.PATH_CHARACTERS
    IN_HOST[_i] = _i in _fields.HOST_CHARACTERS
    VALUE[_i] = _i == 9 or 32 <= _i < 127 or _i >= 128

cdef uint32_t CHUNKED = _fields.CHUNKED
cdef uint32_t CLOSE = _fields.CLOSE
cdef uint32_t KEEP_ALIVE = _fields.KEEP_ALIVE
cdef uint32_t UPGRADE = _fields.UPGRADE
cdef uint32_t EXPECT = _fields.EXPECT
cdef uint32_t INTERNAL = _fields.INTERNAL
cdef uint32_t NOMINATED = _fields.NOMINATED
cdef uint32_t PLAIN = _fields.PLAIN
cdef uint32_t HAS_HOST = _fields.HAS_HOST
cdef uint32_t HAS_FRAMING = _fields.HAS_FRAMING
cdef uint32_t HAS_EXPECT = _fields.HAS_EXPECT
cdef uint32_t HAS_LENGTH = _fields.HAS_LENGTH
cdef uint32_t HAS_INTERNAL = _fields.HAS_INTERNAL

# The names that have a bit, by length: what ``bit_of`` compares with.
cdef enum:
    MAX_KNOWN = 32
cdef const char *known_name[MAX_KNOWN]
cdef uint16_t known_size[MAX_KNOWN]
cdef uint32_t known_bit[MAX_KNOWN]
cdef int known_count = 0
cdef uint32_t known_sizes = 0
_known_names = list(_fields.KNOWN)
for _i in range(len(_known_names)):
    known_name[_i] = _known_names[_i]
    known_size[_i] = len(_known_names[_i])
    known_bit[_i] = _fields.KNOWN[_known_names[_i]]
    known_sizes |= 1 << len(_known_names[_i])
known_count = len(_known_names)

cdef inline uint32_t bit_of(const char *name, int size) noexcept nogil:
    cdef int i
    if size < 32 and known_sizes >> size & 1:
        for i in range(known_count):
            if known_size[i] == size and strncasecmp(name, known_name[i], size) == 0:
                return known_bit[i]
    if size >= 8 and (strncasecmp(name, "x-envoy-", 8) == 0 or strncasecmp(name, "x-tulle-", 8) == 0):
        return HAS_INTERNAL
    return 0


cdef class Head:
    """See ``pure.Head``."""

    cdef public bytes method, target, host
    cdef readonly bytes raw
    cdef public int status, minor
    cdef public uint32_t flags, present
    cdef public int64_t length
    cdef public Py_ssize_t end, fields_at
    cdef int count
    cdef uint16_t name_at[MAX_FIELDS]
    cdef uint16_t name_size[MAX_FIELDS]
    cdef uint16_t value_at[MAX_FIELDS]
    cdef uint16_t value_size[MAX_FIELDS]
    cdef uint32_t bits[MAX_FIELDS]
    cdef public dict added
    cdef dict _names

    @property
    def repeated(self):
        return False

    cdef bytes value(self, int i):
        return PyBytes_FromStringAndSize(PyBytes_AS_STRING(self.raw) + self.value_at[i], self.value_size[i])

    @property
    def names(self):
        cdef int i
        cdef const char *raw
        if self._names is None:
            raw = PyBytes_AS_STRING(self.raw)
            self._names = {}
            for i in range(self.count):
                self._names[PyBytes_FromStringAndSize(raw + self.name_at[i], self.name_size[i]).lower()] = self.value(i)
            if self.present & HAS_HOST and self.host is not None:
                self._names[b"host"] = self.host
        return self._names

    def get(self, bytes name not None, /):
        cdef int i
        cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
        cdef const char *wanted = PyBytes_AS_STRING(name)
        cdef const char *raw = PyBytes_AS_STRING(self.raw)
        if self._names is not None:
            value = self._names.get(name)
            if value is not None:
                return value
        else:
            for i in range(self.count):
                if self.name_size[i] == size and strncasecmp(raw + self.name_at[i], wanted, size) == 0:
                    return self.value(i)
        return None if self.added is None else self.added.get(name)

    def values(self, bytes name not None, /):
        value = self.get(name)
        return () if value is None else (value,)

    def set_host(self, bytes host not None):
        self.host = host
        self.names[b"host"] = host

    def emit(self, bytes first, uint32_t strip, bytes extra not None, also=frozenset(), /):
        cdef const char *raw = PyBytes_AS_STRING(self.raw)
        cdef Py_ssize_t first_size = self.fields_at if first is None else PyBytes_GET_SIZE(first)
        cdef Py_ssize_t extra_size = PyBytes_GET_SIZE(extra)
        cdef Py_ssize_t fields_size = PyBytes_GET_SIZE(self.raw) - self.fields_at
        # Whatever is stripped, this is enough; the end is cut off when it is known.
        cdef bytes made = PyBytes_FromStringAndSize(NULL, first_size + fields_size + extra_size + 2)
        cdef char *out = PyBytes_AS_STRING(made)
        cdef char *at = out
        cdef int i
        cdef Py_ssize_t size
        memcpy(at, raw if first is None else PyBytes_AS_STRING(first), first_size)
        at += first_size
        if not also and not self.present & strip:
            memcpy(at, raw + self.fields_at, fields_size)
            at += fields_size
        else:
            for i in range(self.count):
                if self.bits[i] & strip:
                    continue
                if also and PyBytes_FromStringAndSize(raw + self.name_at[i], self.name_size[i]).lower() in also:
                    continue
                size = self.value_at[i] + self.value_size[i] + 2 - self.name_at[i]
                memcpy(at, raw + self.name_at[i], size)
                at += size
        memcpy(at, PyBytes_AS_STRING(extra), extra_size)
        at += extra_size
        at[0] = 13
        at[1] = 10
        size = at + 2 - out
        return made if size == PyBytes_GET_SIZE(made) else made[:size]


cdef bint is_common(const uint8_t *method, Py_ssize_t size) noexcept nogil:
    """Whether it is one of ``fields.COMMON_METHODS``."""
    if size == 3:
        return memcmp(method, b"GET", 3) == 0 or memcmp(method, b"PUT", 3) == 0
    if size == 4:
        return memcmp(method, b"POST", 4) == 0 or memcmp(method, b"HEAD", 4) == 0
    if size == 5:
        return memcmp(method, b"PATCH", 5) == 0
    if size == 6:
        return memcmp(method, b"DELETE", 6) == 0
    return size == 7 and memcmp(method, b"OPTIONS", 7) == 0


cdef bint is_plain(const uint8_t *target, Py_ssize_t size) noexcept nogil:
    """Whether nothing in the target needs a second look (``fields.PLAIN``)."""
    cdef Py_ssize_t at = 1
    if target[0] != 47:
        return False
    while at < size and target[at] != 63:
        if target[at] == 47:
            if target[at - 1] == 47:
                return False
        elif not IN_PATH[target[at]] or target[at] == 46 and target[at - 1] == 47:
            return False
        at += 1
    return at == size or memchr(target + at, 35, size - at) == NULL


cdef int read_fields(Head head, const uint8_t *block, Py_ssize_t at, Py_ssize_t size, int limit) except -2:
    """Read the fields from ``at`` on; where the head ends, -1 if it is not plain."""
    cdef Py_ssize_t name_at, value_at, value_end
    cdef uint32_t bit, present = 0, flags = 0
    cdef int count = 0, name_size, i
    cdef int64_t length = -1
    head.fields_at = at
    while True:
        if at + 1 >= size:
            return -1
        if block[at] == 13:
            if block[at + 1] != 10:
                return -1
            at += 2
            break
        name_at = at
        while at < size and TOKEN[block[at]]:
            at += 1
        if at >= size or at == name_at or block[at] != 58:
            return -1
        name_size = at - name_at
        at += 1
        while at < size and (block[at] == 32 or block[at] == 9):
            at += 1
        value_at = at
        while at < size and VALUE[block[at]]:
            at += 1
        if at + 1 >= size or block[at] != 13 or block[at + 1] != 10:
            return -1
        value_end = at
        if block[at - 1] == 32 or block[at - 1] == 9 or count >= limit:
            return -1
        at += 2
        for i in range(count):
            if head.name_size[i] == name_size and strncasecmp(
                <const char *>block + head.name_at[i], <const char *>block + name_at, name_size
            ) == 0:
                return -1
        bit = bit_of(<const char *>block + name_at, name_size)
        if bit:
            present |= bit
            if bit == HAS_HOST:
                head.host = PyBytes_FromStringAndSize(<const char *>block + value_at, value_end - value_at)
            elif bit == HAS_LENGTH:
                if value_end == value_at or value_end - value_at > 18:
                    return -1
                length = 0
                for i in range(value_at, value_end):
                    if block[i] < 48 or block[i] > 57:
                        return -1
                    length = length * 10 + block[i] - 48
            elif bit == HAS_INTERNAL:
                flags |= INTERNAL
            elif bit == HAS_EXPECT:
                flags |= EXPECT
            elif bit == HAS_FRAMING and name_size == 17:  # transfer-encoding
                if value_end - value_at != 7 or strncasecmp(<const char *>block + value_at, "chunked", 7) != 0:
                    return -1
                flags |= CHUNKED
            elif name_size == 10 and (block[name_at] | 32) == 99:  # connection
                if value_end - value_at == 5 and strncasecmp(<const char *>block + value_at, "close", 5) == 0:
                    flags |= CLOSE
                elif value_end - value_at == 10 and strncasecmp(<const char *>block + value_at, "keep-alive", 10) == 0:
                    flags |= KEEP_ALIVE
                else:
                    return -1
        head.name_at[count] = name_at
        head.name_size[count] = name_size
        head.value_at[count] = value_at
        head.value_size[count] = value_end - value_at
        head.bits[count] = bit
        count += 1
    if length >= 0 and flags & CHUNKED:
        return -1
    head.count = count
    head.present = present
    head.flags = flags
    head.length = length
    return at


def scan_request(
    bytes data not None, Py_ssize_t start=0, *, Py_ssize_t seen=0,
    Py_ssize_t max_bytes=_pure.MAX_HEAD_BYTES, int max_fields=_pure.MAX_FIELDS,
):
    cdef const uint8_t *block = <const uint8_t *>PyBytes_AS_STRING(data) + start
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data) - start, at = 0, target_at, target_end, i
    cdef int end = -1
    cdef bint plain
    cdef Head head
    if size > max_bytes:
        size = max_bytes
    if size > MAX_OFFSET:
        size = MAX_OFFSET
    if max_fields > MAX_FIELDS:
        max_fields = MAX_FIELDS
    # The first piece of a head that comes in pieces is looked at here, the others only by ``pure``, in linear time.
    if seen == 0 and size >= 18:
        while at < size and TOKEN[block[at]]:
            at += 1
        if 0 < at < size and block[at] == 32:
            head = Head.__new__(Head)
            head.method = PyBytes_FromStringAndSize(<const char *>block, at)
            plain = is_common(block, at)
            at += 1
            target_at = at
            while at < size and 32 < block[at] < 127:
                at += 1
            if at > target_at and at + 11 <= size and memcmp(block + at, b" HTTP/1.1\r\n", 11) == 0:
                head.target = PyBytes_FromStringAndSize(<const char *>block + target_at, at - target_at)
                head.minor = 1
                target_end = at
                end = read_fields(head, block, at + 11, size, max_fields)
                if end > 0:
                    if plain and head.host is not None and is_plain(block + target_at, target_end - target_at):
                        for i in range(PyBytes_GET_SIZE(head.host)):
                            if not IN_HOST[<uint8_t>PyBytes_AS_STRING(head.host)[i]]:
                                break
                        else:
                            head.flags |= PLAIN
                    head.raw = PyBytes_FromStringAndSize(<const char *>block, end - 2)
                    head.end = start + end
                    return head
    return _pure.scan_request(data, start, seen=seen, max_bytes=max_bytes, max_fields=max_fields)


def scan_response(
    bytes data not None, Py_ssize_t start=0, *, Py_ssize_t seen=0,
    Py_ssize_t max_bytes=_pure.MAX_HEAD_BYTES, int max_fields=_pure.MAX_FIELDS,
):
    cdef const uint8_t *block = <const uint8_t *>PyBytes_AS_STRING(data) + start
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data) - start, at = 13
    cdef int end = -1
    cdef Head head
    if size > max_bytes:
        size = max_bytes
    if size > MAX_OFFSET:
        size = MAX_OFFSET
    if max_fields > MAX_FIELDS:
        max_fields = MAX_FIELDS
    if seen == 0 and size >= 17 and memcmp(block, b"HTTP/1.1 ", 9) == 0 and 49 <= block[9] <= 57 and (
        48 <= block[10] <= 57 and 48 <= block[11] <= 57 and block[12] == 32
    ):
        while at < size and VALUE[block[at]]:
            at += 1
        if at + 2 <= size and block[at] == 13 and block[at + 1] == 10:
            head = Head.__new__(Head)
            head.method = head.target = b""
            head.status = (block[9] - 48) * 100 + (block[10] - 48) * 10 + block[11] - 48
            head.minor = 1
            end = read_fields(head, block, at + 2, size, max_fields)
            if end > 0:
                head.host = None
                head.raw = PyBytes_FromStringAndSize(<const char *>block, end - 2)
                head.end = start + end
                return head
    return _pure.scan_response(data, start, seen=seen, max_bytes=max_bytes, max_fields=max_fields)
