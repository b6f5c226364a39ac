//! Secrets of real formats are made unreadable, ordinary code is left alone, and nothing behind the door sees them.

use code_explainer_client::proto::CacheLevel;
use code_explainer_code::redact::redact;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};

/// Code with a secret, what of it must not be left, and what it is called. Split, so that no scanner takes this file
/// for a leak.
fn secrets() -> Vec<(String, String, &'static str)> {
    let of = |before: &str, secret: &[&str], after: &str, kind| {
        let secret = secret.concat();
        (format!("{before}{secret}{after}"), secret, kind)
    };
    vec![
        of("key = \"", &["AKIA", "IOSFODNN7EXAMPLE"], "\"", "aws-key"),
        of(
            "aws_secret_access_key = ",
            &["wJalrXUtnFEMI/K7MDENG", "/bPxRfiCYEXAMPLEKEY"],
            "\n",
            "aws-key",
        ),
        of(
            "git clone https://x:",
            &["ghp_", "16C7e42F292c6912E7710c838347Ae178B4a"],
            "@github.com",
            "github-token",
        ),
        of(
            "t = '",
            &["github_pat_", "11ABCDEFG0aBcDeFgHiJkL_0123456789"],
            "'",
            "github-token",
        ),
        of(
            "t: ",
            &["glpat-", "aBcDeFgHiJkLmNoPqRsT"],
            "",
            "gitlab-token",
        ),
        of(
            "slack(\"",
            &["xoxb-", "123456789012-1234567890123-aBcDeFgHiJkL"],
            "\")",
            "slack-token",
        ),
        of(
            "stripe.api_key = '",
            &["sk_live_", "4eC39HqLyjWDarjtT1zdp7dc"],
            "'",
            "stripe-key",
        ),
        of(
            "client = OpenAI('",
            &["sk-proj-", "abcdefghijklmnopqrstuvwxyz012345"],
            "')",
            "api-key",
        ),
        of(
            "maps?key=",
            &["AIza", "SyA1234567890abcdefghijklmnopqrstuv"],
            "&q",
            "google-key",
        ),
        of(
            "//registry/:_authToken=",
            &["npm_", "abcdefghijklmnopqrstuvwxyz0123456789"],
            "\n",
            "npm-token",
        ),
        of(
            "load('",
            &["hf_", "abcdefghijklmnopqrstuvwxyzABCDEFGH"],
            "')",
            "huggingface-token",
        ),
        of(
            "auth = \"",
            &[
                "eyJhbGciOiJIUzI1NiJ9",
                ".eyJzdWIiOiIxMjM0NTY3ODkwIn0",
                ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
            ],
            "\"",
            "jwt",
        ),
        of(
            "KEY = \"\"\"",
            &[
                "-----BEGIN RSA PRIV",
                "ATE KEY-----\nMIIEow\nIBAAK\n-----END RSA PRIV",
                "ATE KEY-----",
            ],
            "\"\"\"",
            "private-key",
        ),
        of(
            "",
            &[
                "-----BEGIN OPENSSH PRIV",
                "ATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA",
            ],
            "",
            "private-key",
        ),
        of(
            "DATABASE_URL=postgres://app:",
            &["s3cr", "3t-pw"],
            "@db:5432/app",
            "password",
        ),
        of(
            "password = \"",
            &["correct-horse", "-battery"],
            "\"",
            "password",
        ),
        of(
            "{\"dbPassword\": \"",
            &["Tr0ub4", "dor&3"],
            "\"}",
            "password",
        ),
        of(
            "let api_key: &str = \"",
            &["a81fd0", "c3b5"],
            "\";",
            "password",
        ),
        of(
            "config['secret_key'] = '",
            &["dev-8f", "2a1"],
            "'",
            "password",
        ),
        of(
            "export DB_PASSWORD=",
            &["pa55", "-w0rd"],
            "\nrun",
            "password",
        ),
        of(
            "curl -H 'Authorization: Bearer ",
            &["abcDEF123", "456ghi"],
            "'",
            "token",
        ),
        of(
            "x = '",
            &["q7Zt3LmX0vB9nR2kW8sY", "4dHc6JgP1fTa5UeQ"],
            "'",
            "high-entropy string",
        ),
    ]
}

/// What looks a little like a secret and is none.
const ORDINARY: &[&str] = &[
    "password = '[REDACTED:password]'",
    "url = 'https://bot:[REDACTED:password]@example.org'",
    "password = input('Enter your password: ')",
    "password: str = None\ntoken = get_token()",
    "if token == expected_token: return True",
    "PASSWORD_FIELD = \"password\"",
    "token_type = \"bearer\"; token_url = \"https://example.org/oauth/token\"",
    "api_key = os.environ[\"OPENAI_API_KEY\"]",
    "API_KEY=${API_KEY}\nSECRET=<your secret>\nTOKEN=DEFAULT_TOKEN",
    "password: \"{{ .Values.redis.password }}\"",
    "<input type=\"password\" placeholder=\"Password\">",
    "tokenizer = \"smollm\"; tokens = [\"alpha\", \"beta\"]",
    "ALPHABET = \"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/\"",
    "sha = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
    "id = \"123e4567-e89b-12d3-a456-426614174000\"",
    "path = \"/usr/local/lib/python3.11/site-packages/numpy/core/umath.py\"",
    "name = \"AbstractSingletonProxyFactoryBeanGeneratorV2Implementation\"",
    "integrity=\"sha384-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC\"",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "error(\"the password is wrong\")",
    "risk-analysis-of-long-hyphenated-names = 1",
];

#[test]
fn secrets_of_real_formats_go_and_the_code_around_them_stays() {
    for (code, secret, kind) in secrets() {
        let redacted = redact(&code).unwrap_or_else(|| panic!("not found: {kind} in {code}"));
        assert!(
            !redacted.text.contains(&secret),
            "{kind}: {}",
            redacted.text
        );
        assert!(
            redacted.found.contains_key(kind),
            "{code}: {:?}",
            redacted.found
        );
        let (before, after) = code.split_once(&secret).expect("it is there");
        assert!(
            redacted.text.starts_with(before) && redacted.text.ends_with(after),
            "{}",
            redacted.text
        );
    }
}

#[test]
fn ordinary_code_is_left_alone() {
    for code in ORDINARY {
        assert_eq!(redact(code), None, "{code}");
    }
}

#[test]
fn this_projects_own_sources_have_no_secrets() {
    let mut read = 0;
    for directory in ["server", "client", "samples", "scripts"] {
        for path in sources(&crate::common::programs::root().join(directory)) {
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            read += 1;
            // The rules themselves, and tests with passwords in URLs or with secrets of their own, are about secrets.
            let about = [
                "redact",
                "key.rs",
                "cli.rs",
                "remote/link.rs",
                "cache/selection.rs",
            ]
            .iter()
            .any(|part| path.to_string_lossy().contains(part));
            assert!(
                about || redact(&text).is_none(),
                "{}: {:?}",
                path.display(),
                redact(&text).map(|r| r.found)
            );
        }
    }
    assert!(read > 150, "{read} files");
}

fn sources(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory").flatten();
    let below = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => sources(&path),
        path => vec![path],
    });
    below.collect()
}

#[tokio::test]
async fn the_prompt_and_the_receipt_show_that_a_secret_was_taken_out() {
    let (server, _) = TestServer::fake(&["--redact-secrets"]).await;
    let mut stream = TestStream::open(&server).await;
    let mut wanted = item("a", "password = 'correct-horse-battery'");
    wanted.include_prompt = true;
    stream.explain(wanted).await;
    let outcome = stream.collect(1).await.remove("a").expect("its outcome");
    assert!(
        outcome.prompt.contains("[REDACTED:password]"),
        "{}",
        outcome.prompt
    );
    assert!(
        !outcome.prompt.contains("correct-horse"),
        "{}",
        outcome.prompt
    );
    let notes = outcome
        .done
        .expect("done")
        .receipt
        .expect("a receipt")
        .notes;
    assert!(
        notes.iter().any(|note| note.contains("1 password")),
        "{notes:?}"
    );
    server
        .until_metric("code_explainer_secrets_redacted_total", 1.0)
        .await;
}

#[tokio::test]
async fn long_code_is_cleaned_too_and_its_cached_answer_still_says_so() {
    let (server, _) = TestServer::fake(&["--redact-secrets"]).await;
    let mut stream = TestStream::open(&server).await;
    let code = |secret: &str| {
        let filler = ("# ".to_owned() + &"=".repeat(80) + "\n").repeat(60);
        format!("{filler}password = '{secret}'\n")
    };
    let mut receipts = Vec::new();
    // The same but for the secret: the same answer. The first has none left: what is noted is each one's own.
    for (id, secret) in [
        ("clean", "[REDACTED:password]"),
        ("a", "correct-horse-battery"),
        ("b", "staple-correct-horse"),
    ] {
        let mut wanted = item(id, &code(secret));
        wanted.language = "python".into();
        stream.explain(wanted).await;
        let outcome = stream.collect(1).await.remove(id).expect("its outcome");
        receipts.push(outcome.done.expect("done").receipt.expect("a receipt"));
    }
    let levels: Vec<_> = receipts.iter().map(|receipt| receipt.cache()).collect();
    let memory = CacheLevel::Memory;
    assert_eq!(levels, [CacheLevel::Unspecified, memory, memory]);
    let noted = receipts
        .iter()
        .map(|receipt| receipt.notes.iter().any(|n| n.contains("1 password")));
    assert_eq!(noted.collect::<Vec<_>>(), [false, true, true]);
}

#[tokio::test]
async fn without_the_option_code_is_as_it_was_sent() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut stream = TestStream::open(&server).await;
    let mut wanted = item("a", "password = 'correct-horse-battery'");
    wanted.include_prompt = true;
    stream.explain(wanted).await;
    let outcome = stream.collect(1).await.remove("a").expect("its outcome");
    assert!(outcome.prompt.contains("correct-horse-battery"));
}
