//! The names in a client's certificate. TLS has verified it by then: what is read here is true, but still read with care.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Names read of a certificate at most, each of at most [`NAME_BYTES`].
const MOST_NAMES: usize = 64;
/// The longest name that counts.
const NAME_BYTES: usize = 256;

/// A certificate's names, as the file of identities writes them: `uri:...`, `dns:...`, `email:...`, `cn:...`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames(Vec<String>);

impl CertificateNames {
    /// Reads them. A certificate that does not parse, or has a name that is not text, has fewer of them.
    pub fn of(der: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self(Vec::new());
        };
        let mut names = Vec::new();
        if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
            // In the order of how much a name says about who it is.
            for kind in ["uri", "dns", "email"] {
                names.extend(alternatives.value.general_names.iter().filter_map(|name| {
                    let (of, name) = match name {
                        GeneralName::URI(name) => ("uri", *name),
                        GeneralName::DNSName(name) => ("dns", *name),
                        GeneralName::RFC822Name(name) => ("email", *name),
                        _ => return None,
                    };
                    (of == kind).then(|| format!("{kind}:{name}"))
                }));
            }
        }
        // A common name that says `dns:acme` is `cn:dns:acme`: the kind is ours.
        let common = certificate.subject().iter_common_name();
        names.extend(common.filter_map(|name| Some(format!("cn:{}", name.as_str().ok()?))));
        names.retain(|name| is_name(name));
        names.truncate(MOST_NAMES);
        Self(names)
    }

    /// All of them, the one that says most first.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The one that says most, with its kind: the tenant, where nothing else names one. So `dns:acme`, `cn:acme` and a key's
    /// `tenant=acme` are three, unless a line of the file makes them one.
    pub fn best(&self) -> Option<&str> {
        self.all().next()
    }
}

/// Fit for a line of the file, for a log and for a label of a trace.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic())
}
