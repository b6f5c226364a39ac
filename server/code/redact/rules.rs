//! What secrets look like.

use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::anchors;
use super::literal::{is_secret, is_token, names_a_name, names_a_token};

/// A kind of secret.
pub(super) struct Rule {
    kind: &'static str,
    /// Words, one of which is in every match, within reach of its beginning.
    pub(super) anchors: &'static [&'static str],
    /// They are written just so; others in capitals or not.
    pub(super) exact: bool,
    /// A match can be long: it is looked for up to the text's end.
    pub(super) reaches_on: bool,
    pattern: &'static str,
    /// What of a match is the secret, if it is one.
    secret: fn(&Captures<'_>) -> Option<Range<usize>>,
}

/// The words, just as they are written, mark the kind.
const fn marked(
    kind: &'static str,
    anchors: &'static [&'static str],
    pattern: &'static str,
) -> Rule {
    Rule {
        kind,
        anchors,
        exact: true,
        reaches_on: false,
        pattern,
        secret: first_group,
    }
}

/// The same, in capitals or not.
const fn named(
    kind: &'static str,
    anchors: &'static [&'static str],
    pattern: &'static str,
) -> Rule {
    Rule {
        exact: false,
        ..marked(kind, anchors, pattern)
    }
}

/// All rules. Where a pattern has a group, the group is the secret and the rest its surroundings.
pub(super) const RULES: &[Rule] = &[
    Rule {
        reaches_on: true,
        ..marked(
            "private-key",
            &["PRIVATE KEY"],
            r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z)",
        )
    },
    marked(
        "aws-key",
        &["AKIA", "ASIA", "ABIA", "ACCA"],
        r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    ),
    named(
        "aws-key",
        &["aws"],
        r#"(?i)aws.{0,20}(?:secret|access).{0,20}?[=:>]\s{0,4}["']?([a-z0-9/+]{40})\b"#,
    ),
    marked(
        "github-token",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        r"\bgh[pousr]_[A-Za-z0-9]{36,}\b",
    ),
    marked(
        "github-token",
        &["github_pat_"],
        r"\bgithub_pat_[A-Za-z0-9_]{22,}\b",
    ),
    marked(
        "gitlab-token",
        &[
            "glpat-", "glptt-", "gldt-", "glrt-", "glcbt-", "glft-", "glsoat-",
        ],
        r"\bgl(?:pat|ptt|dt|rt|cbt|ft|soat)-[A-Za-z0-9_-]{20,}",
    ),
    marked("slack-token", &["xox"], r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}"),
    marked(
        "slack-token",
        &["hooks.slack.com"],
        r"hooks\.slack\.com/services/([A-Za-z0-9/]{20,})",
    ),
    marked(
        "stripe-key",
        &["k_live_", "k_test_"],
        r"\b(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}\b",
    ),
    marked("stripe-key", &["whsec_"], r"\bwhsec_[A-Za-z0-9+/=]{24,}"),
    marked(
        "api-key",
        &["sk-"],
        r"\bsk-(?:[a-z0-9]{2,10}-)?[A-Za-z0-9_-]{20,}",
    ),
    marked("api-key", &["cex_"], r"\bcex_[0-9a-f]{64}\b"),
    marked("google-key", &["AIza"], r"\bAIza[A-Za-z0-9_-]{35}"),
    Rule {
        reaches_on: true,
        ..marked("google-key", &["ya29."], r"\bya29\.[A-Za-z0-9_-]{20,}")
    },
    marked("google-key", &["GOCSPX-"], r"\bGOCSPX-[A-Za-z0-9_-]{20,}"),
    Rule {
        reaches_on: true,
        ..named(
            "azure-key",
            &["AccountKey="],
            r"(?i)AccountKey=([A-Za-z0-9+/]{40,}={0,2})",
        )
    },
    marked("npm-token", &["npm_"], r"\bnpm_[A-Za-z0-9]{36}\b"),
    Rule {
        reaches_on: true,
        ..marked("pypi-token", &["pypi-"], r"\bpypi-[A-Za-z0-9_-]{50,}")
    },
    marked("huggingface-token", &["hf_"], r"\bhf_[A-Za-z0-9]{30,}\b"),
    marked(
        "sendgrid-key",
        &["SG."],
        r"\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,}",
    ),
    marked("twilio-key", &["SK"], r"\bSK[0-9a-f]{32}\b"),
    // Payloads are as long as they like.
    Rule {
        reaches_on: true,
        ..marked(
            "jwt",
            &["eyJ"],
            r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
        )
    },
    // Credentials in a URL.
    Rule {
        secret: in_url,
        ..marked(
            "password",
            &["://"],
            r"\b[a-zA-Z][a-zA-Z0-9+.-]{1,20}://[^\s:/@'\x22]{0,100}:([^\s@/'\x22]{3,200})@",
        )
    },
    // A header.
    Rule {
        reaches_on: true,
        ..named(
            "token",
            &["authorization"],
            r#"(?i)authorization["']?\s{0,4}[:=,]\s{0,4}["']?(?:bearer|basic|token)\s+([A-Za-z0-9._~+/=-]{8,})"#,
        )
    },
    // A name that holds a secret, and the literal that it is given.
    Rule {
        secret: assigned,
        ..named(
            "password",
            &[
                "passwor",
                "passwd",
                "passphrase",
                "pwd",
                "secret",
                "token",
                "credential",
                "apikey",
                "api_key",
                "api-key",
                "api_-key",
                "accesskey",
                "access_key",
                "access-key",
                "authkey",
                "auth_key",
                "auth-key",
                "encryptionkey",
                "encryption_key",
                "encryption-key",
                "privatekey",
                "private_key",
                "private-key",
            ],
            concat!(
                r"(?i)(?P<name>[a-z0-9_.-]{0,100}(?:passwor[dt]|passwd|passphrase|\bpwd|_pwd|secret|api_?-?key|access[_-]?key",
                r"|auth[_-]?key|encryption[_-]?key|private[_-]?key|token|credential)[a-z0-9_]{0,100})",
                r#"["']?\]?\s{0,8}(?::\s?[a-z&'<>]{1,20}\s?=|:=|=>|==|=|:|,)\s{0,8}(?:[bru]|r\#)?(?:"(?P<double>[^"\n]{4,400})"|'(?P<single>[^'\n]{4,400})'|`(?P<back>[^`\n]{4,400})`)"#
            ),
        )
    },
    // The same in files of settings, which need no quotes: names in capitals, and lines of their own.
    Rule {
        secret: set,
        ..marked(
            "password",
            &[
                "PASSWORD",
                "PASSWD",
                "SECRET",
                "TOKEN",
                "APIKEY",
                "API_KEY",
                "ACCESSKEY",
                "ACCESS_KEY",
                "PRIVATEKEY",
                "PRIVATE_KEY",
            ],
            concat!(
                r"(?m)^[ \t]*(?:export[ \t]+|ENV[ \t]+|-[ \t]+)?[A-Z0-9_]{0,100}(?:PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)",
                r"[A-Z0-9_]{0,100}[ \t]*[=:][ \t]*(?P<value>[A-Za-z0-9+/_=.~@!%^*\-]{6,400})[ \t]*\r?$"
            ),
        )
    },
];

static COMPILED: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    // Boundaries of ASCII words: those of Unicode's are looked for by a slower machine.
    let compile = |rule: &Rule| Regex::new(&rule.pattern.replace(r"\b", r"(?-u:\b)"));
    let all: Result<Vec<_>, _> = RULES.iter().map(compile).collect();
    all.expect("fixed patterns")
});

pub(super) fn warm_up() {
    LazyLock::force(&COMPILED);
    anchors::windows("");
}

/// Where secrets are, and their kinds.
pub(super) fn find(text: &str) -> Vec<(Range<usize>, &'static str)> {
    let mut found = Vec::new();
    for (rule, windows) in anchors::windows(text).into_iter().enumerate() {
        for window in windows {
            for captures in COMPILED[rule].captures_iter(&text[window.clone()]) {
                if let Some(secret) = (RULES[rule].secret)(&captures) {
                    let secret = window.start + secret.start..window.start + secret.end;
                    found.push((secret, RULES[rule].kind));
                }
            }
        }
    }
    found
}

fn first_group(captures: &Captures<'_>) -> Option<Range<usize>> {
    Some(captures.get(1).or_else(|| captures.get(0))?.range())
}

fn in_url(captures: &Captures<'_>) -> Option<Range<usize>> {
    (captures.get(1))
        .filter(|value| is_secret(value.as_str()))
        .map(|value| value.range())
}

fn assigned(captures: &Captures<'_>) -> Option<Range<usize>> {
    let value = (["double", "single", "back"].iter()).find_map(|name| captures.name(name))?;
    let name = &captures["name"];
    let secret = is_secret(value.as_str())
        && !names_a_name(name)
        && (!names_a_token(name) || is_token(value.as_str()));
    secret.then(|| value.range())
}

fn set(captures: &Captures<'_>) -> Option<Range<usize>> {
    let value = captures.name("value")?;
    // A bare word is the name of something else: code.
    let word = |c: char| c.is_ascii_alphabetic() || "_.".contains(c);
    (is_secret(value.as_str()) && !value.as_str().chars().all(word)).then(|| value.range())
}
