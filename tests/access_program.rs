//! The program tells what is wrong with files of keys and certificates, and its log tells no secret.

use std::process::Command;

use code_explainer_client::{Client, ConnectOptions, Item, TlsOptions, Token};

use crate::common::certificates::{Authority, Files};
use crate::common::keys::make_key;
use crate::common::programs::{ServerProcess, output, root, server};
use crate::common::stream::finish;

fn serve(args: &[&str]) -> Command {
    let mut command = server(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ]);
    command.args(args);
    command
}

#[track_caller]
fn refuses(args: &[&str], code: i32, said: &[&str]) {
    let output = output(&mut serve(args));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in said {
        assert!(stderr.contains(part), "'{part}' is not in: {stderr}");
    }
    assert!(!stderr.contains("listening"), "nothing is bound: {stderr}");
}

#[test]
fn files_that_are_not_there_end_with_66_and_bad_ones_with_64() {
    let (authority, files) = (Authority::new(), Files::new());
    let (one, two) = (authority.server(), authority.server());
    let certificate = files.write("cert", &one.certificate);
    let (key, other) = (files.write("key", &one.key), files.write("other", &two.key));
    let junk = files.write("junk", "no PEM at all");
    let book = files.write("book", "\nkey who\n");
    refuses(
        &["--auth-file", "/nowhere"],
        66,
        &["--auth-file /nowhere", "No such file"],
    );
    refuses(
        &["--auth-file", &book],
        64,
        &[&book, "line 2", "expected a hash"],
    );
    refuses(&["--tls-cert", &certificate], 64, &["--tls-key"]);
    refuses(
        &["--tls-cert", "/nowhere", "--tls-key", &key],
        66,
        &["--tls-cert /nowhere"],
    );
    refuses(
        &["--tls-cert", &junk, "--tls-key", &key],
        64,
        &["no certificate"],
    );
    refuses(
        &["--tls-cert", &certificate, "--tls-key", &junk],
        64,
        &["no private key"],
    );
    refuses(
        &["--tls-cert", &certificate, "--tls-key", &other],
        64,
        &["does not go with --tls-cert"],
    );
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    refuses(
        &[&tls[..], &["--tls-client-ca", &junk]].concat(),
        64,
        &["--tls-client-ca", "no certificate"],
    );
    refuses(&["--tls-client-ca", &certificate], 64, &["--tls-cert"]);
    refuses(&["--rate-items", "many"], 64, &["--rate-items", "600/min"]);
    refuses(&["--metrics-auth", "on"], 64, &["--auth-file"]);
    refuses(&["--connections", "0"], 64, &["--connections is 0"]);
}

#[test]
fn certificates_and_keys_that_cannot_be_used_say_why_and_what_can() {
    let (authority, files) = (Authority::new(), Files::new());
    let data = |name: &str| {
        let path = root()
            .join("tests/data/unsupported_certificates")
            .join(name);
        files.write(name, &std::fs::read_to_string(path).expect("text"))
    };
    let (one, two) = (authority.server(), authority.server());
    let good = files.write("cert", &one.certificate);
    let (key, other) = (files.write("key", &one.key), files.write("other", &two.key));
    let pair = |certificate: &str, key: &str| {
        let flags = ["--tls-cert", certificate, "--tls-key", key];
        flags.map(str::to_owned).to_vec()
    };
    let authorities = [
        pair(&good, &key),
        vec!["--tls-client-ca".into(), data("p521.pem")],
    ]
    .concat();
    for (flags, said) in [
        (
            pair(&data("p521.pem"), &data("p521.key")),
            ["--tls-cert", "P-256 or P-384"],
        ),
        (authorities, ["--tls-client-ca", "P-256 or P-384"]),
        (
            pair(&data("v1.pem"), &data("v1.key")),
            ["--tls-cert", "version 3 is needed"],
        ),
        (
            pair(&good, &data("encrypted.key")),
            ["--tls-key", "openssl pkey -in FILE -out PLAIN"],
        ),
        (
            pair(&good, &other),
            ["--tls-key", "the key of another certificate"],
        ),
        (
            pair(&good, &data("p521.key")),
            ["--tls-key", "P-256 or P-384"],
        ),
    ] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        refuses(&flags, 64, &said);
    }
}

#[test]
fn a_key_goes_to_a_file_of_ones_own_and_never_over_another() {
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let path = files.path("token");
    let named = path.to_str().expect("UTF-8");
    let make = || {
        output(&mut server(&[
            "make-key",
            "--name",
            "ci",
            "--tenant",
            "acme",
            "--token-file",
            named,
        ]))
    };
    let made = make();
    assert!(made.status.success() && made.stderr.is_empty(), "{made:?}");
    let mode = std::fs::metadata(&path)
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = make();
    assert_eq!(again.status.code(), Some(64), "{again:?}");
    let bad = output(&mut server(&[
        "make-key", "--name", "a b", "--tenant", "acme",
    ]));
    assert_eq!(bad.status.code(), Some(64));
}

/// Starts a server, has a client call it, and waits until the log has the words.
async fn log_after_a_call(flags: Vec<String>, scheme: &str, tls: TlsOptions, said: &'static str) {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let command = serve(&flags);
    let start = || {
        let mut process = ServerProcess::start(command);
        (process.address("grpc"), process)
    };
    let (address, mut process) = tokio::task::spawn_blocking(start).await.expect("it starts");
    let options = ConnectOptions {
        tls,
        ..ConnectOptions::default()
    };
    let server = format!("{scheme}://localhost:{}", address.port());
    let client = Client::connect_with(&server, &options).expect("an address");
    client.model().await.expect_err("no connection");
    let told = tokio::task::spawn_blocking(move || {
        process.wait_for("a client could not connect");
        process.signal("KILL");
        process.said.concat()
    });
    let log = told.await.expect("it is told");
    assert!(log.contains(said), "{log}");
}

#[tokio::test]
async fn the_log_says_why_a_client_could_not_connect() {
    let (authority, other, files) = (Authority::new(), Authority::new(), Files::new());
    let trusts = |authority: &Authority| TlsOptions {
        ca: Some(authority.pem().into_bytes()),
        ..TlsOptions::default()
    };
    let encrypted = files.server_flags(&authority.server());
    let clients = files.write("clients", &authority.pem());
    let asking = [&encrypted[..], &["--tls-client-ca".to_owned(), clients]].concat();
    let stranger = other.client("somebody", "");
    let shown = TlsOptions {
        identity: Some((stranger.certificate.into_bytes(), stranger.key.into_bytes())),
        ..trusts(&authority)
    };
    tokio::join!(
        log_after_a_call(
            asking.clone(),
            "https",
            trusts(&authority),
            "has no certificate"
        ),
        log_after_a_call(
            asking,
            "https",
            shown,
            "is of no authority in --tls-client-ca"
        ),
        log_after_a_call(encrypted.clone(), "https", trusts(&other), "does not trust"),
        log_after_a_call(
            encrypted,
            "http",
            TlsOptions::default(),
            "does not speak TLS"
        ),
        log_after_a_call(
            Vec::new(),
            "https",
            trusts(&authority),
            "it calls https:// where there is no TLS"
        ),
    );
}

#[tokio::test]
async fn sighup_has_files_read_again_and_ends_nothing() {
    let files = Files::new();
    let (before, line) = make_key("one", "acme", "explain");
    let (after, other) = make_key("two", "acme", "explain");
    let book = files.write("book", &line);
    let flags = ["--kv-cache-tokens", "4096", "--auth-file", &book];
    let command = serve(&[&flags[..], &["--reload-interval", "1h"]].concat());
    let (address, mut process) = tokio::task::spawn_blocking(move || {
        let mut process = ServerProcess::start(command);
        let address = process.address("grpc");
        process.wait_for(" ready");
        (address, process)
    })
    .await
    .expect("it starts");
    let client = |token: &str| {
        let options = ConnectOptions {
            token: Some(Token::new(token).expect("a header")),
            ..ConnectOptions::default()
        };
        Client::connect_with(&address.to_string(), &options).expect("an address")
    };
    client(&before).model().await.expect("its key counts");
    files.write("book", &other);
    client(&before).model().await.expect("it still does");
    process.signal("HUP");
    while client(&before).model().await.is_ok() {
        tokio::task::yield_now().await;
    }
    client(&after).model().await.expect("the new key counts");
    tokio::task::spawn_blocking(move || {
        process.signal("HUP");
        process.signal("TERM");
        assert_eq!(process.ended().code(), Some(0));
    })
    .await
    .expect("it ends");
}

#[tokio::test]
async fn the_log_of_a_run_has_nothing_that_a_client_sent_and_no_secret() {
    let files = Files::new();
    let token = files.path("token");
    let made = output(&mut server(&[
        "make-key",
        "--name",
        "MARKED-KEY-NAME",
        "--tenant",
        "acme",
        "--token-file",
        token.to_str().expect("UTF-8"),
    ]));
    let book = files.write("book", &String::from_utf8(made.stdout).expect("UTF-8"));
    let token = std::fs::read_to_string(token).expect("a token");
    let mut command = serve(&[
        "--kv-cache-tokens",
        "4096",
        "--auth-file",
        &book,
        "--redact-secrets",
    ]);
    command.env("CODE_EXPLAINER_CACHE_SECRET", "MARKED-CACHE-SECRET");
    command.env(
        "CODE_EXPLAINER_REDIS_URL",
        "redis://user:MARKED-PASSWORD@127.0.0.1:1/",
    );
    let (address, mut process) = tokio::task::spawn_blocking(move || {
        let mut process = ServerProcess::start(command);
        let address = process.address("grpc");
        process.wait_for(" ready");
        (address, process)
    })
    .await
    .expect("it starts");
    let client = |token: &str| {
        let token = Some(Token::new(token).expect("a header"));
        let options = ConnectOptions {
            token,
            ..ConnectOptions::default()
        };
        Client::connect_with(&address.to_string(), &options).expect("an address")
    };
    let good = client(&token);
    let marked = "password = 'MARKED-IN-CODE'\nprint(MARKED_NAME)";
    let options = code_explainer_client::ExplainOptions {
        max_new_tokens: Some(4),
        ..Default::default()
    };
    finish(
        good.explain(Item::new(marked).with_options(options))
            .await
            .expect("an answer"),
    )
    .await;
    client("MARKED-WRONG-TOKEN")
        .model()
        .await
        .expect_err("refused");
    let bad = code_explainer_client::ExplainOptions {
        strategy: Some("MARKED-STRATEGY".into()),
        ..Default::default()
    };
    good.explain(Item::new("MARKED").with_options(bad))
        .await
        .expect_err("refused");
    files.write("book", "key MARKED-BAD-LINE");
    let log = tokio::task::spawn_blocking(move || {
        process.wait_for("of no use");
        process.signal("TERM");
        assert_eq!(process.ended().code(), Some(0));
        process.said.concat()
    })
    .await
    .expect("it ends");
    assert!(!log.contains("MARKED"), "{log}");
    assert!(!log.contains(token.trim()), "{log}");
}
