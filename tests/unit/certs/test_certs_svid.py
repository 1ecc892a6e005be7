from __future__ import annotations

import datetime
import ipaddress
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from certs import der, svid
from certs.spiffe import SpiffeId
from certs.svid import SvidError, check_leaf, check_signer, read_leaf
from tests.fakes import pki

WEB = "spiffe://mesh.local/ns/default/sa/web"
GOOD = pki.make()
CA = pki.make_ca()


def test_a_good_leaf_is_its_spiffe_id() -> None:
    assert check_leaf(GOOD.der, "mesh.local") == SpiffeId("mesh.local", "/ns/default/sa/web")
    assert check_leaf(GOOD.der) == SpiffeId("mesh.local", "/ns/default/sa/web")


def test_fields_agree_with_cryptography() -> None:
    pair = pki.make(
        others=[x509.DNSName("web.default.mesh.local"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))],
        subject='we"b, é',
    )
    fields = der.read_certificate(pair.der)
    certificate = pair.certificate
    assert fields.serial_number == certificate.serial_number
    assert fields.not_before == certificate.not_valid_before_utc.timestamp()
    assert fields.not_after == certificate.not_valid_after_utc.timestamp()
    assert fields.subject == certificate.subject.public_bytes()
    assert fields.subject_text() == certificate.subject.rfc4514_string()
    assert fields.public_key == pair.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert fields.uris == (WEB,)
    assert fields.dns_names == ("web.default.mesh.local",)
    assert (fields.is_ca, fields.key_usage, fields.key_usage_critical) == (False, 0x80, True)
    assert fields.extended_key_usage == (der.SERVER_AUTH, der.CLIENT_AUTH)


@given(
    st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)).map(
        lambda moment: moment.replace(microsecond=0, tzinfo=datetime.UTC)
    )
)
def test_times_agree_with_the_calendar(moment: datetime.datetime) -> None:
    if moment.year < 2050:
        raw = b"\x17\x0d" + moment.strftime("%y%m%d%H%M%SZ").encode()
    else:
        raw = b"\x18\x0f" + moment.strftime("%Y%m%d%H%M%SZ").encode()
    assert der._time(raw, 0, len(raw), "time") == (moment.timestamp(), len(raw))


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        pytest.param(pki.make(uris=()), svid.NO_URI_SAN, id="no SAN"),
        pytest.param(pki.make(uris=(), others=[x509.DNSName("a")]), svid.NO_URI_SAN, id="DNS SAN only"),
        pytest.param(
            pki.make(uris=(), others=[x509.DNSName(WEB)]), svid.NO_URI_SAN, id="DNS SAN reads spiffe://"
        ),
        pytest.param(pki.make(uris=(WEB, WEB + "2")), svid.MANY_URI_SANS, id="two URIs"),
        pytest.param(pki.make(uris=(WEB, WEB)), svid.MANY_URI_SANS, id="the same URI twice"),
        pytest.param(pki.make(uris=(WEB, "https://a.example/")), svid.MANY_URI_SANS, id="URI beside the ID"),
        pytest.param(pki.make(uris=("https://a.example/",)), svid.BAD_SPIFFE_ID, id="another scheme"),
        pytest.param(pki.make(uris=(WEB + "?a",)), svid.BAD_SPIFFE_ID, id="query"),
        pytest.param(pki.make(uris=(WEB + "#a",)), svid.BAD_SPIFFE_ID, id="fragment"),
        pytest.param(pki.make(uris=(WEB + "/",)), svid.BAD_SPIFFE_ID, id="trailing slash"),
        pytest.param(pki.make(uris=("spiffe://mesh.local:1/a",)), svid.BAD_SPIFFE_ID, id="port"),
        pytest.param(pki.make(uris=("spiffe://MESH.local/a",)), svid.BAD_SPIFFE_ID, id="upper case"),
        pytest.param(pki.make(uris=("spiffe://mesh.local/a%2fb",)), svid.BAD_SPIFFE_ID, id="percent"),
        pytest.param(pki.make(uris=("spiffe://mesh.local/../a",)), svid.BAD_SPIFFE_ID, id="dot segments"),
        pytest.param(pki.make(uris=("spiffe://mesh.local",)), svid.ROOT_PATH, id="root path"),
        pytest.param(pki.make(uris=(WEB + "\x00.evil",)), svid.MALFORMED, id="NUL in the URI"),
        pytest.param(pki.make(uris=(WEB + "\r\n",)), svid.MALFORMED, id="CR LF in the URI"),
        pytest.param(pki.make(others=[x509.DNSName("a\x00b")]), svid.MALFORMED, id="NUL in a DNS name"),
        pytest.param(pki.make(ca=True), svid.IS_CA, id="cA true"),
        pytest.param(pki.make(usage=None), svid.NO_KEY_USAGE, id="no keyUsage"),
        pytest.param(pki.make(usage_critical=False), svid.KEY_USAGE_NOT_CRITICAL, id="keyUsage not critical"),
        pytest.param(
            pki.make(usage=frozenset({"key_encipherment"})),
            svid.NO_DIGITAL_SIGNATURE,
            id="no digitalSignature",
        ),
        pytest.param(
            pki.make(usage=pki.LEAF_USAGE | {"key_cert_sign"}), svid.SIGNING_KEY_USAGE, id="keyCertSign"
        ),
        pytest.param(pki.make(usage=pki.LEAF_USAGE | {"crl_sign"}), svid.SIGNING_KEY_USAGE, id="cRLSign"),
        pytest.param(pki.make(ekus=[ExtendedKeyUsageOID.SERVER_AUTH]), svid.INCOMPLETE_EKU, id="server only"),
        pytest.param(pki.make(ekus=[ExtendedKeyUsageOID.CLIENT_AUTH]), svid.INCOMPLETE_EKU, id="client only"),
        pytest.param(
            pki.make(ekus=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), svid.INCOMPLETE_EKU, id="any EKU"
        ),
        pytest.param(
            pki.make(uris=("spiffe://other.local/ns/default/sa/web",)),
            svid.FOREIGN_TRUST_DOMAIN,
            id="foreign",
        ),
        pytest.param(CA, svid.ROOT_PATH, id="a CA certificate"),
    ],
)
def test_each_rule_of_a_leaf(certificate: pki.Pair, reason: str) -> None:
    with pytest.raises(SvidError) as caught:
        check_leaf(certificate.der, "mesh.local")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "certificate",
    [
        pytest.param(pki.make(ekus=None), id="no EKU"),
        pytest.param(pki.make(ekus=[*pki.BOTH_EKUS, ExtendedKeyUsageOID.CODE_SIGNING]), id="more EKUs"),
        pytest.param(pki.make(ca=None), id="no basicConstraints"),
        pytest.param(pki.make(subject=None, san_critical=True), id="no subject"),
        pytest.param(pki.make(usage=pki.LEAF_USAGE | {"key_agreement", "decipher_only"}), id="other usages"),
        pytest.param(
            pki.make(
                others=[
                    x509.DNSName("a.example"),
                    x509.IPAddress(ipaddress.ip_address("::1")),
                    x509.RFC822Name("a@example.org"),
                    x509.DirectoryName(pki.name("x")),
                ]
            ),
            id="other SAN types",
        ),
    ],
)
def test_what_the_rules_allow(certificate: pki.Pair) -> None:
    assert str(check_leaf(certificate.der, "mesh.local")) == WEB


def test_other_san_types_are_never_the_identity() -> None:
    pair = pki.make(others=[x509.DNSName("spiffe://mesh.local/ns/default/sa/admin")])
    assert str(check_leaf(pair.der)) == WEB


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        pytest.param(pki.make(), svid.NOT_A_CA, id="a leaf"),
        pytest.param(pki.make_ca(ca=None), svid.NOT_A_CA, id="no basicConstraints"),
        pytest.param(pki.make_ca(usage=pki.LEAF_USAGE), svid.NO_CERT_SIGN, id="no keyCertSign"),
        pytest.param(pki.make_ca(usage=None), svid.NO_CERT_SIGN, id="no keyUsage"),
        pytest.param(pki.make_ca(uris=(WEB,)), svid.SIGNER_WITH_PATH, id="a workload's ID"),
        pytest.param(pki.make_ca("other.local"), svid.FOREIGN_TRUST_DOMAIN, id="foreign"),
        pytest.param(pki.make_ca(uris=("spiffe://a", "spiffe://b")), svid.MANY_URI_SANS, id="two URIs"),
    ],
)
def test_each_rule_of_a_signer(certificate: pki.Pair, reason: str) -> None:
    with pytest.raises(SvidError) as caught:
        check_signer(certificate.der, "mesh.local")
    assert caught.value.reason == reason


def test_a_signer_needs_no_id() -> None:
    assert check_signer(pki.make_ca(uris=()).der, "mesh.local") is None
    assert check_signer(CA.der, "mesh.local") == SpiffeId("mesh.local", "")


@given(st.data())
def test_damaged_bytes_are_refused_and_never_crash(data: st.DataObject) -> None:
    """Cut or altered anywhere, a certificate reads as one or raises SvidError: nothing else."""
    raw = bytearray(GOOD.der)
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
        with pytest.raises(SvidError):
            read_leaf(bytes(raw))
        return
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_leaf(bytes(raw))
    except SvidError as error:
        assert error.reason


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(SvidError):
        check_leaf(raw)


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    if size < 0x100:
        return bytes([tag, 0x81, size]) + content
    return bytes([tag, 0x82]) + size.to_bytes(2, "big") + content


def assemble(*extensions: bytes, version: bytes = b"\xa0\x03\x02\x01\x02", tail: bytes = b"") -> bytes:
    """A certificate by hand, for what ``cryptography`` would not write."""
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    times = tlv(0x30, b"\x17\x0d260101000000Z", b"\x17\x0d270101000000Z")
    empty = b"\x30\x00"
    key = tlv(0x30, tlv(0x30), b"\x03\x01\x00")
    body = [version, b"\x02\x01\x05", algorithm, empty, times, empty, key]
    if extensions:
        body.append(tlv(0xA3, tlv(0x30, *extensions)))
    return tlv(0x30, tlv(0x30, *body), algorithm, b"\x03\x01\x00") + tail


SAN = tlv(0x30, b"\x06\x03\x55\x1d\x11", tlv(0x04, tlv(0x30, tlv(0x86, WEB.encode()))))
USAGE = bytes.fromhex("300e0603551d0f0101ff040403020780")


def test_the_certificate_made_by_hand_is_good() -> None:
    assert str(check_leaf(assemble(SAN, USAGE))) == WEB


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (assemble(SAN, USAGE, SAN), "given twice"),
        (assemble(SAN, USAGE, version=b"\xa0\x03\x02\x01\x01"), "version"),
        (assemble(SAN, USAGE, version=b""), "version"),
        (assemble(SAN, USAGE, tail=b"\x00"), "left over"),
        (b"\x30\x80" + assemble(SAN, USAGE)[3:], "DER does not allow"),
        (b"\x30\x83\x00" + assemble(SAN, USAGE)[2:], "not minimal"),
        (assemble(SAN, bytes.fromhex("300e0603551d0f010101040403020780")), "only TRUE"),
        (assemble(SAN, bytes.fromhex("300e0603551d0f0101ff040403020880")), "bit string"),
        (
            assemble(SAN, USAGE, bytes.fromhex("300c0603551d1304053003010101")),
            "neither TRUE",
        ),
        (
            assemble(
                tlv(0x30, b"\x06\x03\x55\x1d\x11", tlv(0x04, tlv(0x30, tlv(0x86, b"spiffe://\xe9")))), USAGE
            ),
            "ASCII",
        ),
    ],
)
def test_what_is_not_der_is_malformed(raw: bytes, wrong: str) -> None:
    with pytest.raises(SvidError, match=wrong) as caught:
        check_leaf(raw)
    assert caught.value.reason == svid.MALFORMED


def test_reading_imports_no_cryptography() -> None:
    """The data process judges peers without paying for cryptography's import."""
    code = (
        "import sys, certs.svid, certs.bundle, certs.join_token, certs.files, certs.schedule, proxy.tls.identity\n"
        "sys.exit(any(name.split('.')[0] == 'cryptography' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
