//! What is beside a name: a secret, or something else.

/// Whether a literal may be a secret, and not a text for people, a place to put one in, or the name of its type.
pub(super) fn is_secret(value: &str) -> bool {
    const PLACEHOLDERS: &[&str] = &[
        "string",
        "text",
        "password",
        "passwd",
        "token",
        "secret",
        "bearer",
        "basic",
        "null",
        "none",
        "true",
        "false",
        "required",
        "optional",
        "hidden",
        "example",
        "your",
        "xxxx",
        "****",
        "....",
        "<",
        "${",
        "{{",
        "%(",
        "$(",
        "{",
        "process.env",
        "os.environ",
        "env:",
        "vault:",
        "/",
        "./",
        "--",
        "#/",
        // Taken out before.
        "[redacted:",
        "http://",
        "https://",
    ];
    let lower = value.to_ascii_lowercase();
    let placeholder = PLACEHOLDERS
        .iter()
        .any(|p| match p.chars().all(char::is_alphabetic) {
            // Whole, or what a placeholder begins with: your-password-here.
            true => {
                lower == *p
                    || (lower.starts_with(p) && lower[p.len()..].starts_with(['-', '_', ' ']))
            }
            false => lower.starts_with(p),
        });
    !placeholder && !value.contains(char::is_whitespace)
}

/// Whether nothing but `token` makes a name one of a secret: models and parsers have tokens too.
pub(super) fn names_a_token(name: &str) -> bool {
    const SURER: &[&str] = &["passw", "passp", "pwd", "secret", "key", "credential"];
    let lower = name.to_ascii_lowercase();
    !SURER.iter().any(|word| lower.contains(word))
}

/// Longer than `[SEP]`, and with a digit.
pub(super) fn is_token(value: &str) -> bool {
    value.len() >= 12 && value.bytes().any(|byte| byte.is_ascii_digit())
}

/// `password_field = "pw2"` and `token_type: "jwt"` say what something is called.
pub(super) fn names_a_name(name: &str) -> bool {
    const OTHER: &[&str] = &[
        "field",
        "name",
        "label",
        "type",
        "url",
        "uri",
        "path",
        "file",
        "header",
        "endpoint",
        "prefix",
        "hint",
        "error",
        "format",
        "policy",
        "regex",
        "pattern",
        "placeholder",
        "message",
        "length",
        "id",
        "env",
        "class",
        "kind",
        "column",
        "param",
        "selector",
        "scope",
    ];
    let lower = name.to_ascii_lowercase();
    let last = lower.rsplit(['_', '-', '.']).next().unwrap_or_default();
    // In any case, `tokenize` and `secretary` are other words.
    OTHER.iter().any(|other| last.ends_with(other))
        || last.starts_with("tokeni")
        || last.starts_with("secretar")
}
