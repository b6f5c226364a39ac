//! The certificates that clients have shown, for as long as something rests on them: checked again when the authorities or
//! the lists of revoked certificates have changed, and when one of them has reached its end.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::pki_types::{CertificateDer, UnixTime};
use tokio_util::sync::CancellationToken;

use super::book::Book;
use super::certificate::CertificateNames;
use super::grant::Basis;
use super::tls::{Clients, seconds};

/// Bytes of a client's certificate, with all that it sends along; more are refused. A server's connections, with what is
/// kept for lost ones, can so have 16 KiB each.
const CHAIN_BYTES: usize = 16 << 10;
/// Places of certificates that are gone are given back when there are twice as many as of those that are there, and so many.
const FEW: usize = 64;

/// What a client has shown, verified when its connection was made.
pub struct ClientCertificate {
    names: CertificateNames,
    /// Its own first, then those up to an authority.
    chain: Vec<CertificateDer<'static>>,
    /// It lets nobody in any more, and its connection ends.
    revoked: CancellationToken,
    /// What those rest on who call by it: ends when another line counts for it.
    basis: Mutex<Basis>,
    /// In seconds since 1970, when it can be another answer whether it is good.
    check_at: AtomicI64,
}

impl ClientCertificate {
    fn new(chain: &[CertificateDer<'_>]) -> Self {
        let bytes = chain.iter().map(|one| one.len()).sum::<usize>();
        let kept = if bytes <= CHAIN_BYTES { chain } else { &[] };
        Self {
            names: kept
                .first()
                .map(|leaf| CertificateNames::of(leaf))
                .unwrap_or_default(),
            chain: kept.iter().map(|one| one.clone().into_owned()).collect(),
            revoked: CancellationToken::new(),
            basis: Mutex::new(Basis::new()),
            check_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Its names.
    pub fn names(&self) -> &CertificateNames {
        &self.names
    }

    /// Whether it lets nobody in any more.
    pub fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    /// Waits until then. Safe to drop.
    pub async fn revoked(&self) {
        self.revoked.cancelled().await;
    }

    pub(super) fn basis(&self) -> Basis {
        self.lock().clone()
    }

    /// Puts another one in its place, and gives the old one.
    fn new_basis(&self) -> Basis {
        std::mem::replace(&mut *self.lock(), Basis::new())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Basis> {
        self.basis.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks it, and gives whether it has been revoked by that.
    fn check(&self, by: &Clients, now: UnixTime) -> bool {
        match by.verify(&self.chain, now) {
            Ok(until) => {
                self.check_at
                    .store(until.saturating_add(1), Ordering::Relaxed);
                false
            }
            Err(_) => {
                self.revoked.cancel();
                true
            }
        }
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

/// All of them. As many as there are connections and streams that wait for one, which have bounds of their own.
#[derive(Default)]
pub(super) struct ClientCertificates(Mutex<Vec<Weak<ClientCertificate>>>);

impl ClientCertificates {
    /// Of a connection whose handshake was made by `by`, while `current` tells what counts now.
    pub(super) fn add(
        &self,
        chain: &[CertificateDer<'_>],
        by: &Arc<Clients>,
        current: impl FnOnce() -> Arc<Clients>,
    ) -> Arc<ClientCertificate> {
        let certificate = Arc::new(ClientCertificate::new(chain));
        {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() == all.capacity().max(FEW) {
                all.retain(|one| one.strong_count() > 0);
                let room = all.len().max(FEW);
                all.reserve(room);
            }
            all.push(Arc::downgrade(&certificate));
        }
        // Asked for after it is in the list, so that no change of the files falls in between. A session that is resumed
        // is of a certificate that was verified before, so its end is looked at again.
        let (now, current) = (UnixTime::now(), current());
        let until = by.until(&certificate.chain);
        if Arc::ptr_eq(by, &current) && seconds(now) <= until && !certificate.chain.is_empty() {
            certificate
                .check_at
                .store(until.saturating_add(1), Ordering::Relaxed);
        } else {
            certificate.check(&current, now);
        }
        certificate
    }

    fn all(&self) -> Vec<Arc<ClientCertificate>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = all.iter().filter_map(Weak::upgrade);
        there.filter(|one| !one.is_revoked()).collect()
    }

    /// Checks them, or those alone for which it is time; gives how many are revoked by that. Takes about 0.2 ms for each.
    pub(super) fn check(&self, by: &Clients, now: UnixTime, every: bool) -> usize {
        let due = |one: &Arc<ClientCertificate>| {
            every || seconds(now) >= one.check_at.load(Ordering::Relaxed)
        };
        let due = self.all().into_iter().filter(due);
        due.filter(|one| one.check(by, now)).count()
    }

    /// Ends what was begun by those whom the file lets in otherwise than before, and gives how many these are.
    pub(super) fn withdraw_changed(&self, before: &Book, now: &Book) -> usize {
        let changed = |one: &Arc<ClientCertificate>| {
            let was = before.by_certificate(&one.names);
            let is = now.by_certificate(&one.names);
            was.is_some_and(|was| is.is_none_or(|is| !is.covers(&was)))
        };
        let changed = self.all().into_iter().filter(changed);
        changed.map(|one| one.new_basis().withdraw()).count()
    }

    /// Nobody can tell any more whom they let in.
    pub(super) fn lapse(&self) {
        for one in self.all() {
            one.new_basis().lapse();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd,
    };

    use super::super::file::Source;
    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        CertifiedIssuer::self_signed(params, key).expect("signed")
    }

    fn clients(authority: &Authority) -> Arc<Clients> {
        let source = Source {
            flag: "tls-client-ca",
            path: "ca".into(),
            bytes: authority.pem().into_bytes(),
        };
        Arc::new(Clients::read(&[source], true).expect("an authority"))
    }

    /// Good until 2090.
    fn certificate(authority: &Authority) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.not_after = date_time_ymd(2090, 1, 1);
        let key = KeyPair::generate().expect("a key");
        params.signed_by(&key, authority).expect("signed").into()
    }

    fn year(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 366 * 24 * 3600))
    }

    #[test]
    fn it_is_checked_when_its_end_has_come_or_the_authorities_are_others() {
        let (authority, other) = (authority(), authority());
        let (by, others) = (clients(&authority), clients(&other));
        let all = ClientCertificates::default();
        let chain = [certificate(&authority)];
        let add = |current: &Arc<Clients>| all.add(&chain, &by, || current.clone());

        let ends = add(&by);
        assert_eq!(
            all.check(&others, year(2080), false),
            0,
            "it is not its time"
        );
        assert!(!ends.is_revoked());
        assert_eq!(all.check(&by, year(2091), false), 1);
        assert!(ends.is_revoked());

        let taken_out = add(&by);
        assert_eq!(all.check(&others, year(2080), true), 1);
        assert!(taken_out.is_revoked());
        assert!(add(&others).is_revoked(), "they have changed meanwhile");
        assert_eq!(all.check(&others, year(2080), true), 0, "nothing is left");
    }

    #[test]
    fn places_are_used_again_and_what_is_too_large_is_refused() {
        let authority = authority();
        let (by, own) = (clients(&authority), certificate(&authority));
        let all = ClientCertificates::default();
        let kept = all.add(std::slice::from_ref(&own), &by, || by.clone());
        for _ in 0..10_000 {
            all.add(std::slice::from_ref(&own), &by, || by.clone());
        }
        assert!(all.0.lock().expect("whole").capacity() <= 4 * FEW);
        assert!(!kept.is_revoked() && all.all().len() == 1);
        let large = vec![own; CHAIN_BYTES / 256];
        let large = all.add(&large, &by, || by.clone());
        assert!(large.is_revoked() && large.names().best().is_none());
    }
}
