//! Documents and their passages: on disk, with every vector in memory beside it.
//!
//! A change is on disk before it is seen by a search, and nobody who reads waits for the disk to take it. While the disk
//! fails, searches go on over what is in memory, and changes are refused; when it works again, memory is made what is on disk.
//! Each scope has an index of its own, so that a search of one tenant cannot come upon what another one has.

mod reading;
mod renewal;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use reading::read_all;
use redb::{ReadableTable, TableDefinition};

use super::index::{GraphBuild, Neighbour, VectorIndex};
use super::record::{DocumentRecord, Kind, PassageRecord, Scope, seal, unseal};
use crate::disk::recovering::{Adopter, Opener};
use crate::disk::{self, DiskError, DiskHealth, RecoveringDatabase};

/// The file in the data directory.
pub const FILE: &str = "corpus.redb";
/// By scope and id.
const DOCUMENTS: TableDefinition<'static, (&[u8; 16], &str), &[u8]> =
    TableDefinition::new("documents");
const PASSAGES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("passages");

/// Documents by their ids, passages by their vectors.
pub struct Store {
    database: RecoveringDatabase,
    /// Of the model whose vectors are searched.
    model: String,
    dimensions: usize,
    state: Arc<RwLock<State>>,
    /// Held over a change on disk and in memory: they come one after another.
    changes: Arc<Mutex<()>>,
}

#[derive(Default)]
struct State {
    scopes: HashMap<Scope, VectorIndex>,
    /// Passages whose vectors are another model's: they are not found.
    stale: Vec<u64>,
    /// Documents, by what they are.
    documents: HashMap<Scope, usize>,
    /// The next passage's name; a later one is larger.
    next: u64,
    broken: u64,
}

/// A document to store.
pub struct NewDocument {
    /// Whose it is.
    pub scope: Scope,
    /// Its name; it takes the place of one of the same name.
    pub id: String,
    /// What it is.
    pub kind: Kind,
    /// For people.
    pub title: String,
    /// Length of its text.
    pub bytes: u64,
    /// BLAKE3 of title and text.
    pub digest: [u8; 32],
    /// Its passages.
    pub passages: Vec<NewPassage>,
}

/// A passage to store.
pub struct NewPassage {
    /// For people, and for the prompt.
    pub title: String,
    /// What a prompt quotes.
    pub text: String,
    /// What the vector was made of, where that is not title and text.
    pub embedded: Option<String>,
    /// Of length 1.
    pub vector: Vec<f32>,
}

/// What the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Documents that the operator has loaded.
    pub documents: u64,
    /// Their passages.
    pub passages: u64,
    /// Answers that are kept.
    pub answers: u64,
    /// Passages that wait for a vector of this model.
    pub stale: u64,
    /// Records that were not what had been stored.
    pub broken: u64,
    /// How its disk fares.
    pub disk: DiskHealth,
}

impl Store {
    /// Opens the store in a directory, or one that lives as long as the process, for the vectors of a model.
    ///
    /// # Errors
    /// [`DiskError`]: it is in use, or damaged as a whole. A record that is damaged is left out and counted.
    pub fn open(
        directory: Option<&Path>,
        model: &str,
        dimensions: usize,
    ) -> Result<Self, DiskError> {
        let directory = directory.map(Path::to_owned);
        let open = move || disk::open(directory.as_deref(), FILE);
        Self::open_by(Box::new(open), model, dimensions)
    }

    /// As [`open`](Self::open), in a database that `open` opens, as often as its disk fails.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_by(open: Opener, model: &str, dimensions: usize) -> Result<Self, DiskError> {
        let state: Arc<RwLock<State>> = Arc::default();
        let changes: Arc<Mutex<()>> = Arc::default();
        let (current, of, no_change) = (state.clone(), model.to_owned(), changes.clone());
        let adopt: Adopter = Box::new(move |database| {
            let _no_change = lock(&no_change);
            let mut found = State::default();
            read_all(database, &of, dimensions, &mut found).map_err(DiskError::failed)?;
            let scopes: Vec<Scope> = found.scopes.keys().copied().collect();
            *write(&current) = found;
            for scope in scopes {
                add_graph(&current, scope, dimensions);
            }
            Ok(())
        });
        Ok(Self {
            database: RecoveringDatabase::open("corpus", open, adopt)?,
            model: model.to_owned(),
            dimensions,
            state,
            changes,
        })
    }

    /// The nearest passages in some scopes, the nearest first, with their vectors.
    pub fn search(
        &self,
        scopes: &[Scope],
        query: &[f32],
        count: usize,
    ) -> Vec<(Neighbour, Vec<f32>)> {
        let state = self.read();
        let mut found = Vec::new();
        for index in scopes.iter().filter_map(|scope| state.scopes.get(scope)) {
            let vector = |n: &Neighbour| index.get(n.id).map(<[f32]>::to_vec);
            let near = index.search(query, count);
            found.extend(near.into_iter().filter_map(|n| Some((n, vector(&n)?))));
        }
        found.sort_by(|(a, _), (b, _)| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        found.truncate(count);
        found
    }

    /// Stores a document in place of the one of its name. It is found when this returns. At most `limit` passages may be
    /// in its scope.
    ///
    /// # Errors
    /// The disk. `Ok(false)`: there is no room, and nothing has changed.
    pub fn put(&self, document: NewDocument, limit: usize) -> Result<bool, DiskError> {
        let NewDocument {
            scope,
            id,
            kind,
            title,
            bytes,
            digest,
            passages,
        } = document;
        let added = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let mut vectors = Vec::with_capacity(passages.len());
        let mut old = Vec::new();
        {
            let _change = lock(&self.changes);
            let (first, there) = {
                let state = self.read();
                let there = state.scopes.get(&scope).map_or(0, VectorIndex::len);
                (state.next, there)
            };
            let written = self.database.write(|database| {
                let transaction = database.begin_write()?;
                {
                    let mut documents = transaction.open_table(DOCUMENTS)?;
                    let mut table = transaction.open_table(PASSAGES)?;
                    let before = documents.get((&scope.0, id.as_str()))?;
                    let before: Option<DocumentRecord> = before.and_then(|b| unseal(b.value()));
                    old = before.map(|record| record.passages).unwrap_or_default();
                    if (there + passages.len()).saturating_sub(old.len()) > limit {
                        return Ok(false);
                    }
                    for id in &old {
                        table.remove(id)?;
                    }
                    let names: Vec<u64> = (first..first + passages.len() as u64).collect();
                    for ((number, passage), &name) in passages.into_iter().enumerate().zip(&names) {
                        let record = PassageRecord {
                            scope,
                            kind,
                            document: id.clone(),
                            number: number as u32,
                            title: passage.title,
                            text: passage.text,
                            embedded: passage.embedded,
                            model: self.model.clone(),
                            vector: passage.vector,
                        };
                        table.insert(name, seal(&record).as_slice())?;
                        vectors.push((name, record.vector));
                    }
                    let record = DocumentRecord {
                        kind,
                        title,
                        bytes,
                        digest,
                        added,
                        passages: names,
                    };
                    documents.insert((&scope.0, id.as_str()), seal(&record).as_slice())?;
                }
                transaction.commit()?;
                Ok(true)
            });
            if !written? {
                return Ok(false);
            }
            let mut state = self.write();
            state.next += vectors.len() as u64;
            state.forget(scope, &old);
            if old.is_empty() {
                *state.documents.entry(scope).or_default() += 1;
            }
            let index = state
                .scopes
                .entry(scope)
                .or_insert_with(|| VectorIndex::new(self.dimensions));
            vectors
                .iter()
                .for_each(|(id, vector)| index.insert(*id, vector));
        }
        add_graph(&self.state, scope, self.dimensions);
        Ok(true)
    }

    /// Takes out the documents of a scope whose names `wanted` picks; gives back how many, and their passages.
    ///
    /// # Errors
    /// The disk.
    pub fn remove(
        &self,
        scope: Scope,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(u64, u64), DiskError> {
        let _change = lock(&self.changes);
        let mut gone = Vec::new();
        let count = self.database.write(|database| {
            let transaction = database.begin_write()?;
            let mut count = 0;
            {
                let mut documents = transaction.open_table(DOCUMENTS)?;
                let mut passages = transaction.open_table(PASSAGES)?;
                let mut names = Vec::new();
                for entry in documents.range((&scope.0, "")..)? {
                    let (key, bytes) = entry?;
                    let (found, id) = key.value();
                    if *found != scope.0 {
                        break;
                    }
                    if wanted(id) {
                        let record: Option<DocumentRecord> = unseal(bytes.value());
                        gone.extend(record.map(|r| r.passages).unwrap_or_default());
                        names.push(id.to_owned());
                    }
                }
                for name in &names {
                    documents.remove((&scope.0, name.as_str()))?;
                    count += 1;
                }
                for passage in &gone {
                    passages.remove(passage)?;
                }
            }
            transaction.commit()?;
            Ok(count)
        })?;
        let mut state = self.write();
        state.forget(scope, &gone);
        if let Some(documents) = state.documents.get_mut(&scope) {
            *documents = documents.saturating_sub(count as usize);
        }
        Ok((count, gone.len() as u64))
    }

    /// How its disk fares. Waits for nothing.
    pub fn disk(&self) -> DiskHealth {
        self.database.health()
    }

    /// What it holds.
    pub fn stats(&self) -> StoreStats {
        let state = self.read();
        let shared = |scope: &Scope| *scope == Scope::SHARED;
        let documents = |wanted: bool| {
            let of = state
                .documents
                .iter()
                .filter(|(scope, _)| shared(scope) == wanted);
            of.map(|(_, count)| *count as u64).sum()
        };
        StoreStats {
            documents: documents(true),
            passages: state
                .scopes
                .get(&Scope::SHARED)
                .map_or(0, |index| index.len() as u64),
            answers: documents(false),
            stale: state.stale.len() as u64,
            broken: state.broken,
            disk: self.disk(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        read(&self.state)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        write(&self.state)
    }
}

/// Makes a graph where one is wanted, while searches go on.
fn add_graph(state: &RwLock<State>, scope: Scope, dimensions: usize) {
    let snapshot = {
        let state = read(state);
        let index = state.scopes.get(&scope).filter(|index| index.wants_graph());
        index.map(VectorIndex::snapshot)
    };
    let Some((ids, vectors)) = snapshot else {
        return;
    };
    let built = GraphBuild::new(ids, &vectors, dimensions).and_then(|build| {
        write(state)
            .scopes
            .get_mut(&scope)
            .map_or(Ok(()), |index| index.adopt(build))
    });
    if let Err(error) = built {
        tracing::warn!(error, "no graph for an index; its searches are exact");
    }
}

fn lock(changes: &Mutex<()>) -> MutexGuard<'_, ()> {
    changes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(state: &RwLock<State>) -> RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(state: &RwLock<State>) -> RwLockWriteGuard<'_, State> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn forget(&mut self, scope: Scope, passages: &[u64]) {
        if let Some(index) = self.scopes.get_mut(&scope) {
            passages.iter().for_each(|id| index.remove(*id));
        }
        self.stale.retain(|id| !passages.contains(id));
    }
}
