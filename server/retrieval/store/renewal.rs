//! Passages whose vectors another model has made.

use redb::ReadableTable;

use super::{PASSAGES, Store, lock};
use crate::disk::DiskError;
use crate::retrieval::index::VectorIndex;
use crate::retrieval::record::{PassageRecord, seal, unseal};

impl Store {
    /// Some of the passages whose vectors are another model's.
    ///
    /// # Errors
    /// The disk.
    pub fn stale(&self, count: usize) -> Result<Vec<(u64, PassageRecord)>, DiskError> {
        let ids: Vec<u64> = self.read().stale.iter().copied().take(count).collect();
        let found = self.passages(&ids)?;
        let missing = ids
            .into_iter()
            .filter(|id| !found.iter().any(|(there, _)| there == id));
        let missing: Vec<u64> = missing.collect();
        if !missing.is_empty() {
            self.write().stale.retain(|id| !missing.contains(id));
        }
        Ok(found)
    }

    /// Gives passages that were stale their vectors; those that are gone meanwhile stay so.
    ///
    /// # Errors
    /// The disk.
    pub fn renew(&self, renewed: Vec<(u64, Vec<f32>)>) -> Result<(), DiskError> {
        let _change = lock(&self.changes);
        let mut done = Vec::new();
        self.database.write(|database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(PASSAGES)?;
                for (id, vector) in &renewed {
                    let stored = table
                        .get(id)?
                        .and_then(|bytes| unseal::<PassageRecord>(bytes.value()));
                    let Some(mut record) = stored else { continue };
                    record.model = self.model.clone();
                    record.vector = vector.clone();
                    table.insert(id, seal(&record).as_slice())?;
                    done.push((record.scope, *id, record.vector));
                }
            }
            Ok(transaction.commit()?)
        })?;
        let mut state = self.write();
        state
            .stale
            .retain(|id| !renewed.iter().any(|(done, _)| done == id));
        for (scope, id, vector) in done {
            let index = state
                .scopes
                .entry(scope)
                .or_insert_with(|| VectorIndex::new(self.dimensions));
            index.insert(id, &vector);
        }
        Ok(())
    }
}
