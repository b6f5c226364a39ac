//! The file of identities (`--auth-file`): a line each for a key, a client certificate and a tenant's allowance.
//!
//! ```text
//! # make-key prints such lines
//! key    ci-1                    blake3:9f86...  tenant=acme roles=explain
//! cert   dns:build.acme.example  tenant=acme roles=explain,admin
//! cert   *                       roles=explain
//! tenant acme                    items=600/min tokens=200000/min
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::AccessError;
use super::certificate::{CertificateNames, is_name};
use super::grant::{Grant, Known};
use super::key::KeyHash;
use super::rates::{Allowance, Rate};
use super::reload::Source;
use crate::identity::Roles;

/// Keys that a file may have: each call looks at all of them, so that the time it takes tells nothing.
const MOST_KEYS: usize = 10_000;

/// The file, read.
#[derive(Debug, Default)]
pub struct Book {
    keys: Vec<(KeyHash, Known)>,
    certificates: HashMap<String, Known>,
    /// What every other verified certificate may do; its name is its tenant.
    any_certificate: Option<Known>,
    allowances: HashMap<String, Allowance>,
}

/// The fields of a line that are written `name=value`.
#[derive(Default)]
struct Fields {
    tenant: Option<Arc<str>>,
    roles: Option<Roles>,
    allowance: Allowance,
}

impl Book {
    /// Whom the book before this one let in, on the same terms or wider ones, is let in by the same grant.
    pub(super) fn read(sources: &[Source], before: Option<&Self>) -> Result<Self, AccessError> {
        let mut book = Self::default();
        for source in sources {
            let text = std::str::from_utf8(&source.bytes);
            let text = text.map_err(|_| source.unusable("is not UTF-8 text"))?;
            book = Self::parse(text).map_err(|problem| source.unusable(problem))?;
        }
        if let Some(before) = before {
            book.go_on_from(before);
        }
        Ok(book)
    }

    fn go_on_from(&mut self, before: &Self) {
        let keys: HashMap<_, _> = before.keys.iter().map(|(hash, key)| (hash, key)).collect();
        for (hash, key) in &mut self.keys {
            key.go_on_from(keys.get(hash).copied());
        }
        for (name, certificate) in &mut self.certificates {
            certificate.go_on_from(before.certificates.get(name));
        }
        if let Some(any) = &mut self.any_certificate {
            any.go_on_from(before.any_certificate.as_ref());
        }
    }

    /// Withdraws what it grants and `now` does not, and tells how much that is.
    pub(super) fn withdraw_all_but(&self, now: &Self) -> usize {
        let kept: HashSet<_> = now.grants().map(Grant::id).collect();
        let gone = self.grants().filter(|grant| !kept.contains(&grant.id()));
        gone.map(Grant::withdraw).count()
    }

    fn grants(&self) -> impl Iterator<Item = &Grant> {
        let keys = self.keys.iter().map(|(_, key)| key);
        let certificates = self.certificates.values().chain(&self.any_certificate);
        keys.chain(certificates)
            .filter_map(|known| known.grant.as_ref())
    }

    /// Reads the text of such a file.
    ///
    /// # Errors
    /// Says what is wrong in which line, without what is secret in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut book = Self::default();
        let mut names = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(kind) = words.next() else { continue };
            let at = |problem: String| format!("line {number}: {problem}");
            let name = words
                .next()
                .ok_or_else(|| at(format!("'{kind}' needs a name")))?;
            if !is_name(name) {
                return Err(at(
                    "the name is too long or has other than ASCII letters, digits and signs".into(),
                ));
            }
            if let Some(first) = names.insert((kind.to_owned(), name.to_owned()), number) {
                return Err(at(format!("{kind} '{name}' is in line {first} already")));
            }
            book.line(kind, name, &mut words).map_err(at)?;
        }
        if book.keys.len() > MOST_KEYS {
            return Err(format!(
                "has {} keys, expected at most {MOST_KEYS}",
                book.keys.len()
            ));
        }
        Ok(book)
    }

    fn line<'a>(
        &mut self,
        kind: &str,
        name: &str,
        words: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        match kind {
            "key" => {
                let hash = words.next().and_then(|word| word.parse().ok());
                let hash = hash.ok_or(
                    "expected a hash after the key's name: blake3: and 64 hexadecimal digits",
                )?;
                if self.keys.iter().any(|(other, _)| *other == hash) {
                    return Err("another key has the same hash".into());
                }
                let (tenant, roles) = Fields::read(words)?.identity(&["tenant", "roles"])?;
                let tenant = tenant.ok_or("a key needs a tenant=")?;
                self.keys.push((hash, Known::by_line(tenant, roles)));
            }
            "cert" if name == "*" => {
                let (tenant, roles) = Fields::read(words)?.identity(&["roles"])?;
                if tenant.is_some() {
                    return Err("the tenant of 'cert *' is each certificate's own name".into());
                }
                self.any_certificate = Some(Known::by_line("".into(), roles));
            }
            "cert" => {
                let kinds = ["uri:", "dns:", "email:", "cn:"];
                if !kinds.iter().any(|kind| name.starts_with(kind)) {
                    return Err(
                        "a certificate's name begins with uri:, dns:, email: or cn:, or is *"
                            .into(),
                    );
                }
                let (tenant, roles) = Fields::read(words)?.identity(&["tenant", "roles"])?;
                let tenant = tenant.ok_or("a certificate needs a tenant=")?;
                self.certificates
                    .insert(name.into(), Known::by_line(tenant, roles));
            }
            "tenant" => {
                let fields = Fields::read(words)?;
                if fields.tenant.is_some() || fields.roles.is_some() {
                    return Err("a tenant has items= and tokens= alone".into());
                }
                self.allowances.insert(name.into(), fields.allowance);
            }
            _ => return Err(format!("'{kind}' is unknown, expected key, cert or tenant")),
        }
        Ok(())
    }

    /// Whose token it is. Looks at every key, and at every byte of its hash, whichever it is.
    pub(super) fn by_token(&self, token: &[u8]) -> Option<Known> {
        let hash = KeyHash::of(token);
        let mut found = None;
        for (other, key) in &self.keys {
            if *other == hash {
                found = Some(key);
            }
        }
        found.cloned()
    }

    /// Whose certificate it is: by the first of its names that has a line.
    pub(super) fn by_certificate(&self, names: &CertificateNames) -> Option<Known> {
        let named = names.all().find_map(|name| self.certificates.get(name));
        named.cloned().or_else(|| {
            let tenant = names.best()?.into();
            Some(Known {
                tenant,
                ..self.any_certificate.clone()?
            })
        })
    }

    /// What a tenant may ask for, if a line says so.
    pub(super) fn allowance(&self, tenant: &str) -> Option<Allowance> {
        self.allowances.get(tenant).copied()
    }
}

impl Fields {
    fn read<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut fields = Self::default();
        let mut seen = Vec::new();
        for word in words {
            let (name, value) = word
                .split_once('=')
                .ok_or("expected fields such as tenant=acme after that")?;
            if seen.contains(&name) {
                return Err(format!("{name}= is there twice"));
            }
            seen.push(name);
            let rate = || value.parse::<Rate>().map(Some);
            match name {
                "tenant" if is_name(value) => fields.tenant = Some(value.into()),
                "tenant" => return Err("tenant= is empty, too long, or not of ASCII".into()),
                "roles" => fields.roles = Some(value.parse()?),
                "items" => fields.allowance.items = rate()?,
                "tokens" => fields.allowance.tokens = rate()?,
                _ => {
                    return Err(format!(
                        "'{name}=' is unknown, expected tenant=, roles=, items= or tokens="
                    ));
                }
            }
        }
        Ok(fields)
    }

    /// Of a key or a certificate.
    fn identity(self, wanted: &[&str]) -> Result<(Option<Arc<str>>, Roles), String> {
        if self.allowance != Allowance::default() {
            return Err(
                "items= and tokens= belong into a line of their own: tenant NAME items=...".into(),
            );
        }
        let roles = self
            .roles
            .ok_or_else(|| format!("needs {}=", wanted.join("= and ")))?;
        Ok((self.tenant, roles))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(token: &str) -> KeyHash {
        KeyHash::of(token.as_bytes())
    }

    #[test]
    fn keys_certificates_and_allowances_are_found() {
        let text = format!(
            "# ours\n\nkey ci {} tenant=acme roles=explain # trailing\nkey root {} roles=explain,admin tenant=ops\n\
             tenant acme items=600/min\n",
            hash("one"),
            hash("two")
        );
        let book = Book::parse(&text).expect("good");
        let known = book.by_token(b"one").expect("known");
        assert_eq!((&*known.tenant, known.roles), ("acme", Roles::EXPLAIN));
        let known = book.by_token(b"two").expect("known");
        assert!(&*known.tenant == "ops" && known.roles.explain && known.roles.admin);
        assert!(book.by_token(b"three").is_none() && book.by_token(b"").is_none());
        assert!(book.allowance("acme").expect("a line").items.is_some());
        assert!(book.allowance("ops").is_none());
    }

    #[test]
    fn a_line_that_is_gone_or_grants_less_is_withdrawn_and_no_other() {
        let line = |token: &str, rest: &str| format!("key {token} {} {rest}\n", hash(token));
        let source = |text: String| {
            [Source {
                flag: "auth-file",
                path: "book".into(),
                bytes: text.into_bytes(),
            }]
        };
        let text = line("same", "tenant=a roles=explain")
            + &line("more", "tenant=a roles=explain")
            + &line("gone", "tenant=a roles=explain")
            + &line("less", "tenant=a roles=explain,admin")
            + &line("moved", "tenant=a roles=explain")
            + "cert dns:here tenant=a roles=explain\ncert dns:gone tenant=a roles=explain\ncert * roles=explain\n";
        let before = Book::read(&source(text), None).expect("good");
        let text = line("moved", "tenant=b roles=explain")
            + &line("same", "roles=explain tenant=a")
            + &line("more", "tenant=a roles=explain,admin")
            + &line("less", "tenant=a roles=explain")
            + "cert dns:here tenant=a roles=explain\ncert * roles=explain\n";
        let now = Book::read(&source(text), Some(&before)).expect("good");
        assert_eq!(
            before.withdraw_all_but(&now),
            4,
            "gone, less, moved and dns:gone"
        );
        let stands = |book: &Book, token: &str| {
            let grant = book.by_token(token.as_bytes()).expect("a line").grant;
            !grant.expect("by a line").is_withdrawn()
        };
        for (token, still) in [
            ("same", true),
            ("more", true),
            ("gone", false),
            ("less", false),
        ] {
            assert_eq!(stands(&before, token), still, "{token}");
        }
        for token in ["same", "more", "less", "moved"] {
            assert!(stands(&now, token), "{token}");
        }
        assert_eq!(before.withdraw_all_but(&Book::default()), 8);
        assert!(!stands(&now, "same") && stands(&now, "moved"));
    }

    #[test]
    fn each_mistake_is_told_with_its_line_and_no_hash() {
        let good = hash("one").to_string();
        let key = |rest: &str| format!("\nkey a {good} {rest}");
        for (text, said) in [
            ("\nwho knows".to_owned(), "'who' is unknown"),
            ("\nkey".into(), "needs a name"),
            ("\nkey a".into(), "expected a hash"),
            (
                "\nkey a blake3:12 tenant=a roles=explain".into(),
                "expected a hash",
            ),
            (key("roles=explain"), "needs a tenant="),
            (key("tenant=a"), "needs tenant= and roles="),
            (key("tenant=a roles=king"), "'king'"),
            (key("tenant=a roles="), "''"),
            (key("tenant= roles=explain"), "tenant= is empty"),
            (key("tenant=a tenant=b roles=explain"), "twice"),
            (key("tenant=a roles=explain items=5/s"), "line of their own"),
            (key("tenant=a roles=explain colour=red"), "'colour='"),
            (key("tenant=a roles=explain words"), "fields such as"),
            (
                "\ncert nobody tenant=a roles=explain".into(),
                "begins with uri:",
            ),
            ("\ncert * tenant=a roles=explain".into(), "own name"),
            ("\ntenant a roles=explain".into(), "alone"),
            ("\ntenant a items=many".into(), "'many' is no rate"),
        ] {
            let problem = Book::parse(&text).expect_err(&text);
            assert!(
                problem.starts_with("line 2: ") && problem.contains(said),
                "{problem}"
            );
            assert!(!problem.contains(&good), "{problem}");
        }
        let twice = format!(
            "key a {good} tenant=a roles=explain\nkey a {} tenant=a roles=explain",
            hash("two")
        );
        assert!(
            Book::parse(&twice)
                .expect_err("twice")
                .contains("in line 1 already")
        );
        let same =
            format!("key a {good} tenant=a roles=explain\nkey b {good} tenant=a roles=explain");
        assert!(Book::parse(&same).expect_err("twice").contains("same hash"));
    }
}
