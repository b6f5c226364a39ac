//! Keys, and clients that have one.

use code_explainer_client::{Client, ConnectOptions, Token};

use crate::common::programs::{output, server as program};
use crate::common::server::TestServer;

/// A key as the command makes it: the token, and the line.
pub(crate) fn make_key(name: &str, tenant: &str, roles: &str) -> (String, String) {
    let args = [
        "make-key", "--name", name, "--tenant", tenant, "--roles", roles,
    ];
    let made = output(&mut program(&args));
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8(made.stderr).expect("UTF-8");
    let token = said.trim().rsplit(' ').next().expect("a token").to_owned();
    (token, String::from_utf8(made.stdout).expect("UTF-8"))
}

/// A client with this token; none, where it is empty.
pub(crate) fn client(server: &TestServer, token: &str) -> Client {
    let token = (!token.is_empty()).then(|| Token::new(token).expect("a header"));
    let options = ConnectOptions {
        token,
        ..ConnectOptions::default()
    };
    Client::connect_with(&server.uri(), &options).expect("an address")
}
