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
use super::file::Source;
use super::grant::{Basis, Known};
use super::key::KeyHash;
use super::rates::{Allowance, Rate};
use crate::identity::Roles;

/// Keys that a file may have: each call looks at all of them, so that the time it takes tells nothing.
const MOST_KEYS: usize = 10_000;

/// The file, read.
#[derive(Debug, Default)]
pub struct Book {
    keys: Vec<(KeyHash, Known, Basis)>,
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
    /// The keys of the book before this one that are in it on the same terms, or wider ones, go on.
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
        let keys: HashMap<_, _> = before
            .keys
            .iter()
            .map(|(hash, ..)| hash)
            .zip(&before.keys)
            .collect();
        for (hash, key, basis) in &mut self.keys {
            if let Some((_, was, before)) = keys.get(hash)
                && key.covers(was)
            {
                *basis = before.clone();
            }
        }
    }

    /// Withdraws the keys that are not in `now`, and tells how many these are. Certificates are withdrawn where they are
    /// known: at their connections.
    pub(super) fn withdraw_all_but(&self, now: &Self) -> usize {
        let kept: HashSet<_> = now.keys.iter().map(|(_, _, basis)| basis.id()).collect();
        let bases = self.keys.iter().map(|(_, _, basis)| basis);
        let gone = bases.filter(|basis| !kept.contains(&basis.id()));
        gone.map(Basis::withdraw).count()
    }

    /// Nobody can tell any more whether its keys stand: what they have begun ends.
    pub(super) fn lapse(&self) {
        self.keys.iter().for_each(|(_, _, basis)| basis.lapse());
    }

    /// The same for those who call from now on.
    pub(super) fn renewed(&self) -> Self {
        let keys = self.keys.iter();
        Self {
            keys: keys
                .map(|(hash, key, _)| (*hash, key.clone(), Basis::new()))
                .collect(),
            certificates: self.certificates.clone(),
            any_certificate: self.any_certificate.clone(),
            allowances: self.allowances.clone(),
        }
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
                .ok_or_else(|| at(format!("{} needs a name", told(kind))))?;
            if !is_name(name) {
                return Err(at(
                    "the name is too long or has other than ASCII letters, digits and signs".into(),
                ));
            }
            if let Some(first) = names.insert((kind.to_owned(), name.to_owned()), number) {
                return Err(at(format!(
                    "{kind} {} is in line {first} already",
                    told(name)
                )));
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
                if self.keys.iter().any(|(other, ..)| *other == hash) {
                    return Err("another key has the same hash".into());
                }
                let (tenant, roles) = Fields::read(words)?.identity(&["tenant", "roles"])?;
                let tenant = tenant.ok_or("a key needs a tenant=")?;
                self.keys
                    .push((hash, Known { tenant, roles }, Basis::new()));
            }
            "cert" if name == "*" => {
                let (tenant, roles) = Fields::read(words)?.identity(&["roles"])?;
                if tenant.is_some() {
                    return Err("the tenant of 'cert *' is each certificate's own name".into());
                }
                let tenant = "".into();
                self.any_certificate = Some(Known { tenant, roles });
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
                    .insert(name.into(), Known { tenant, roles });
            }
            "tenant" => {
                let fields = Fields::read(words)?;
                if fields.tenant.is_some() || fields.roles.is_some() {
                    return Err("a tenant has items= and tokens= alone".into());
                }
                self.allowances.insert(name.into(), fields.allowance);
            }
            _ => {
                return Err(format!(
                    "{} is unknown, expected key, cert or tenant",
                    told(kind)
                ));
            }
        }
        Ok(())
    }

    /// Whose token it is. Looks at every key, and at every byte of its hash, whichever it is.
    pub(super) fn by_token(&self, token: &[u8]) -> Option<(Known, Basis)> {
        let hash = KeyHash::of(token);
        let mut found = None;
        for (other, key, basis) in &self.keys {
            if *other == hash {
                found = Some((key, basis));
            }
        }
        found.map(|(key, basis)| (key.clone(), basis.clone()))
    }

    /// Whose certificate it is: by the first of its names that has a line; by `cert *`, a tenant of its first name.
    pub(super) fn by_certificate(&self, names: &CertificateNames) -> Option<Known> {
        let named = names.all().find_map(|name| self.certificates.get(name));
        named.cloned().or_else(|| {
            let tenant = names.best()?.into();
            let roles = self.any_certificate.as_ref()?.roles;
            Some(Known { tenant, roles })
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
                return Err(format!("{}= is there twice", told(name)));
            }
            seen.push(name);
            // What says that a value is wrong quotes it.
            let quoted = |problem: String| match is_secret(value) {
                true => format!("{name}= has {}", told(value)),
                false => problem,
            };
            let rate = || value.parse::<Rate>().map(Some).map_err(quoted);
            match name {
                "tenant" if is_name(value) => fields.tenant = Some(value.into()),
                "tenant" => return Err("tenant= is empty, too long, or not of ASCII".into()),
                "roles" => fields.roles = Some(value.parse().map_err(quoted)?),
                "items" => fields.allowance.items = rate()?,
                "tokens" => fields.allowance.tokens = rate()?,
                _ => {
                    return Err(format!(
                        "{} is unknown, expected tenant=, roles=, items= or tokens=",
                        told(&format!("{name}="))
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

/// It may be a token or a hash that came into the wrong place: longer than any word of the file that is meant to be read.
fn is_secret(word: &str) -> bool {
    const LONGEST: usize = 32;
    word.len() > LONGEST || word.starts_with("cex_")
}

/// A word of the file as a message may quote it.
fn told(word: &str) -> String {
    if is_secret(word) {
        format!("a word of {} letters", word.len())
    } else {
        format!("'{word}'")
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
        let (known, _) = book.by_token(b"one").expect("known");
        assert_eq!((&*known.tenant, known.roles), ("acme", Roles::EXPLAIN));
        let (known, _) = book.by_token(b"two").expect("known");
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
            + &line("moved", "tenant=a roles=explain");
        let before = Book::read(&source(text), None).expect("good");
        let text = line("moved", "tenant=b roles=explain")
            + &line("same", "roles=explain tenant=a")
            + &line("more", "tenant=a roles=explain,admin")
            + &line("less", "tenant=a roles=explain");
        let now = Book::read(&source(text), Some(&before)).expect("good");
        assert_eq!(before.withdraw_all_but(&now), 3, "gone, less and moved");
        let stands = |book: &Book, token: &str| {
            let (_, basis) = book.by_token(token.as_bytes()).expect("a line");
            !basis.has_ended()
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
        assert_eq!(before.withdraw_all_but(&Book::default()), 5);
        assert!(!stands(&now, "same") && stands(&now, "moved"));
        let renewed = now.renewed();
        now.lapse();
        assert!(!stands(&now, "moved") && stands(&renewed, "moved"));
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
        let leaked = "cex_0123456789";
        for text in [
            leaked.to_owned(),
            format!("{leaked} a b"),
            format!("key {good} {leaked}"),
            format!("key a {good} {leaked}=1"),
            format!("key a {good} tenant=a roles={leaked}"),
            format!("tenant a items={leaked}"),
            format!("tenant {leaked}\ntenant {leaked}"),
        ] {
            let problem = Book::parse(&text).expect_err("a secret in the wrong place");
            assert!(
                !problem.contains(leaked) && !problem.contains(&good),
                "{problem}"
            );
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
