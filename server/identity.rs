//! Who an item is for, and what they may do. Made at the door (`api`) from what a client has proved, never from a field
//! that it filled in, and carried to everything that tenants must not share.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use crate::access::Grant;
use crate::access::rates::Rates;

/// Separates these salts from every other use of BLAKE3's key derivation.
const SALT_CONTEXT: &str = "code-explainer 2026-11 tenant salt";

/// Whom a call is for.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Those who share a queue's turn, cached answers and prompt prefixes; empty where nobody has to say who they are.
    pub tenant: Arc<str>,
    /// What it may do.
    pub roles: Roles,
    /// How much it may ask for; shared by all of its tenant.
    pub rates: Arc<Rates>,
    /// What let it in, where that can be withdrawn.
    pub grant: Option<Grant>,
}

/// What an identity may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Roles {
    /// Have code explained, and see what is served.
    pub explain: bool,
    /// See how the server fares, and change it.
    pub admin: bool,
    /// Read `/metrics`, which admins may as well.
    pub metrics: bool,
}

impl Roles {
    /// Have code explained, no more.
    pub const EXPLAIN: Self = Self {
        explain: true,
        admin: false,
        metrics: false,
    };

    /// Whether they have all of these.
    pub fn include(self, others: Self) -> bool {
        self.explain >= others.explain
            && self.admin >= others.admin
            && self.reads_metrics() >= others.reads_metrics()
    }

    /// Whether they may read `/metrics` where that is guarded.
    pub fn reads_metrics(self) -> bool {
        self.metrics || self.admin
    }
}

impl FromStr for Roles {
    type Err = String;

    /// `explain`, `admin`, `metrics`, or several with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut roles = Self::default();
        for role in text.split(',') {
            match role {
                "explain" => roles.explain = true,
                "admin" => roles.admin = true,
                "metrics" => roles.metrics = true,
                _ => {
                    return Err(format!(
                        "'{role}' is no role, expected explain, admin or metrics"
                    ));
                }
            }
        }
        Ok(roles)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = [
            (self.explain, "explain"),
            (self.admin, "admin"),
            (self.metrics, "metrics"),
        ];
        let names: Vec<_> = held
            .iter()
            .filter_map(|(held, name)| held.then_some(*name))
            .collect();
        f.write_str(&names.join(","))
    }
}

impl Identity {
    /// The one identity of a server that asks nobody who they are.
    pub fn anonymous() -> Arc<Self> {
        static ANONYMOUS: LazyLock<Arc<Identity>> = LazyLock::new(|| {
            Arc::new(Identity {
                tenant: "".into(),
                roles: Roles {
                    explain: true,
                    admin: true,
                    metrics: false,
                },
                rates: Rates::unlimited(),
                grant: None,
            })
        });
        ANONYMOUS.clone()
    }

    /// The salt of its tenant.
    pub fn salt(&self, secret: &[u8]) -> Arc<[u8]> {
        salt(&self.tenant, secret)
    }
}

/// Keys what a tenant's items leave behind, so that no tenant finds out about another's by what is there already. The same
/// on all replicas that have the same secret, and nothing that a client could work out.
pub fn salt(tenant: &str, secret: &[u8]) -> Arc<[u8]> {
    let key = blake3::derive_key(SALT_CONTEXT, secret);
    let salt = blake3::keyed_hash(&key, tenant.as_bytes());
    Arc::from(salt.as_bytes().as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Identity {
        Identity {
            tenant: name.into(),
            roles: Roles::default(),
            rates: Rates::unlimited(),
            grant: None,
        }
    }

    #[test]
    fn an_admin_has_the_role_of_metrics_and_not_the_other_way_round() {
        let of = |text: &str| text.parse::<Roles>().expect("roles");
        let (admin, metrics) = (of("admin"), of("metrics"));
        assert!(admin.include(metrics) && !metrics.include(admin));
        assert!(!metrics.include(Roles::EXPLAIN) && !Roles::EXPLAIN.include(metrics));
        assert_eq!(of("metrics,explain").to_string(), "explain,metrics");
    }

    #[test]
    fn salts_differ_by_tenant_and_by_secret_and_not_by_role() {
        let admin = Identity {
            roles: Roles {
                explain: true,
                admin: true,
                metrics: false,
            },
            ..tenant("a")
        };
        assert_eq!(tenant("a").salt(b"secret"), admin.salt(b"secret"));
        assert_ne!(tenant("a").salt(b"secret"), tenant("b").salt(b"secret"));
        assert_ne!(tenant("a").salt(b"secret"), tenant("a").salt(b"other"));
        assert_ne!(
            tenant("a").salt(b"secret"),
            Identity::anonymous().salt(b"secret")
        );
    }
}
