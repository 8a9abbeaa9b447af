//! Dates in HTTP headers.
//!
//! RFC 9110 (section 5.6.7) has three formats, and every recipient must accept all of them. Servers also send them
//! with other blanks, a wrong weekday or a day of one digit. The `httpdate` crate accepts only the exact formats, so
//! a date is brought into the exact form of the first one, and the crate does the arithmetic.

use std::time::UNIX_EPOCH;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Parses an HTTP date in each of the three formats, as Unix seconds: `Sun, 06 Nov 1994 08:49:37 GMT`,
/// `Sunday, 06-Nov-94 08:49:37 GMT` and `Sun Nov  6 08:49:37 1994`. The number of blanks, upper and lower case and
/// the weekday do not matter. `None` if it is not a date, or before 1970.
pub fn parse_http_date(date: &str) -> Option<i64> {
    let (mut month, mut time, mut numbers) = (None, None, Vec::new());
    for (index, word) in date.split([' ', '\t', ',', '-']).filter(|word| !word.is_empty()).enumerate() {
        if word.contains(':') {
            if time.replace(exact_time(word)?).is_some() {
                return None;
            }
        } else if let Some(number) = number(word) {
            numbers.push(number);
        } else if let Some(found) = MONTHS.iter().find(|name| name.eq_ignore_ascii_case(word)) {
            if month.replace(found).is_some() {
                return None;
            }
        } else {
            let is_weekday = index == 0 && word.is_ascii() && {
                WEEKDAYS.iter().any(|name| word.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(name)))
            };
            let is_zone = time.is_some() && ["GMT", "UTC", "Z"].iter().any(|zone| zone.eq_ignore_ascii_case(word));
            if !is_weekday && !is_zone {
                return None;
            }
        }
    }
    let [day, year] = *numbers else { return None };
    // As httpdate reads a year of two digits.
    let year = match year {
        0..70 => year + 2000,
        70..100 => year + 1900,
        _ => year,
    };
    let (month, time) = (month?, time?);
    // httpdate compares the weekday with the date. Exactly one is right.
    let found = WEEKDAYS.iter().find_map(|weekday| {
        httpdate::parse_http_date(&format!("{weekday}, {day:02} {month} {year:04} {time} GMT")).ok()
    })?;
    i64::try_from(found.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// A number of at most four digits.
fn number(word: &str) -> Option<u16> {
    let is_short = word.len() <= 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    is_short.then(|| word.parse().ok())?
}

/// A time of day with two digits in each of its three parts.
fn exact_time(word: &str) -> Option<String> {
    let parts: Vec<_> = word.split(':').map(|part| number(part).filter(|_| part.len() <= 2)).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = *parts else { return None };
    // The second 60 is a leap second, which httpdate does not know.
    Some(format!("{hours:02}:{minutes:02}:{:02}", if seconds == 60 { 59 } else { seconds }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_have_three_formats() {
        for (date, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 8:61:37 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 99999999999 08:49:37 GMT", None),
            ("S\u{fc}n, 06 Nov 1994 08:49:37 GMT", None),
            ("Fri, 30 Feb 2024 23:59:59 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT 08:49:37", None),
            ("Sun, 06 Nov Nov 1994 08:49:37 GMT", None),
            ("06 Nov 1994 08:49:37 7", None),
            ("GMT, 06 Nov 1994 08:49:37", None),
            ("Sun, 06 Nov 1994", None),
            ("7", None),
            ("", None),
        ] {
            assert_eq!(parse_http_date(date), seconds, "{date}");
        }
    }

    #[test]
    fn blanks_case_and_the_weekday_do_not_matter() {
        for date in [
            "  Sun,  06  Nov  1994  08:49:37  GMT ",
            "Sun,06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 8:49:37 GMT",
            "Sun,\t06 Nov 1994\t08:49:37 GMT",
            "sun, 06 NOV 1994 08:49:37 gmt",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sunday, 6-Nov-94 08:49:37 UTC",
            "Sun Nov 06 08:49:37 1994",
            "Sun Nov 6 08:49:37 1994",
            "Sun Nov  6 08:49:37 GMT 1994",
            "Tuesday, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(parse_http_date(date), Some(784_111_777), "{date:?}");
        }
    }
}
