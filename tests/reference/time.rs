//! RFC 3339 in, milliseconds since 1970 between, RFC 3339 in UTC with milliseconds out.
//! Years 0000 to 9999; fractions are cut; a leap second counts as the next one.

/// Milliseconds since 1970; `None` if the text is not RFC 3339.
pub fn parse(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 {
        return None;
    }
    let shape = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if shape.iter().any(|(at, c)| bytes[*at] != *c) || !matches!(bytes[10], b'T' | b't') {
        return None;
    }
    let (year, month, day) = (number(&text[..4])?, number(&text[5..7])?, number(&text[8..10])?);
    let (hour, minute, second) = (number(&text[11..13])?, number(&text[14..16])?, number(&text[17..19])?);
    if !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (ms, zone) = fraction(&text[19..])?;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset_seconds(zone)?;
    let at = seconds * 1000 + ms;
    (days(0, 1, 1) * 86_400_000..days(10_000, 1, 1) * 86_400_000)
        .contains(&at)
        .then_some(at)
}

/// `2026-02-19T12:00:00.123Z`; `None` outside the years 0000 to 9999.
pub fn format(ms: i64) -> Option<String> {
    if !(days(0, 1, 1) * 86_400_000..days(10_000, 1, 1) * 86_400_000).contains(&ms) {
        return None;
    }
    let (mut day, rest) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    // Not past the year that is sought, on both sides of 1970.
    let mut year = 1970 + day.div_euclid(if day < 0 { 365 } else { 366 });
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    day -= days(year, 1, 1);
    let mut month = 1;
    while day >= days_in(year, month) {
        day -= days_in(year, month);
        month += 1;
    }
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1000 % 60);
    Some(format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        day + 1,
        rest % 1000
    ))
}

fn number(text: &str) -> Option<i64> {
    text.bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

/// Milliseconds of the fraction, and what follows it.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    let digits = format!("{:0<3}", &rest[..end]);
    (end > 0).then_some((number(&digits[..3])?, &rest[end..]))
}

fn offset_seconds(zone: &str) -> Option<i64> {
    if zone == "Z" || zone == "z" {
        return Some(0);
    }
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    if hours.len() != 2 || minutes.len() != 2 {
        return None;
    }
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, Gregorian calendar in both directions.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let before = year - 1;
    let leaps = before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400);
    let months: i64 = (1..month).map(|m| days_in(year, m)).sum();
    before * 365 + leaps + months + day - 1 - 719_162
}
