//! The program tells what is wrong with files of keys and certificates, and its log tells no secret.

use std::process::Command;

use code_explainer_client::{Client, ConnectOptions, Item, Token};

use crate::common::certificates::{Authority, Files};
use crate::common::programs::{ServerProcess, output, server};
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
