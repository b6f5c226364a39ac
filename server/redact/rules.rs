//! What secrets look like.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// Kind of secret, and its pattern. Where the pattern has a group, the group is the secret and the rest its surroundings.
const RULES: &[(&str, &str)] = &[
    (
        "private-key",
        r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
    ),
    ("aws-key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"),
    ("aws-key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    (
        "aws-key",
        r#"(?i)aws.{0,20}(?:secret|access).{0,20}?[=:>]\s{0,4}["']?([a-z0-9/+]{40})\b"#,
    ),
    ("github-token", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
    ("github-token", r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b"),
    (
        "gitlab-token",
        r"\bgl(?:pat|ptt|dt|rt|cbt|ft|soat)-[A-Za-z0-9_-]{20,255}",
    ),
    ("slack-token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,255}"),
    (
        "slack-token",
        r"hooks\.slack\.com/services/([A-Za-z0-9/]{20,100})",
    ),
    (
        "stripe-key",
        r"\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,255}\b",
    ),
    ("stripe-key", r"\bwhsec_[A-Za-z0-9+/=]{24,255}"),
    ("api-key", r"\bsk-(?:[a-z0-9]{2,10}-)?[A-Za-z0-9_-]{20,255}"),
    ("api-key", r"\bcex_[0-9a-f]{64}\b"),
    ("google-key", r"\bAIza[A-Za-z0-9_-]{35}"),
    ("google-key", r"\bya29\.[A-Za-z0-9_-]{20,512}"),
    ("google-key", r"\bGOCSPX-[A-Za-z0-9_-]{20,64}"),
    ("azure-key", r"(?i)AccountKey=([A-Za-z0-9+/]{40,}={0,2})"),
    ("npm-token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("pypi-token", r"\bpypi-[A-Za-z0-9_-]{50,512}"),
    ("huggingface-token", r"\bhf_[A-Za-z0-9]{30,64}\b"),
    (
        "sendgrid-key",
        r"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}",
    ),
    ("twilio-key", r"\bSK[0-9a-f]{32}\b"),
    (
        "jwt",
        r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    ),
    // Credentials in a URL.
    (
        "password",
        r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s:/@'\x22]*:([^\s@/'\x22]{3,200})@",
    ),
    // A header.
    (
        "token",
        r#"(?i)authorization["']?\s{0,4}[:=,]\s{0,4}["']?(?:bearer|basic|token)\s+([A-Za-z0-9._~+/=-]{8,})"#,
    ),
];

/// A name that holds a secret, and the literal that it is given.
const ASSIGNMENT: &str = concat!(
    r"(?i)(?P<name>[a-z0-9_.-]*(?:passwor[dt]|passwd|passphrase|\bpwd|_pwd|secret|api_?-?key|access_?-?key|auth_?-?key",
    r"|encryption_?-?key|private_?-?key|token|credential)[a-z0-9_]*)",
    r#"["']?\]?\s{0,8}(?::\s?[a-z&'<>]{1,20}\s?=|:=|=>|==|=|:|,)\s{0,8}(?:[bru]|r\#)?(?:"(?P<double>[^"\n]{4,400})"|'(?P<single>[^'\n]{4,400})'|`(?P<back>[^`\n]{4,400})`)"#
);

/// The same in files of settings, which need no quotes: names in capitals, and lines of their own.
const SETTING: &str = concat!(
    r"(?m)^[ \t]*(?:export[ \t]+|ENV[ \t]+|-[ \t]+)?[A-Z0-9_]*(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)",
    r"[A-Z0-9_]*[ \t]*[=:][ \t]*(?P<value>[A-Za-z0-9+/_=.~@!%^*\-]{6,400})[ \t]*$"
);

static COMPILED: LazyLock<Vec<(&'static str, Regex)>> = LazyLock::new(|| {
    let compile = |(kind, pattern): &(&'static str, &str)| (*kind, compile(pattern));
    RULES.iter().map(compile).collect()
});
static ASSIGNMENTS: LazyLock<Regex> = LazyLock::new(|| compile(ASSIGNMENT));
static SETTINGS: LazyLock<Regex> = LazyLock::new(|| compile(SETTING));

fn compile(pattern: &str) -> Regex {
    // Boundaries of ASCII words: those of Unicode's are looked for by a slower machine.
    Regex::new(&pattern.replace(r"\b", r"(?-u:\b)")).expect("a fixed pattern")
}

/// Where secrets are, and their kinds.
pub(super) fn find(text: &str) -> Vec<(Range<usize>, &'static str)> {
    let mut found = Vec::new();
    for (kind, rule) in COMPILED.iter() {
        for captures in rule.captures_iter(text) {
            if let Some(secret) = captures.get(1).or_else(|| captures.get(0)) {
                found.push((secret.range(), *kind));
            }
        }
    }
    for captures in ASSIGNMENTS.captures_iter(text) {
        let value = ["double", "single", "back"]
            .iter()
            .find_map(|name| captures.name(name));
        if let Some(value) = value
            && is_secret(value.as_str())
            && !names_a_name(&captures["name"])
            && (!names_a_token(&captures["name"]) || is_token(value.as_str()))
        {
            found.push((value.range(), "password"));
        }
    }
    for captures in SETTINGS.captures_iter(text) {
        let value = &captures["value"];
        // A bare word is the name of something else: code.
        if is_secret(value)
            && !value
                .chars()
                .all(|c| c.is_ascii_alphabetic() || "_.".contains(c))
        {
            found.extend(
                captures
                    .name("value")
                    .map(|value| (value.range(), "password")),
            );
        }
    }
    found
}

/// Whether a literal may be a secret, and not a text for people, a place to put one in, or the name of its type.
fn is_secret(value: &str) -> bool {
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
fn names_a_token(name: &str) -> bool {
    const SURER: &[&str] = &["passw", "passp", "pwd", "secret", "key", "credential"];
    let lower = name.to_ascii_lowercase();
    !SURER.iter().any(|word| lower.contains(word))
}

/// Longer than `[SEP]`, and with a digit.
fn is_token(value: &str) -> bool {
    value.len() >= 12 && value.bytes().any(|byte| byte.is_ascii_digit())
}

/// `password_field = "pw2"` and `token_type: "jwt"` say what something is called.
fn names_a_name(name: &str) -> bool {
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
