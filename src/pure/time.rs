//! Instants in UTC, to the millisecond. In: RFC 3339 text or milliseconds since 1970. Out: RFC 3339 in UTC with
//! milliseconds. A finer fraction is cut. A leap second (`:60`) is the second after it.
//! Source: RFC 3339 §5.6; days from dates by Hinnant, "chrono-Compatible Low-Level Date Algorithms".

use std::fmt;

/// Milliseconds since 1970 in UTC, from the year 0000 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

const DAY_MS: i64 = 86_400_000;
/// `0000-01-01T00:00:00Z`.
const FIRST_MS: i64 = -62_167_219_200_000;
/// `9999-12-31T23:59:59.999Z`.
const LAST_MS: i64 = 253_402_300_799_999;

/// Length of [`Time`]'s text.
const TEXT_BYTES: usize = 24;

impl Time {
    /// 1970, where only that there is a time matters.
    pub const EPOCH: Self = Self(0);

    /// The instant `ms` milliseconds after 1970; `None` outside the years 0000–9999.
    pub fn from_ms(ms: i64) -> Option<Self> {
        (FIRST_MS..=LAST_MS).contains(&ms).then_some(Self(ms))
    }

    /// Milliseconds since 1970.
    pub fn ms(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339; `None` if it is none, or lies outside the years 0000–9999 in UTC.
    pub fn parse(text: &str) -> Option<Self> {
        let as_written = text.as_bytes().try_into().ok().and_then(Self::of_text);
        as_written.or_else(|| Self::of_any_form(text))
    }

    /// Reads the form in which it is written here, and by nearly everybody: eight bytes at a time.
    #[inline]
    fn of_text(text: &[u8; TEXT_BYTES]) -> Option<Self> {
        const FORM: &[u8; TEXT_BYTES] = b"0000-00-00T00:00:00.000Z";
        let (words, _) = text.as_chunks::<8>();
        let (forms, _) = FORM.as_chunks::<8>();
        let mut pairs = [[0; 8]; 3];
        for ((word, form), pairs) in words.iter().zip(forms).zip(&mut pairs) {
            // Digits as numbers; the other bytes are 0 if they are the form's.
            let word = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*form);
            // The highest bit of a byte that is above 9, or above 0 where the form has no digit.
            let room = u64::from_le_bytes(form.map(|byte| if byte == b'0' { 0x76 } else { 0x7f }));
            let highest = 0x8080_8080_8080_8080;
            if (((word & !highest) + room) | word) & highest != 0 {
                return None;
            }
            *pairs = (word * 10 + (word >> 8)).to_le_bytes();
        }
        let [
            [century, _, year, _, _, month, ..],
            [day, _, _, hour, _, _, minute, _],
            [_, second, _, _, tens, _, ms, _],
        ] = pairs;
        // The last digit of the fraction stands before the `Z`, which counts as 0.
        let ms = i64::from(tens) * 10 + i64::from(ms) / 10;
        let [century, year, month, day] = [century, year, month, day].map(i64::from);
        Self::of_parts(
            century * 100 + year,
            [month, day],
            [hour, minute, second].map(i64::from),
            ms,
            0,
        )
    }

    fn of_any_form(text: &str) -> Option<Self> {
        let (date_time, rest) = text.as_bytes().split_first_chunk::<19>()?;
        let [
            y1,
            y2,
            y3,
            y4,
            b'-',
            m1,
            m2,
            b'-',
            d1,
            d2,
            b'T' | b't',
            h1,
            h2,
            b':',
            i1,
            i2,
            b':',
            s1,
            s2,
        ] = date_time
        else {
            return None;
        };
        let (year, month, day) = (digits([*y1, *y2, *y3, *y4])?, digits([*m1, *m2])?, digits([*d1, *d2])?);
        let (hour, minute, second) = (digits([*h1, *h2])?, digits([*i1, *i2])?, digits([*s1, *s2])?);
        let (fraction_ms, zone) = fraction(rest)?;
        Self::of_parts(
            year,
            [month, day],
            [hour, minute, second],
            fraction_ms,
            zone_seconds(zone)?,
        )
    }

    #[inline]
    fn of_parts(year: i64, [month, day]: [i64; 2], time: [i64; 3], ms: i64, zone_seconds: i64) -> Option<Self> {
        let [hour, minute, second] = time;
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in(year, month)
            || hour > 23
            || minute > 59
            || second > 60
        {
            return None;
        }
        let seconds = (hour * 60 + minute) * 60 + second - zone_seconds;
        Self::from_ms(days_from_date(year, month, day) * DAY_MS + seconds * 1000 + ms)
    }

    /// Appends the text.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.text());
    }

    fn text(self) -> [u8; TEXT_BYTES] {
        let (days, ms) = (self.0.div_euclid(DAY_MS), self.0.rem_euclid(DAY_MS));
        let (year, month, day) = date_from_days(days);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text[0..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], ms / 3_600_000);
        put(&mut text[14..16], ms / 60_000 % 60);
        put(&mut text[17..19], ms / 1000 % 60);
        put(&mut text[20..23], ms % 1000);
        text
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

#[inline]
fn digits<const N: usize>(bytes: [u8; N]) -> Option<i64> {
    let digits = bytes.map(|byte| byte.wrapping_sub(b'0'));
    let number = digits.iter().fold(0, |number, digit| number * 10 + i64::from(*digit));
    digits.iter().all(|digit| *digit < 10).then_some(number)
}

/// The fraction in milliseconds, and what follows it.
fn fraction(rest: &[u8]) -> Option<(i64, &[u8])> {
    let Some(after_point) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let length = after_point.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, zone) = after_point.split_at(length);
    let ms = (0..3).fold(0, |ms, i| {
        ms * 10 + fraction.get(i).map_or(0, |byte| i64::from(byte - b'0'))
    });
    (length > 0).then_some((ms, zone))
}

fn zone_seconds(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (digits([*h1, *h2])?, digits([*m1, *m2])?);
            let seconds = (hours * 60 + minutes) * 60;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

fn put(out: &mut [u8], mut number: i64) {
    for byte in out.iter_mut().rev() {
        *byte = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[rustfmt::skip] // a table is read by column
    fn rfc_3339_is_read_and_written_in_utc_with_milliseconds() {
        let rows = [
            ("2026-02-19T12:00:00.123Z",       "2026-02-19T12:00:00.123Z"),
            ("2026-02-19t12:00:00z",           "2026-02-19T12:00:00.000Z"),
            ("2026-02-19T12:00:00.9999999Z",   "2026-02-19T12:00:00.999Z"),
            ("2026-02-19T12:00:00.5+02:00",    "2026-02-19T10:00:00.500Z"),
            ("2026-12-31T23:30:00-01:00",      "2027-01-01T00:30:00.000Z"),
            ("2016-12-31T23:59:60Z",           "2017-01-01T00:00:00.000Z"),
            ("2024-02-29T00:00:00Z",           "2024-02-29T00:00:00.000Z"),
            ("1969-12-31T23:59:59.999Z",       "1969-12-31T23:59:59.999Z"),
            ("0000-01-01T00:00:00Z",           "0000-01-01T00:00:00.000Z"),
        ];
        for (text, expected) in rows {
            assert_eq!(Time::parse(text).map(|time| time.to_string()).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_rfc_3339_is_no_time() {
        for text in [
            "",
            "2026",
            "2026-02-19",
            "2026-02-19T12:00:00",
            "2026-02-19 12:00:00Z",
            "2026-02-30T00:00:00Z",
            "2025-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-02-19T24:00:00Z",
            "2026-02-19T12:60:00Z",
            "2026-02-19T12:00:00.Z",
            "2026-02-19T12:00:00+0200",
            "2026-02-19T12:00:00+24:00",
            "2026-02-19T12:00:00ZZ",
            "+026-02-19T12:00:00Z",
            "0000-01-01T00:00:00+01:00",
            "2026-02-19T12:00:00\u{e9}",
            "1771502400",
        ] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_usual_form_is_read_as_any_other(
            ms in FIRST_MS..=LAST_MS,
            changes in prop::collection::vec((0..TEXT_BYTES, prop::sample::select(b"/09:;tTzZ.-+ \x7f".to_vec())), 0..3),
        ) {
            let mut text = Time(ms).text();
            changes.iter().for_each(|(at, byte)| text[*at] = *byte);
            let read = std::str::from_utf8(&text).ok().and_then(Time::of_any_form);
            prop_assert_eq!(Time::of_text(&text).or(read), read);
            prop_assert!(!changes.is_empty() || Time::of_text(&text) == Some(Time(ms)));
        }

        #[test]
        fn a_time_reads_its_own_text(ms in FIRST_MS..=LAST_MS) {
            let time = Time::from_ms(ms).expect("in range");
            prop_assert_eq!(Time::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = Time::parse(&text);
        }
    }
}
