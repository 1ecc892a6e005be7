"""Reads, from a certificate's DER, just what the SPIFFE rules and the logs need. Pure and quick; no ``cryptography``.

It judges nothing (:mod:`certs.svid` does) and checks no signature (the TLS library did). It is strict about
DER: indefinite or padded lengths, bytes left over and repeated extensions are errors, so that what is read
here is what every other parser reads. Source: RFC 5280 section 4, X.690.
"""

from __future__ import annotations

from dataclasses import dataclass

DIGITAL_SIGNATURE = 0x80
KEY_CERT_SIGN = 0x04
CRL_SIGN = 0x02

SERVER_AUTH = bytes.fromhex("2b06010505070301")
CLIENT_AUTH = bytes.fromhex("2b06010505070302")

_BASIC_CONSTRAINTS = b"\x55\x1d\x13"
_KEY_USAGE = b"\x55\x1d\x0f"
_EXTENDED_KEY_USAGE = b"\x55\x1d\x25"
_SUBJECT_ALT_NAME = b"\x55\x1d\x11"

_COMMON_NAME = b"\x55\x04\x03"
_RSA = bytes.fromhex("2a864886f70d0101")

_MONTH_DAYS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)

_ATTRIBUTES = {
    b"\x55\x04\x03": "CN",
    b"\x55\x04\x06": "C",
    b"\x55\x04\x07": "L",
    b"\x55\x04\x08": "ST",
    b"\x55\x04\x0a": "O",
    b"\x55\x04\x0b": "OU",
}


class DerError(ValueError):
    """The bytes are not a DER certificate; the message names the part that is wrong."""


@dataclass(frozen=True, slots=True)
class CertificateFields:
    """What was read. Times are Unix seconds, UTC. ``key_usage`` is the first byte of the bit string
    (``None``: no such extension), ``extended_key_usage`` the OIDs' content bytes (``None``: no such
    extension). ``subject`` and ``public_key`` (SubjectPublicKeyInfo) are DER. ``addresses`` are the iPAddress
    names as they stand: 4 or 16 bytes.
    """

    serial_number: int
    not_before: int
    not_after: int
    subject: bytes
    public_key: bytes
    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    is_ca: bool
    key_usage: int | None
    key_usage_critical: bool
    extended_key_usage: tuple[bytes, ...] | None
    emails: tuple[str, ...] = ()
    addresses: tuple[bytes, ...] = ()

    @property
    def is_rsa(self) -> bool:
        """Whether the key is one for RSA signatures (of either padding)."""
        return _RSA in self.public_key[:32]

    def common_name(self) -> str:
        """The subject's most specific common name, "" if there is none."""
        return _common_name(self.subject)

    def subject_text(self) -> str:
        """The subject in the form of RFC 4514, most specific part first."""
        return name_text(self.subject)


def read_certificate(der: bytes) -> CertificateFields:
    """Read one certificate. Raises :class:`DerError`."""
    try:
        return _certificate(der)
    except IndexError:
        raise DerError("certificate: cut short") from None
    except UnicodeDecodeError:
        raise DerError("certificate: a name in subjectAltName is not ASCII") from None


def _header(data: bytes, at: int, end: int, what: str) -> tuple[int, int, int]:
    """The element at ``at``: its tag, where its content begins, where it ends."""
    tag = data[at]
    length = data[at + 1]
    at += 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4:
            raise DerError(f"{what}: a length in a form that DER does not allow")
        length = int.from_bytes(data[at : at + size], "big")
        if length < 0x80 or length >> (8 * (size - 1)) == 0:
            raise DerError(f"{what}: a length that is not minimal")
        at += size
    stop = at + length
    if stop > end:
        raise DerError(f"{what}: cut short")
    return tag, at, stop


def _expect(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    found, start, stop = _header(data, at, end, what)
    if found != tag:
        raise DerError(f"{what}: tag 0x{found:02x} where 0x{tag:02x} belongs")
    return start, stop


def _certificate(der: bytes) -> CertificateFields:
    size = len(der)
    at, end = _expect(der, 0, size, 0x30, "certificate")
    if end != size:
        raise DerError("certificate: bytes left over after its end")
    at, tbs_end = _expect(der, at, end, 0x30, "tbsCertificate")
    _, signature = _expect(der, tbs_end, end, 0x30, "signatureAlgorithm")
    if _expect(der, signature, end, 0x03, "signatureValue")[1] != end:
        raise DerError("certificate: bytes left over after the signature")

    if der[at : at + 5] != b"\xa0\x03\x02\x01\x02":
        raise DerError("version: not an X.509 version 3 certificate")
    start, at = _expect(der, at + 5, tbs_end, 0x02, "serialNumber")
    serial_number = int.from_bytes(der[start:at], "big")
    _, at = _expect(der, at, tbs_end, 0x30, "signature")
    _, at = _expect(der, at, tbs_end, 0x30, "issuer")
    validity, validity_end = _expect(der, at, tbs_end, 0x30, "validity")
    not_before, validity = _time(der, validity, validity_end, "notBefore")
    not_after, validity = _time(der, validity, validity_end, "notAfter")
    if validity != validity_end:
        raise DerError("validity: bytes left over")
    _, at = _expect(der, validity_end, tbs_end, 0x30, "subject")
    subject = der[validity_end:at]
    _, key_end = _expect(der, at, tbs_end, 0x30, "subjectPublicKeyInfo")
    public_key = der[at:key_end]
    at = key_end

    while at < tbs_end and der[at] in (0x81, 0x82, 0xA1, 0xA2):  # issuerUniqueID, subjectUniqueID
        at = _header(der, at, tbs_end, "uniqueID")[2]

    is_ca = False
    key_usage: int | None = None
    key_usage_critical = False
    extended: tuple[bytes, ...] | None = None
    names = _NO_NAMES
    if at < tbs_end:
        at, end = _expect(der, at, tbs_end, 0xA3, "extensions")
        if end != tbs_end:
            raise DerError("tbsCertificate: bytes left over after the extensions")
        at, inner = _expect(der, at, end, 0x30, "extensions")
        if inner != end:
            raise DerError("extensions: bytes left over")
        seen = set()
        while at < end:
            at, stop = _expect(der, at, end, 0x30, "extension")
            start, at = _expect(der, at, stop, 0x06, "extension OID")
            oid = der[start:at]
            if oid in seen:
                raise DerError(f"extension {oid.hex()}: given twice")
            seen.add(oid)
            critical = False
            if der[at] == 0x01:
                if der[at : at + 3] != b"\x01\x01\xff":
                    raise DerError("extension criticality: only TRUE may be written")
                critical = True
                at += 3
            at, value_end = _expect(der, at, stop, 0x04, "extension value")
            if value_end != stop:
                raise DerError("extension: bytes left over")
            if oid == _SUBJECT_ALT_NAME:
                names = _alternative_names(der, at, stop)
            elif oid == _KEY_USAGE:
                key_usage, key_usage_critical = _key_usage(der, at, stop), critical
            elif oid == _EXTENDED_KEY_USAGE:
                extended = _extended_key_usage(der, at, stop)
            elif oid == _BASIC_CONSTRAINTS:
                is_ca = _basic_constraints(der, at, stop)
            at = stop
    return CertificateFields(
        serial_number,
        not_before,
        not_after,
        subject,
        public_key,
        names.uris,
        names.dns_names,
        is_ca,
        key_usage,
        key_usage_critical,
        extended,
        names.emails,
        names.addresses,
    )


def read_crl_end(der: bytes) -> int | None:
    """When a certificate revocation list (RFC 5280 section 5) says that there will be a newer one: its nextUpdate.

    Unix seconds; ``None``: it does not say. Raises :class:`DerError`.
    """
    try:
        at, end = _expect(der, 0, len(der), 0x30, "CRL")
        at, end = _expect(der, at, end, 0x30, "tbsCertList")
        if der[at] == 0x02:
            at = _header(der, at, end, "version")[2]
        _, at = _expect(der, at, end, 0x30, "signature")
        _, at = _expect(der, at, end, 0x30, "issuer")
        _, at = _time(der, at, end, "thisUpdate")
        if at >= end or der[at] not in (0x17, 0x18):
            return None
        return _time(der, at, end, "nextUpdate")[0]
    except IndexError:
        raise DerError("CRL: cut short") from None


@dataclass(frozen=True, slots=True)
class _Names:
    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    addresses: tuple[bytes, ...] = ()


_NO_NAMES = _Names()


def _alternative_names(der: bytes, at: int, stop: int) -> _Names:
    at, end = _expect(der, at, stop, 0x30, "subjectAltName")
    if end != stop:
        raise DerError("subjectAltName: bytes left over")
    uris: list[str] = []
    dns_names: list[str] = []
    emails: list[str] = []
    addresses: list[bytes] = []
    while at < end:
        tag, start, at = _header(der, at, end, "subjectAltName")
        if tag == 0x86:
            uris.append(_printable(der[start:at], "URI"))
        elif tag == 0x82:
            dns_names.append(_printable(der[start:at], "DNS name"))
        elif tag == 0x81:
            emails.append(_printable(der[start:at], "mail address"))
        elif tag == 0x87:
            if at - start not in (4, 16):
                raise DerError("subjectAltName: an IP address of neither 4 nor 16 bytes")
            addresses.append(der[start:at])
    return _Names(tuple(uris), tuple(dns_names), tuple(emails), tuple(addresses))


def _printable(raw: bytes, what: str) -> str:
    """IA5 text without control characters: a NUL or a line end in a name only serves to deceive a reader."""
    text = raw.decode("ascii")
    if not text.isprintable():
        raise DerError(f"subjectAltName: a control character in a {what}")
    return text


def _key_usage(der: bytes, at: int, stop: int) -> int:
    start, end = _expect(der, at, stop, 0x03, "keyUsage")
    if end != stop or not 1 <= end - start <= 3 or der[start] > 7:
        raise DerError("keyUsage: not a bit string of at most nine bits")
    return der[start + 1] if end - start > 1 else 0


def _extended_key_usage(der: bytes, at: int, stop: int) -> tuple[bytes, ...]:
    at, end = _expect(der, at, stop, 0x30, "extKeyUsage")
    if end != stop:
        raise DerError("extKeyUsage: bytes left over")
    found = []
    while at < end:
        start, at = _expect(der, at, end, 0x06, "extKeyUsage")
        found.append(der[start:at])
    return tuple(found)


def _basic_constraints(der: bytes, at: int, stop: int) -> bool:
    at, end = _expect(der, at, stop, 0x30, "basicConstraints")
    if end != stop:
        raise DerError("basicConstraints: bytes left over")
    is_ca = False
    if at < end and der[at] == 0x01:
        start, at = _expect(der, at, end, 0x01, "basicConstraints cA")
        if at - start != 1 or der[start] not in (0x00, 0xFF):
            raise DerError("basicConstraints: cA is neither TRUE nor FALSE")
        is_ca = der[start] == 0xFF
    if at < end:
        _, at = _expect(der, at, end, 0x02, "basicConstraints pathLenConstraint")
        if at != end:
            raise DerError("basicConstraints: bytes left over")
    return is_ca


def _time(der: bytes, at: int, end: int, what: str) -> tuple[int, int]:
    """A UTCTime (YYMMDDHHMMSSZ) or GeneralizedTime (YYYYMMDDHHMMSSZ) as Unix seconds, and where it ends."""
    tag, start, stop = _header(der, at, end, what)
    text = der[start:stop]
    if tag == 0x17 and len(text) == 13:
        year = int(text[0:2]) if text[:12].isdigit() else -1
        year += 2000 if year < 50 else 1900
        rest = text[2:]
    elif tag == 0x18 and len(text) == 15:
        year = int(text[0:4]) if text[:14].isdigit() else 0
        rest = text[4:]
    else:
        raise DerError(f"{what}: not a time in the form that RFC 5280 asks for")
    if not rest[:10].isdigit() or rest[10] != 0x5A or not text[:2].isdigit():
        raise DerError(f"{what}: not a time in the form that RFC 5280 asks for")
    month, day = int(rest[0:2]), int(rest[2:4])
    hour, minute, second = int(rest[4:6]), int(rest[6:8]), int(rest[8:10])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        raise DerError(f"{what}: no such date")
    before = year - (month <= 2)  # the leap day counts from March on
    leap_days = before // 4 - before // 100 + before // 400 - 477
    days = (year - 1970) * 365 + leap_days + _MONTH_DAYS[month - 1] + day - 1
    return ((days * 24 + hour) * 60 + minute) * 60 + second, stop


def name_text(der: bytes) -> str:
    """A distinguished name (DER) in the form of RFC 4514. Raises :class:`DerError`."""
    try:
        at, end = _expect(der, 0, len(der), 0x30, "name")
        sets = []
        while at < end:
            at, stop = _expect(der, at, end, 0x31, "name")
            parts = []
            while at < stop:
                inner, at = _expect(der, at, stop, 0x30, "name")
                parts.append(_attribute(der, inner, at))
            sets.append("+".join(parts))
    except IndexError:
        raise DerError("name: cut short") from None
    return ",".join(reversed(sets))


def _common_name(der: bytes) -> str:
    found = ""
    try:
        at, end = _expect(der, 0, len(der), 0x30, "name")
        while at < end:
            inner, at = _expect(der, at, end, 0x31, "name")
            while inner < at:
                start, inner = _expect(der, inner, at, 0x30, "name")
                kind, value = _expect(der, start, inner, 0x06, "attribute type")
                if der[kind:value] == _COMMON_NAME:
                    tag, begin, stop = _header(der, value, inner, "attribute value")
                    found = der[begin:stop].decode("utf-8", "replace") if tag in (0x0C, 0x13, 0x16) else ""
    except IndexError:
        raise DerError("name: cut short") from None
    return found


def _attribute(der: bytes, at: int, end: int) -> str:
    start, at = _expect(der, at, end, 0x06, "attribute type")
    oid = der[start:at]
    tag, start, stop = _header(der, at, end, "attribute value")
    label = _ATTRIBUTES.get(oid)
    if label is None or tag not in (0x0C, 0x13, 0x16):
        return f"{label or dotted(oid)}=#{der[at:stop].hex()}"
    return f"{label}={_escaped(der[start:stop].decode('utf-8', 'replace'))}"


def _escaped(value: str) -> str:
    out = []
    last = len(value) - 1
    for index, char in enumerate(value):
        if char in '"+,;<>\\' or (char in " #" and index == 0) or (char == " " and index == last):
            out.append("\\" + char)
        elif not char.isprintable():
            out.append("".join(f"\\{byte:02x}" for byte in char.encode("utf-8", "replace")))
        else:
            out.append(char)
    return "".join(out)


def dotted(oid: bytes) -> str:
    """An object identifier's content bytes as dotted decimal numbers."""
    numbers: list[int] = []
    value = 0
    for byte in oid:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            numbers.append(value)
            value = 0
    if not numbers:
        return ""
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))
