//! What is on disk, read.

use redb::{Database, ReadableDatabase, ReadableTable};

use super::{DOCUMENTS, PASSAGES, State, Store};
use crate::disk::DiskError;
use crate::retrieval::index::VectorIndex;
use crate::retrieval::record::{DocumentRecord, PassageRecord, Scope, unseal};

impl Store {
    /// Passages by their names; those that are gone meanwhile are left out.
    ///
    /// # Errors
    /// The disk.
    pub fn passages(&self, ids: &[u64]) -> Result<Vec<(u64, PassageRecord)>, DiskError> {
        self.database.read(|database| {
            let table = database.begin_read()?.open_table(PASSAGES)?;
            let mut found = Vec::new();
            for &id in ids {
                let record = table.get(id)?.and_then(|bytes| unseal(bytes.value()));
                found.extend(record.map(|record| (id, record)));
            }
            Ok(found)
        })
    }

    /// A document, without its text.
    ///
    /// # Errors
    /// The disk.
    pub fn document(&self, scope: Scope, id: &str) -> Result<Option<DocumentRecord>, DiskError> {
        self.database.read(|database| {
            let table = database.begin_read()?.open_table(DOCUMENTS)?;
            Ok(table
                .get((&scope.0, id))?
                .and_then(|bytes| unseal(bytes.value())))
        })
    }

    /// Documents of a scope in the order of their names: those after `after` that begin with `prefix`, at most `count`.
    ///
    /// # Errors
    /// The disk.
    pub fn list(
        &self,
        scope: Scope,
        after: Option<&str>,
        prefix: &str,
        count: usize,
    ) -> Result<Vec<(String, DocumentRecord)>, DiskError> {
        self.database.read(|database| {
            let table = database.begin_read()?.open_table(DOCUMENTS)?;
            let mut found = Vec::new();
            let from = after.unwrap_or_default().max(prefix);
            for entry in table.range((&scope.0, from)..)? {
                let (key, bytes) = entry?;
                let (owner, id) = key.value();
                if *owner != scope.0 || !id.starts_with(prefix) || found.len() == count {
                    break;
                }
                if after == Some(id) {
                    continue;
                }
                let record: Option<DocumentRecord> = unseal(bytes.value());
                found.extend(record.map(|record| (id.to_owned(), record)));
            }
            Ok(found)
        })
    }

    /// Where most answers are kept: that tenant's oldest answer makes room. Its scope and name.
    ///
    /// # Errors
    /// The disk.
    pub fn oldest_answer(&self) -> Result<Option<(Scope, String)>, DiskError> {
        let (scope, oldest) = {
            let state = self.read();
            let tenants = state
                .scopes
                .iter()
                .filter(|(scope, _)| **scope != Scope::SHARED);
            let Some((scope, index)) = tenants.max_by_key(|(scope, index)| (index.len(), **scope))
            else {
                return Ok(None);
            };
            (*scope, index.oldest())
        };
        let Some(oldest) = oldest else {
            return Ok(None);
        };
        let found = self.passages(&[oldest])?.pop();
        Ok(found.map(|(_, record)| (scope, record.document)))
    }
}

/// Fills the indexes.
pub(super) fn read_all(
    database: &Database,
    model: &str,
    dimensions: usize,
    state: &mut State,
) -> Result<(), redb::Error> {
    // Makes the tables, so that who reads need not ask for them.
    let transaction = database.begin_write()?;
    transaction.open_table(DOCUMENTS)?;
    transaction.open_table(PASSAGES)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    for entry in transaction.open_table(DOCUMENTS)?.iter()? {
        let scope = Scope(*entry?.0.value().0);
        *state.documents.entry(scope).or_default() += 1;
    }
    for entry in transaction.open_table(PASSAGES)?.iter()? {
        let (id, bytes) = entry?;
        let id = id.value();
        state.next = state.next.max(id + 1);
        let Some(record) = unseal::<PassageRecord>(bytes.value()) else {
            state.broken += 1;
            continue;
        };
        if record.model != model || record.vector.len() != dimensions {
            state.stale.push(id);
            continue;
        }
        let index = state
            .scopes
            .entry(record.scope)
            .or_insert_with(|| VectorIndex::new(dimensions));
        index.insert(id, &record.vector);
    }
    Ok(())
}
