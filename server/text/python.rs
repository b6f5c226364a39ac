//! Python's methods of strings, for chat templates: those that minijinja's own compatibility layer lacks, or has without
//! all of their arguments. Positions are in characters.
//!
//! <https://docs.python.org/3/library/stdtypes.html#string-methods>

use std::sync::LazyLock;

use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use regex::Regex;

/// A text is padded to so many characters at most: a template is not trusted.
const WIDEST: usize = 1024;
/// Nor may a method make a text longer than this out of a short one. minijinja charges a template for its results when
/// they are there.
const LONGEST: usize = 1 << 20;

/// Calls a method that minijinja does not have of its own.
pub(super) fn call_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = of_text(state, text, method, args)
    {
        return result;
    }
    unknown_method_callback(state, value, method, args)
}

/// `None`: another one's.
fn of_text(
    state: &mut State,
    text: &str,
    method: &str,
    args: &[Value],
) -> Option<Result<Value, Error>> {
    Some(match method {
        "removeprefix" => one(args, |prefix| {
            text.strip_prefix(prefix).unwrap_or(text).into()
        }),
        "removesuffix" => one(args, |suffix| {
            text.strip_suffix(suffix).unwrap_or(text).into()
        }),
        "partition" => separated(args, |by| {
            text.split_once(by)
                .map_or([text, "", ""], |(before, after)| [before, by, after])
        }),
        "rpartition" => separated(args, |by| {
            text.rsplit_once(by)
                .map_or(["", "", text], |(before, after)| [before, by, after])
        }),
        "rsplit" => rsplit(text, args),
        "split" => split(state, text, args),
        "find" | "rfind" | "index" | "rindex" => found(text, method, args),
        "count" => within(text, args).map(|(part, what, _)| match part {
            None => 0.into(),
            Some(part) if what.is_empty() => (part.chars().count() + 1).into(),
            Some(part) => part.matches(what).count().into(),
        }),
        "startswith" => affix(text, args, |part, affix| part.starts_with(affix)),
        "endswith" => affix(text, args, |part, affix| part.ends_with(affix)),
        "ljust" | "rjust" | "center" => aligned(text, method, args),
        "zfill" => zfill(text, args),
        "expandtabs" => expandtabs(text, args),
        "replace" => replace(text, args),
        "join" => join(text, args),
        "title" => none(args, || title(text).into()),
        "splitlines" => split_lines(text, args),
        // Letter by letter: as a word, a last sigma would stay one.
        "casefold" => none(args, || {
            let folded = text.chars().flat_map(char::to_lowercase);
            folded
                .collect::<String>()
                .replace('ß', "ss")
                .replace('ς', "σ")
                .into()
        }),
        "swapcase" => none(args, || swapcase(text).into()),
        "translate" => translate(text, args),
        "format_map" => from_args(args).and_then(|(map,): (&Value,)| {
            let pairs: Result<Vec<(String, Value)>, Error> = map
                .try_iter()?
                .map(|key| Ok((key.to_string(), map.get_item(&key)?)))
                .collect();
            let named = Value::from(Kwargs::from_iter(pairs?));
            unknown_method_callback(state, &text.into(), "format", &[named])
        }),
        "isdecimal" => none(args, || {
            all(text, |c| c.is_numeric() && is_decimal(c)).into()
        }),
        "isdigit" => none(args, || {
            all(text, |c| is_decimal(c) || is_raised_or_ringed(c)).into()
        }),
        "isidentifier" => none(args, || is_identifier(text).into()),
        "isprintable" => none(args, || {
            static OTHERS: LazyLock<Regex> =
                LazyLock::new(|| Regex::new(r"[\p{C}\p{Z}&&[^ ]]").expect("a pattern"));
            (!OTHERS.is_match(text)).into()
        }),
        "istitle" => none(args, || is_title(text).into()),
        _ => return None,
    })
}

fn none(args: &[Value], result: impl FnOnce() -> Value) -> Result<Value, Error> {
    let () = from_args(args)?;
    Ok(result())
}

fn one(args: &[Value], result: impl FnOnce(&str) -> Value) -> Result<Value, Error> {
    let (argument,): (&str,) = from_args(args)?;
    Ok(result(argument))
}

fn separated<'a>(
    args: &'a [Value],
    result: impl FnOnce(&'a str) -> [&'a str; 3],
) -> Result<Value, Error> {
    let (by,): (&str,) = from_args(args)?;
    if by.is_empty() {
        return Err(wrong("empty separator"));
    }
    Ok(result(by).into_iter().map(Value::from).collect())
}

/// `(sep=None, maxsplit=-1)`.
fn separator(args: &[Value]) -> Result<(Option<String>, Option<usize>), Error> {
    let (by, most, named): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let by = match by {
        Some(by) => Some(by),
        None => named.get::<Option<Value>>("sep")?,
    };
    let most = match most {
        Some(most) => Some(most),
        None => named.get::<Option<i64>>("maxsplit")?,
    };
    named.assert_all_used()?;
    let by = by.filter(|by| !by.is_none() && !by.is_undefined());
    let by = by.map(|by| by.to_string());
    if by.as_deref() == Some("") {
        return Err(wrong("empty separator"));
    }
    Ok((by, most.and_then(|most| usize::try_from(most).ok())))
}

fn split(state: &mut State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (by, most) = separator(args)?;
    let by = by.map_or(().into(), Value::from);
    let most = most.map_or((-1).into(), Value::from);
    unknown_method_callback(state, &text.into(), "split", &[by, most])
}

fn rsplit(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (by, most) = separator(args)?;
    let most = most.unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut rest = text;
    let Some(by) = by else {
        rest = rest.trim_end();
        while parts.len() < most
            && let Some((at, space)) = rest.char_indices().rfind(|(_, c)| c.is_whitespace())
        {
            parts.push(&rest[at + space.len_utf8()..]);
            rest = rest[..at].trim_end();
        }
        parts.push(rest.trim_end());
        return Ok(in_order(parts.into_iter().filter(|part| !part.is_empty())));
    };
    while parts.len() < most
        && let Some((before, after)) = rest.rsplit_once(&by)
    {
        parts.push(after);
        rest = before;
    }
    parts.push(rest);
    Ok(in_order(parts))
}

fn in_order<'a>(parts: impl IntoIterator<Item = &'a str>) -> Value {
    let mut parts: Vec<Value> = parts.into_iter().map(Value::from).collect();
    parts.reverse();
    parts.into()
}

/// `(sub, start=None, end=None)`: the part of the text, what is asked for, and where the part begins. The part is `None`
/// where it begins behind the text: there is not even an empty one there.
fn within<'a>(
    text: &'a str,
    args: &'a [Value],
) -> Result<(Option<&'a str>, &'a str, usize), Error> {
    let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
    let (part, start) = slice(text, start, end);
    Ok((part, what, start))
}

fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> (Option<&str>, usize) {
    let length = text.chars().count();
    let place = |at: i64| {
        let back = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
        if at < 0 {
            length.saturating_sub(back)
        } else {
            back
        }
    };
    let start = start.map_or(0, place);
    let end = end.map_or(length, place).min(length);
    if start > length || start > end {
        return (None, start);
    }
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
    (Some(&text[byte(start)..byte(end)]), start)
}

fn found(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (part, what, start) = within(text, args)?;
    let at = part.and_then(|part| {
        let at = match method.starts_with('r') {
            true => part.rfind(what),
            false => part.find(what),
        };
        Some(start + part[..at?].chars().count())
    });
    match at {
        Some(at) => Ok(at.into()),
        None if method.ends_with("find") => Ok((-1).into()),
        None => Err(wrong("substring not found")),
    }
}

/// `(affix or affixes, start=None, end=None)`.
fn affix(text: &str, args: &[Value], has: impl Fn(&str, &str) -> bool) -> Result<Value, Error> {
    let (affixes, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let part = slice(text, start, end).0;
    let has = |affix: &Value| match affix.as_str() {
        Some(affix) => Ok(part.is_some_and(|part| has(part, affix))),
        None => Err(wrong("an affix is a string, or a list of strings")),
    };
    if !matches!(affixes.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return has(affixes).map(Value::from);
    }
    for affix in affixes.try_iter()? {
        if has(&affix)? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn width(wanted: i64) -> Result<usize, Error> {
    let width = usize::try_from(wanted).unwrap_or(0);
    match width <= WIDEST {
        true => Ok(width),
        false => Err(wrong("a text is padded to 1024 characters at most")),
    }
}

fn aligned(text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted, filler): (i64, Option<&str>) = from_args(args)?;
    let width = width(wanted)?;
    let filler = filler.unwrap_or(" ");
    if filler.chars().count() != 1 {
        return Err(wrong(
            "the fill character must be exactly one character long",
        ));
    }
    let missing = width.saturating_sub(text.chars().count());
    let left = match method {
        "ljust" => 0,
        "rjust" => missing,
        // As CPython has it: the odd one goes to the left where the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    let (left, right) = (filler.repeat(left), filler.repeat(missing - left));
    Ok(format!("{left}{text}{right}").into())
}

fn zfill(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (wanted,): (i64,) = from_args(args)?;
    let missing = width(wanted)?.saturating_sub(text.chars().count());
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - digits.len()];
    Ok(format!("{sign}{}{digits}", "0".repeat(missing)).into())
}

fn expandtabs(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (size, named): (Option<i64>, Kwargs) = from_args(args)?;
    let size = match size {
        Some(size) => Some(size),
        None => named.get("tabsize")?,
    };
    named.assert_all_used()?;
    let size = width(size.unwrap_or(8))?;
    let (mut expanded, mut column) = (String::with_capacity(text.len()), 0);
    for c in text.chars() {
        if c == '\t' {
            let spaces = if size == 0 { 0 } else { size - column % size };
            bounded(expanded.len() + spaces, text)?;
            expanded.extend(std::iter::repeat_n(' ', spaces));
            column += spaces;
        } else {
            expanded.push(c);
            column = if c == '\n' || c == '\r' {
                0
            } else {
                column + 1
            };
        }
    }
    Ok(expanded.into())
}

fn translate(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (table,): (&Value,) = from_args(args)?;
    let mut translated = String::with_capacity(text.len());
    for c in text.chars() {
        let to = table.get_item(&Value::from(u32::from(c)))?;
        match to.kind() {
            ValueKind::Undefined => translated.push(c),
            ValueKind::None => {}
            ValueKind::Number => {
                let code = u32::try_from(to.clone()).ok().and_then(char::from_u32);
                translated.push(code.ok_or_else(|| wrong("no such character"))?);
            }
            _ => {
                let to = to.as_str().unwrap_or_default();
                bounded(translated.len() + to.len(), text)?;
                translated.push_str(to);
            }
        }
    }
    Ok(translated.into())
}

/// A method's result is no longer than [`LONGEST`], or than the text that it is of.
fn bounded(result: usize, text: &str) -> Result<(), Error> {
    match result <= LONGEST.max(text.len()) {
        true => Ok(()),
        false => Err(wrong("a method makes a text of over 1 MiB")),
    }
}

/// `(old, new, count=-1)`.
fn replace(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (old, new, most): (&str, &str, Option<i64>) = from_args(args)?;
    let most = most.and_then(|most| usize::try_from(most).ok());
    let most = most.unwrap_or(usize::MAX);
    let times = text.matches(old).take(most).count();
    bounded(text.len() + times.saturating_mul(new.len()), text)?;
    Ok(text.replacen(old, new, most).into())
}

fn join(by: &str, args: &[Value]) -> Result<Value, Error> {
    let (parts,): (&Value,) = from_args(args)?;
    let mut joined = String::new();
    for (at, part) in parts.try_iter()?.enumerate() {
        if at > 0 {
            joined.push_str(by);
        }
        match part.as_str() {
            Some(part) => joined.push_str(part),
            None => joined.push_str(&part.to_string()),
        }
        bounded(joined.len(), by)?;
    }
    Ok(joined.into())
}

/// `(keepends=False)`.
fn split_lines(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (keeps, named): (Option<bool>, Kwargs) = from_args(args)?;
    let keeps = match keeps {
        Some(keeps) => keeps,
        None => named.get::<Option<bool>>("keepends")?.unwrap_or(false),
    };
    named.assert_all_used()?;
    let ends =
        |c: char| matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
    let (mut lines, mut rest) = (Vec::<Value>::new(), text);
    while !rest.is_empty() {
        let at = rest.find(ends).unwrap_or(rest.len());
        let end = rest[at..].chars().next().map_or(0, char::len_utf8);
        let end = if rest[at..].starts_with("\r\n") {
            2
        } else {
            end
        };
        let line = if keeps { at + end } else { at };
        lines.push(rest[..line].into());
        rest = &rest[at + end..];
    }
    Ok(lines.into())
}

/// Capitals begin words: what follows anything but a letter, an apostrophe too.
fn title(text: &str) -> String {
    let (mut titled, mut in_word) = (String::with_capacity(text.len()), false);
    for c in text.chars() {
        match in_word {
            true => titled.extend(c.to_lowercase()),
            false => titled.extend(c.to_uppercase()),
        }
        in_word = c.is_uppercase() || c.is_lowercase();
    }
    titled
}

fn swapcase(text: &str) -> String {
    let mut swapped = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_uppercase() {
            true => swapped.extend(c.to_lowercase()),
            false => swapped.extend(c.to_uppercase()),
        }
    }
    swapped
}

fn all(text: &str, is: impl Fn(char) -> bool) -> bool {
    !text.is_empty() && text.chars().all(is)
}

/// Whether it stands for a digit in numbers: of the numbers, those that do not are fractions, letters, or raised.
fn is_decimal(c: char) -> bool {
    static DECIMAL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\p{Nd}$").expect("a pattern"));
    c.is_ascii_digit() || DECIMAL.is_match(c.encode_utf8(&mut [0; 4]))
}

/// Digits that no number is written with: raised, lowered, in circles and with points (`Numeric_Type=Digit` of Unicode).
fn is_raised_or_ringed(c: char) -> bool {
    matches!(u32::from(c),
        0xb2 | 0xb3 | 0xb9 | 0x1369..=0x1371 | 0x19da | 0x2070 | 0x2074..=0x2079 | 0x2080..=0x2089
        | 0x2460..=0x2468 | 0x2474..=0x247c | 0x2488..=0x2490 | 0x24ea | 0x24f5..=0x24fd | 0x24ff
        | 0x2776..=0x277e | 0x2780..=0x2788 | 0x278a..=0x2792 | 0x10a40..=0x10a43
        | 0x10e60..=0x10e68 | 0x11052..=0x1105a | 0x1f100..=0x1f10a)
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c == '_' || c.is_alphabetic());
    first && chars.all(|c| c == '_' || c.is_alphanumeric())
}

/// Whether capitals begin words and nothing else does.
fn is_title(text: &str) -> bool {
    let (mut in_word, mut any) = (false, false);
    for c in text.chars() {
        let cased = c.is_uppercase() || c.is_lowercase();
        if cased && c.is_uppercase() == in_word {
            return false;
        }
        any |= cased;
        in_word = cased;
    }
    any
}

fn wrong(problem: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}
