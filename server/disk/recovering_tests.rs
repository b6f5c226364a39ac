use std::io;
use std::time::Instant;

use redb::{Builder, ReadableDatabase, ReadableTableMetadata, StorageBackend};

use super::*;

const NUMBERS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("numbers");
/// For a machine that does much else; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file on a disk that can be filled; what is in it outlives the database.
#[derive(Debug, Clone, Default)]
struct File(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    full: bool,
    opened: usize,
}

impl File {
    fn lock(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.0.lock().expect("whole")
    }

    fn fill(&self, full: bool) {
        self.lock().full = full;
    }

    fn changed<T>(&self, change: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        let mut contents = self.lock();
        if contents.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(change(&mut contents.bytes))
    }

    fn open(&self, told: &Arc<Mutex<Vec<u64>>>) -> Result<RecoveringDatabase, DiskError> {
        let (file, told) = (self.clone(), told.clone());
        let open = move || {
            file.lock().opened += 1;
            let opened = Builder::new().create_with_backend(file.clone());
            opened.map_err(DiskError::failed)
        };
        let adopt = move |database: &Database| {
            let count = || -> Result<u64, redb::Error> {
                let transaction = database.begin_write()?;
                let count = transaction.open_table(NUMBERS)?.len()?;
                transaction.commit()?;
                Ok(count)
            };
            told.lock()
                .expect("whole")
                .push(count().map_err(DiskError::failed)?);
            Ok(())
        };
        RecoveringDatabase::waiting(
            Duration::from_millis(1),
            "test",
            Box::new(open),
            Box::new(adopt),
        )
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (contents, offset) = (self.lock(), offset as usize);
        out.copy_from_slice(&contents.bytes[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.changed(|bytes| bytes.resize(len as usize, 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.changed(|_| ())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = offset as usize;
        self.changed(|bytes| bytes[offset..offset + data.len()].copy_from_slice(data))
    }
}

fn put(database: &RecoveringDatabase, number: u64) -> Result<(), DiskError> {
    database.write(|database| {
        let transaction = database.begin_write()?;
        (transaction.open_table(NUMBERS)?).insert(number, [7_u8; 4096].as_slice())?;
        Ok(transaction.commit()?)
    })
}

fn numbers(database: &RecoveringDatabase) -> Result<u64, DiskError> {
    database.read(|database| Ok(database.begin_read()?.open_table(NUMBERS)?.len()?))
}

#[track_caller]
fn until(wanted: impl Fn() -> bool) {
    let began = Instant::now();
    while !wanted() {
        assert!(began.elapsed() < PATIENCE, "it does not come");
        std::thread::yield_now();
    }
}

#[test]
fn what_was_committed_is_there_when_a_full_disk_has_room_again() {
    let (file, told) = (File::default(), Arc::default());
    let database = file.open(&told).expect("a database");
    for number in 0..100 {
        put(&database, number).expect("room");
    }
    file.fill(true);
    let error = put(&database, 100).expect_err("full");
    assert!(matches!(error, DiskError::Failed(_)), "{error}");
    assert!(matches!(put(&database, 100), Err(DiskError::Away { .. })));
    assert!(matches!(numbers(&database), Err(DiskError::Away { .. })));
    assert!(database.health().away);
    // It tries again and again.
    until(|| database.health().errors > 3);
    assert!(database.health().away);
    file.fill(false);
    until(|| !database.health().away);
    assert_eq!(numbers(&database).expect("it is back"), 100);
    put(&database, 100).expect("room again");
    assert_eq!(numbers(&database).expect("it works"), 101);
    assert_eq!(*told.lock().expect("whole"), [0, 100]);
    // And once more, as often as it comes to it.
    file.fill(true);
    put(&database, 101).expect_err("full");
    file.fill(false);
    until(|| put(&database, 101).is_ok());
    drop(database);
    let again = file.open(&told).expect("a database");
    assert_eq!(numbers(&again).expect("it works"), 102);
}

#[test]
fn a_disk_that_is_full_from_the_start_is_waited_for() {
    let (file, told) = (File::default(), Arc::default());
    file.fill(true);
    let database = file.open(&told).expect("one that is away");
    assert!(database.health().away);
    assert!(matches!(put(&database, 1), Err(DiskError::Away { .. })));
    file.fill(false);
    until(|| put(&database, 1).is_ok());
}

#[test]
fn nobody_opens_a_database_that_nobody_needs() {
    let (file, told) = (File::default(), Arc::default());
    let database = file.open(&told).expect("a database");
    file.fill(true);
    put(&database, 1).expect_err("full");
    let inner = Arc::downgrade(&database.inner);
    drop(database);
    // The thread has ended, or it would hold it now and then.
    until(|| inner.strong_count() == 0);
    let opened = file.lock().opened;
    file.fill(false);
    assert_eq!(file.lock().opened, opened);
}

#[test]
fn a_change_that_is_wrong_in_itself_closes_nothing() {
    let (file, told) = (File::default(), Arc::default());
    let database = file.open(&told).expect("a database");
    let wrong = database.write::<()>(|_| Err(redb::Error::ValueTooLarge(1)));
    assert!(matches!(wrong, Err(DiskError::Failed(_))));
    assert_eq!(database.health(), DiskHealth::default());
    put(&database, 1).expect("it is open");
}

#[test]
fn a_panic_within_closes_it_and_it_comes_back() {
    let (file, told) = (File::default(), Arc::default());
    let database = file.open(&told).expect("a database");
    put(&database, 1).expect("room");
    let broken = database.read::<()>(|_| panic!("pages that do not fit together"));
    assert!(matches!(broken, Err(DiskError::Broken { .. })));
    until(|| !database.health().away && numbers(&database).is_ok_and(|count| count == 1));
}
