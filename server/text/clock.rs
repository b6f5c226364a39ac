//! Dates for chat templates, in UTC, as Python's `strftime` writes them.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::parse_strftime_owned;

/// A field is padded to so many characters at most.
const WIDEST: usize = 99;

/// Writes `now` as `format` says, with the codes of C's `strftime`, the flags that GNU adds (`-`, `_`, `0`, `^`, `#`, and a
/// width) and Python's `%f`. As in Python, a time without a zone has no name of it: `%z` and `%Z` are empty. `None` for any
/// other code.
///
/// The codes: <https://man7.org/linux/man-pages/man3/strftime.3.html>.
pub(super) fn strftime(format: &str, now: SystemTime) -> Option<String> {
    let now = OffsetDateTime::from(now);
    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut field = Field::default();
        let code = loop {
            match chars.next()? {
                pad @ ('-' | '_') => field.pad = Some(pad),
                '0' if field.width == 0 => field.pad = Some('0'),
                '^' => field.upper = true,
                '#' => field.other_case = true,
                digit @ '0'..='9' => {
                    field.width = 10 * field.width + digit as usize - '0' as usize;
                    if field.width > WIDEST {
                        return None;
                    }
                }
                // The locale's other numbers and eras, of which C's locale has none.
                'E' | 'O' => {}
                code => break code,
            }
        };
        field.write(code, now, &mut text)?;
    }
    Some(text)
}

/// How a code is to be written.
#[derive(Default)]
struct Field {
    /// `-`: not at all; `_`: by spaces; `0`: by zeros.
    pad: Option<char>,
    width: usize,
    upper: bool,
    other_case: bool,
}

impl Field {
    fn write(&self, code: char, now: OffsetDateTime, text: &mut String) -> Option<()> {
        let mut written = match code {
            'f' => format!("{:06}", now.microsecond()),
            'z' | 'Z' => String::new(),
            // C counts from Sunday, 0.
            'w' => now.weekday().number_days_from_sunday().to_string(),
            _ => {
                let pad = self.pad.map(String::from).unwrap_or_default();
                let item = parse_strftime_owned(&format!("%{pad}{code}")).ok()?;
                now.format(&item).ok()?
            }
        };
        if self.upper || (self.other_case && "aAbBh".contains(code)) {
            written = written.to_uppercase();
        } else if self.other_case && code == 'p' {
            written = written.to_lowercase();
        }
        let is_number = "CdgGHIjmMsSuUVwWyY".contains(code);
        let filler = match self.pad {
            Some('0') => '0',
            None if is_number => '0',
            _ => ' ',
        };
        let missing = self.width.saturating_sub(written.chars().count());
        text.extend(std::iter::repeat_n(filler, missing));
        text.push_str(&written);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(seconds: u64, format: &str) -> Option<String> {
        strftime(format, UNIX_EPOCH + Duration::from_secs(seconds))
    }

    /// What `datetime.fromtimestamp(t, tz=utc).replace(tzinfo=None).strftime(format)` gives on Linux.
    #[test]
    fn dates_are_those_of_python() {
        let new_year = 1_735_689_599;
        let leap_day = 951_782_400;
        for (seconds, format, expected) in [
            (0, "%A %d %B %Y %T", "Thursday 01 January 1970 00:00:00"),
            (leap_day, "%a %e %b %y, day %j", "Tue 29 Feb 00, day 060"),
            (new_year, "%F %I:%M:%S %p", "2024-12-31 11:59:59 PM"),
            (new_year, "%j", "366"),
            (
                1_704_110_400,
                "%d %b %Y %I%p 100%%",
                "01 Jan 2024 12PM 100%",
            ),
            (0, "%-d %B %Y", "1 January 1970"),
            (0, "%-m/%-d/%-y %-H:%-M %-I", "1/1/70 0:0 12"),
            (0, "%_d|%_m|%_H", " 1| 1| 0"),
            (0, "%k|%l|%P", " 0|12|am"),
            (leap_day, "%c", "Tue Feb 29 00:00:00 2000"),
            (
                leap_day,
                "%x %X %D %R %r",
                "02/29/00 00:00:00 02/29/00 00:00 12:00:00 AM",
            ),
            (leap_day, "%C %G %g %V %u %w", "20 2000 00 09 2 2"),
            (new_year, "%G %V %U %W", "2025 01 52 53"),
            (3 * 86_400, "%a %u %w", "Sun 7 0"),
            (4 * 86_400, "%a %u %w", "Mon 1 1"),
            (leap_day, "%s", "951782400"),
            (leap_day, "%h%n%t%f|%z|%Z|", "Feb\n\t000000|||"),
            (leap_day, "%^a %^B %#p %#b", "TUE FEBRUARY am FEB"),
            (
                leap_day,
                "%5d|%_5d|%-5d|%010Y|%5a",
                "00029|   29|   29|0000002000|  Tue",
            ),
            (
                leap_day,
                "%5e|%05e|%05a|%12F",
                "   29|00029|00Tue|  2000-02-29",
            ),
            (leap_day, "%Ey %Od", "00 29"),
        ] {
            assert_eq!(at(seconds, format).as_deref(), Some(expected), "{format}");
        }
    }

    #[test]
    fn unknown_codes_and_endless_ones_are_refused() {
        for format in ["%Q", "%", "%-", "%100d", "%99999999999999999999d"] {
            assert_eq!(at(0, format), None, "{format}");
        }
    }
}
