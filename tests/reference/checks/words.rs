//! Numbers, strings, times, hashes.

use serde_json::json;

use crate::reference::{json as canonical_json, place, time};

#[test]
fn numbers_print_as_rfc_8785_says() {
    let rows: &[(u64, &str)] = &[
        // Appendix B of RFC 8785: the bits of a double, and its text.
        (0x0000_0000_0000_0000, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
        (0x4340_0000_0000_0000, "9007199254740992"),
        (0x4430_0000_0000_0000, "295147905179352830000"),
        (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
        (0x44b5_2d02_c7e1_4af6, "1e+23"),
        (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
        (0x444b_1ae4_d6e2_ef50, "1e+21"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
    ];
    for (bits, text) in rows {
        assert_eq!(canonical_json::es_number(f64::from_bits(*bits)), *text, "{bits:x}");
    }
}

#[test]
fn keys_are_sorted_by_utf_16_and_strings_escaped_as_little_as_legal() {
    let value = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
    let expected = "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}";
    assert_eq!(canonical_json::canonical(&value), expected);
    let value = json!(["\u{8}\u{c}\n\t\u{1}\"\\/\u{7f}\u{2028}"]);
    assert_eq!(
        canonical_json::canonical(&value),
        "[\"\\b\\f\\n\\t\\u0001\\\"\\\\/\u{7f}\u{2028}\"]"
    );
    let exact = canonical_json::exact("{\"a\":1,\"b\":[1E2,-0],\"a\":0.1e1}").expect("JSON");
    assert_eq!(canonical_json::canonical(&exact), "{\"a\":1,\"b\":[100,0]}");
}

#[test]
fn times_are_read_in_every_form_and_written_in_one() {
    let rows = [
        ("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00.000Z")),
        ("2026-02-19t12:00:00.123999z", Some("2026-02-19T12:00:00.123Z")),
        ("2026-01-01T00:30:00.5+05:45", Some("2025-12-31T18:45:00.500Z")),
        ("1969-12-31T23:59:59.9996Z", Some("1969-12-31T23:59:59.999Z")),
        ("0000-01-01T00:00:00Z", Some("0000-01-01T00:00:00.000Z")),
        ("9999-12-31T23:59:59.999Z", Some("9999-12-31T23:59:59.999Z")),
        ("2024-02-29T23:59:59-00:30", Some("2024-03-01T00:29:59.000Z")),
        ("0000-01-01T00:00:00+00:01", None),
        ("2023-02-29T00:00:00Z", None),
        ("2026-02-19T12:00:00", None),
        ("2026-02-19T12:00:00.Z", None),
        ("2026-02-19 12:00:00Z", None),
        ("2026-02-19T12:00:00+0100", None),
    ];
    for (text, expected) in rows {
        assert_eq!(time::parse(text).and_then(time::format).as_deref(), expected, "{text}");
    }
    for day in (-719_528_i64..2_932_896).step_by(97) {
        let ms = day * 86_400_000 + 86_399_999;
        let text = time::format(ms).expect("a year of four digits");
        assert_eq!(time::parse(&text), Some(ms), "{text}");
    }
}

#[test]
fn hashes_agree_with_published_values() {
    let rows: &[(&[u8], i32)] = &[
        // Kafka's UtilsTest.testMurmur2.
        (b"21", -973_932_308),
        (b"foobar", -790_332_482),
        (b"a-little-bit-long-string", -985_981_536),
        (b"abc", 479_470_107),
    ];
    for (key, hash) in rows {
        assert_eq!(place::murmur2(key) as i32, *hash);
    }
    assert_eq!(place::crc32c(&[b"1234", b"56789"]), 0xe306_9283);
}
