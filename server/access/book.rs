//! The file of identities (`--auth-file`): a line each for a key, a client certificate and a tenant's allowance.
//!
//! ```text
//! # make-key prints such lines
//! key    ci-1                    blake3:9f86...  tenant=acme roles=explain
//! cert   dns:build.acme.example  tenant=acme roles=explain,admin
//! cert   *                       roles=explain
//! tenant acme                    items=600/min tokens=200000/min
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use super::AccessError;
use super::certificate::{CertificateNames, is_name};
use super::key::KeyHash;
use super::rates::{Allowance, Rate};
use super::reload::Source;
use crate::identity::Roles;

/// Keys that a file may have: each call looks at all of them, so that the time it takes tells nothing.
const MOST_KEYS: usize = 10_000;

/// The file, read.
#[derive(Debug, Default)]
pub struct Book {
    keys: Vec<Key>,
    certificates: HashMap<String, (Arc<str>, Roles)>,
    /// What every other verified certificate may do; its name is its tenant.
    any_certificate: Option<Roles>,
    allowances: HashMap<String, Allowance>,
}

#[derive(Debug)]
struct Key {
    hash: KeyHash,
    tenant: Arc<str>,
    roles: Roles,
}

/// The fields of a line that are written `name=value`.
#[derive(Default)]
struct Fields {
    tenant: Option<Arc<str>>,
    roles: Option<Roles>,
    allowance: Allowance,
}

impl Book {
    pub(super) fn read(sources: &[Source]) -> Result<Self, AccessError> {
        let mut book = Self::default();
        for source in sources {
            let text = std::str::from_utf8(&source.bytes);
            let text = text.map_err(|_| source.unusable("is not UTF-8 text"))?;
            book = Self::parse(text).map_err(|problem| source.unusable(problem))?;
        }
        Ok(book)
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
                if self.keys.iter().any(|key| key.hash == hash) {
                    return Err("another key has the same hash".into());
                }
                let (tenant, roles) = Fields::read(words)?.identity(&["tenant", "roles"])?;
                let tenant = tenant.ok_or("a key needs a tenant=")?;
                self.keys.push(Key {
                    hash,
                    tenant,
                    roles,
                });
            }
            "cert" if name == "*" => {
                let (tenant, roles) = Fields::read(words)?.identity(&["roles"])?;
                if tenant.is_some() {
                    return Err("the tenant of 'cert *' is each certificate's own name".into());
                }
                self.any_certificate = Some(roles);
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
                self.certificates.insert(name.into(), (tenant, roles));
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
    pub(super) fn by_token(&self, token: &[u8]) -> Option<(Arc<str>, Roles)> {
        let hash = KeyHash::of(token);
        let mut found = None;
        for key in &self.keys {
            if key.hash == hash {
                found = Some(key);
            }
        }
        found.map(|key| (key.tenant.clone(), key.roles))
    }

    /// Whose certificate it is: by the first of its names that has a line.
    pub(super) fn by_certificate(&self, names: &CertificateNames) -> Option<(Arc<str>, Roles)> {
        let named = names.all().find_map(|name| self.certificates.get(name));
        named
            .cloned()
            .or_else(|| Some((names.best()?.into(), self.any_certificate?)))
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
        let (tenant, roles) = book.by_token(b"one").expect("known");
        assert_eq!((&*tenant, roles), ("acme", Roles::EXPLAIN));
        let (tenant, roles) = book.by_token(b"two").expect("known");
        assert!(&*tenant == "ops" && roles.explain && roles.admin);
        assert!(book.by_token(b"three").is_none() && book.by_token(b"").is_none());
        assert!(book.allowance("acme").expect("a line").items.is_some());
        assert!(book.allowance("ops").is_none());
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
