//! The tables, and the two ways to see them: [`Tx`] inside a write transaction, [`Snapshot`] in a read one.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;

use redb::{
    CursorError, Key, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, TableError, Value,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use super::bulk::BULKS;
use super::codec::{decode, encode};
use super::records::{Bulks, Generations, Head, state_code, state_of_code};
use crate::model::{LEAP, Millis, Settings, StateKind};

/// Version of the tables below, and of their records. Up to [`SCHEMA_OLDEST`], older ones are read as they are; the
/// first transaction that changes such a file makes it one of this version.
///
/// | version | since then |
/// |---|---|
/// | 5 | a job that is cancelled for a need keeps its start time and its hold |
///
/// A program of version 4 looks at it only when it opens the file. If it has it open while it is raised, all that it
/// writes is sound; what it cannot read it takes for damage, and ends: it loses nothing, and changes none of it.
pub const SCHEMA_VERSION: u32 = 5;
/// The oldest version that is read: all that is in such a file is what this version could have in it, too.
pub(super) const SCHEMA_OLDEST: u32 = 4;

/// Refuses a file whose schema is not known here. Answers with it.
pub(super) fn known_schema(found: u32) -> Result<u32, StoreError> {
    match found {
        SCHEMA_OLDEST..=SCHEMA_VERSION => Ok(found),
        _ => Err(StoreError::Schema { found, known: SCHEMA_VERSION }),
    }
}

/// A record: all values are bytes, since redb's own decoding cannot fail and would panic.
pub(super) type Record = &'static [u8];

macro_rules! tables {
    ($($(#[$doc:meta])* $constant:ident, $field:ident: $key:ty => $value:ty;)*) => {
        $($(#[$doc])* pub(super) const $constant: TableDefinition<'static, $key, $value> =
            TableDefinition::new(stringify!($field));)*

        /// The tables of a write transaction, each opened when it is first used.
        pub(super) struct Tables<'t> {
            $(pub(super) $field: Lazy<'t, $key, $value>,)*
        }

        impl<'t> Tables<'t> {
            pub(super) fn new(txn: &'t WriteTransaction) -> Self {
                Self { $($field: Lazy { txn, definition: $constant, table: None },)* }
            }

            /// Makes every table, so that a reader finds them all.
            pub(super) fn open_all(&mut self) -> Result<(), StoreError> {
                $(self.$field.open()?;)*
                Ok(())
            }
        }

        #[cfg(test)]
        impl Snapshot {
            /// How many rows each table has, those of none left out.
            pub(super) fn row_counts(&self) -> Result<BTreeMap<&'static str, usize>, StoreError> {
                let mut counts = BTreeMap::new();
                $(counts.insert(stringify!($field), self.open($constant)?.iter()?.count());)*
                counts.retain(|_, count| *count > 0);
                Ok(counts)
            }
        }

        impl Snapshot {
            /// Puts every row of every table, in order, in the place of what is in `to`. Each lies there as it lies here.
            pub(super) fn copy_rows(&self, to: &mut Tables<'_>) -> Result<(), StoreError> {
                $(copy_table(&self.open($constant)?, to.$field.open()?)?;)*
                Ok(())
            }

            /// A hash of every byte of every table: whether anything changed.
            pub fn fingerprint(&self) -> Result<u64, StoreError> {
                let mut hasher = xxhash_rust::xxh3::Xxh3::new();
                $(hash_table(&self.open($constant)?, &mut hasher)?;)*
                Ok(hasher.digest())
            }
        }

        #[cfg(any(test, feature = "sim"))]
        impl Snapshot {
            /// The same, META's generations aside: they only have to move, not to be anywhere.
            pub fn fingerprint_but_generations(&self) -> Result<u64, StoreError> {
                let mut hasher = xxhash_rust::xxh3::Xxh3::new();
                $(if stringify!($field) != "meta" {
                    hash_table(&self.open($constant)?, &mut hasher)?;
                })*
                hasher.update(format!("{:?}", self.head()?).as_bytes());
                Ok(hasher.digest())
            }

            /// Every record of every table, as it lies there.
            pub fn records(&self) -> Result<Vec<Vec<u8>>, StoreError> {
                let mut records = Vec::new();
                $(each_row(&self.open($constant)?, |_, value| records.push(value.to_vec()))?;)*
                records.retain(|record| !record.is_empty());
                Ok(records)
            }
        }
    };
}

tables! {
    /// `schema`, `head`, `generations`, `bulks`, `let_go` → their records.
    META, meta: &'static str => Record;
    /// (queue, or "" for all; setting) → text.
    CONFIG, config: (&'static str, &'static str) => Record;
    /// lane → [`super::records::LaneRecord`].
    LANES, lanes: u64 => Record;
    /// (queue, lane): the published lanes that ordinary pools serve.
    QUEUES, queues: (&'static str, u64) => ();
    /// (identity of a run, lane): the runs of the same line, the newest last.
    RUNS, runs: (u128, u64) => ();
    /// seq → [`super::records::JobRecord`].
    JOBS, jobs: u64 => Record;
    /// seq → [`super::records::SpecRecord`].
    SPECS, specs: u64 => Record;
    /// An id that a user gave → seq.
    IDS, ids: &'static str => Record;
    /// What a job was enqueued under → seq.
    KEYS, keys: &'static str => Record;
    /// (lane, rank, seq): what is pending, in the order in which it is claimed.
    READY, ready: (u64, u8, u64) => ();
    /// (lane, due, seq): what is scheduled or failed. The first key of each lane is its next deadline. What is held is
    /// due at the end of time.
    SCHEDULE, schedule: (u64, u64, u64) => ();
    /// (pool, seq): what is processing. The lease itself is in the job's state.
    LEASES, leases: (&'static str, u64) => ();
    /// (state, ended at, seq): what has ended.
    FINISHED, finished: (u8, u64, u64) => ();
    /// (seq, seq that it needs) → [`super::records::NeedRecord`].
    NEEDS, needs: (u64, u64) => Record;
    /// (seq, seq that needs it): the mirror of NEEDS.
    NEEDED_BY, needed_by: (u64, u64) => ();
    /// A needed job that ended, or runs again, of which not all that need it know → the first that may not.
    UNSETTLED, unsettled: u64 => Record;
    /// (tag, or "" for the name; value; seq).
    TAGS, tags: (&'static str, &'static str, u64) => ();
    /// (lane, state) → how many; no rows of zero.
    COUNTS, counts: (u64, u8) => Record;
    /// (seq, attempt) → [`super::records::AttemptRecord`].
    ATTEMPTS, attempts: (u64, u32) => Record;
    /// (seq, attempt, stream) → bytes, with the codec's header.
    OUTPUT, output: (u64, u32, u8) => Record;
    /// hash → [`super::records::EnvRecord`].
    ENVS, envs: u128 => Record;
    /// hash → how many jobs share it.
    ENV_REFS, env_refs: u128 => Record;
    /// pool → [`super::records::PoolRecord`].
    POOLS, pools: &'static str => Record;
}

/// A table that is opened when it is first used.
pub(super) struct Lazy<'t, K: Key + 'static, V: Value + 'static> {
    txn: &'t WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: Option<Table<'t, K, V>>,
}

impl<'t, K: Key + 'static, V: Value + 'static> Lazy<'t, K, V> {
    pub(super) fn open(&mut self) -> Result<&mut Table<'t, K, V>, StoreError> {
        if self.table.is_none() {
            self.table = Some(self.txn.open_table(self.definition)?);
        }
        self.table.as_mut().ok_or_else(|| StoreError::Damaged("a table is not open".to_owned()))
    }
}

impl<K: Key + 'static, V: Value + 'static> Lazy<'_, K, V> {
    /// Inserts rows in ascending order, none of which is there yet: by a cursor, which is several times as fast as row
    /// by row as long as no other row comes between two of them.
    pub(super) fn insert_ascending<'r>(
        &mut self,
        rows: impl IntoIterator<Item = (K::SelfType<'r>, V::SelfType<'r>)>,
    ) -> Result<(), StoreError> {
        let table = self.open()?;
        let mut rows = rows.into_iter().peekable();
        while let Some((first, _)) = rows.peek() {
            let mut cursor = table.lower_bound_mut(Bound::Included(first))?;
            let mut inserted = 0;
            while let Some((key, value)) = rows.peek() {
                match cursor.insert_before(key, value) {
                    Ok(()) => inserted += 1,
                    // Another row is between: from its other side on it goes on.
                    Err(CursorError::UnorderedKey) if inserted > 0 => break,
                    Err(error) => return Err(error.into()),
                }
                rows.next();
            }
            cursor.close()?;
        }
        Ok(())
    }
}

impl<K: Key + 'static> Lazy<'_, K, ()> {
    pub(super) fn add<'k>(&mut self, key: impl Borrow<K::SelfType<'k>>) -> Result<(), StoreError> {
        self.open()?.insert(key, ())?;
        Ok(())
    }

    pub(super) fn take<'k>(&mut self, key: impl Borrow<K::SelfType<'k>>) -> Result<(), StoreError> {
        self.open()?.remove(key)?;
        Ok(())
    }
}

impl<K: Key + 'static> Lazy<'_, K, Record> {
    pub(super) fn put<'k, T: Serialize + DeserializeOwned>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        record: &T,
    ) -> Result<(), StoreError> {
        let bytes = encode(record)?;
        self.open()?.insert(key, bytes.as_slice())?;
        Ok(())
    }

    pub(super) fn get<'k, T: DeserializeOwned>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<T>, StoreError> {
        get(self.open()?, key)
    }

    pub(super) fn delete<'k>(&mut self, key: impl Borrow<K::SelfType<'k>>) -> Result<(), StoreError> {
        self.open()?.remove(key)?;
        Ok(())
    }
}

/// What kind of record a type is, for messages: its last name.
fn name_of<T>() -> &'static str {
    std::any::type_name::<T>().rsplit("::").next().unwrap_or("a table")
}

/// The record of `key`.
pub(super) fn get<'k, K: Key + 'static, T: DeserializeOwned>(
    table: &impl ReadableTable<K, Record>,
    key: impl Borrow<K::SelfType<'k>>,
) -> Result<Option<T>, StoreError> {
    table.get(key)?.map(|bytes| decode(name_of::<T>(), bytes.value())).transpose()
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &impl ReadableTable<K, V>,
    to: &mut Table<'_, K, V>,
) -> Result<(), StoreError> {
    to.retain(|_, _| false)?;
    let mut end = to.lower_bound_mut(Bound::<K::SelfType<'_>>::Unbounded)?;
    for row in from.iter()? {
        let (key, value) = row?;
        end.insert_before(key.value(), value.value())?;
    }
    Ok(end.close()?)
}

fn hash_table<K: Key + 'static, V: Value + 'static>(
    table: &impl ReadableTable<K, V>,
    hasher: &mut xxhash_rust::xxh3::Xxh3,
) -> Result<(), StoreError> {
    each_row(table, |key, value| {
        for bytes in [key, value] {
            hasher.update(&bytes.len().to_le_bytes());
            hasher.update(bytes);
        }
    })?;
    hasher.update(b"end of a table");
    Ok(())
}

fn each_row<K: Key + 'static, V: Value + 'static>(
    table: &impl ReadableTable<K, V>,
    mut visit: impl FnMut(&[u8], &[u8]),
) -> Result<(), StoreError> {
    for row in table.iter()? {
        let (key, value) = row?;
        visit(K::as_bytes(&key.value()).as_ref(), V::as_bytes(&value.value()).as_ref());
    }
    Ok(())
}

/// A write transaction at work.
pub struct Tx<'t> {
    pub(super) tables: Tables<'t>,
    pub(super) now: Millis,
    pub(super) head: Head,
    pub(super) generations: Generations,
    /// What is not published. Changed by way of [`Self::bulks_mut`].
    pub(super) bulks: Bulks,
    bulks_changed: bool,
    /// The settings of the queues that this transaction met.
    pub(super) settings: BTreeMap<String, Settings>,
    count_changes: BTreeMap<(u64, u8), i64>,
    /// The file's, before this transaction.
    schema: u32,
    /// Whether there is anything to commit.
    changed: bool,
}

impl<'t> Tx<'t> {
    /// Begins at `now`, or at the newest time of the file if that is later.
    ///
    /// The schema is looked at each time, not only when the file is opened: a newer program may have raised it since, or
    /// an older backup may be in its place. It is raised by the first transaction that changes anything, so not later
    /// than the first record of it is written: whenever power fails, the file says what is in it.
    pub(super) fn begin(txn: &'t WriteTransaction, now: Millis) -> Result<Self, StoreError> {
        let mut tables = Tables::new(txn);
        let schema: Option<u32> = tables.meta.get("schema")?;
        let schema = known_schema(schema.ok_or_else(|| StoreError::Damaged("META has no schema".to_owned()))?)?;
        let head: Option<Head> = tables.meta.get("head")?;
        // Never begun anew: numbers would be given twice.
        let mut head = head.ok_or_else(|| StoreError::Damaged("META has no head".to_owned()))?;
        let generations = tables.meta.get("generations")?.unwrap_or_default();
        let bulks: Option<Bulks> = tables.meta.get(BULKS)?;
        let before = head.newest;
        head.newest = before.max(now.0);
        // A new file begins with no time at all.
        if before > 0 && Millis(head.newest).since(Millis(before)) > LEAP {
            head.leapt = head.newest;
        }
        let now = Millis(head.newest);
        Ok(Self {
            tables,
            now,
            head,
            generations,
            bulks: bulks.unwrap_or_default(),
            bulks_changed: false,
            settings: BTreeMap::new(),
            count_changes: BTreeMap::new(),
            schema,
            changed: false,
        })
    }

    /// Makes the file say that it is of another schema.
    #[cfg(test)]
    pub(crate) fn set_schema(&mut self, version: u32) -> Result<(), StoreError> {
        self.changed = true;
        self.tables.meta.put("schema", &version)
    }

    /// The time of this transaction: never behind the newest time in the file.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Where the generations stand, this transaction's own moves included.
    pub fn generations(&self) -> Generations {
        self.generations
    }

    /// There is something to commit.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    pub(super) fn has_changed(&self) -> bool {
        self.changed
    }

    /// What is not published, to be changed. Its row is written only then, as it may be long and everybody commits.
    pub(super) fn bulks_mut(&mut self) -> &mut Bulks {
        (self.bulks_changed, self.changed) = (true, true);
        &mut self.bulks
    }

    /// There is more to claim, now or at a due time: waiting pools look.
    pub(super) fn ring_for_work(&mut self) {
        self.generations.work += 1;
        self.changed = true;
    }

    /// A person asked something of a pool: it looks.
    pub(super) fn ring_for_control(&mut self) {
        self.generations.control += 1;
        self.changed = true;
    }

    /// One more, or one fewer, job of `state` in `lane`.
    pub(super) fn count(&mut self, lane: u64, state: u8, change: i64) {
        *self.count_changes.entry((lane, state)).or_default() += change;
    }

    /// How many jobs of `lane` are in `state`, this transaction's own moves included.
    pub(super) fn count_of(&mut self, lane: u64, state: StateKind) -> Result<u64, StoreError> {
        let key = (lane, state_code(state));
        let before: u64 = self.tables.counts.get(key)?.unwrap_or_default();
        Ok(before.saturating_add_signed(self.count_changes.get(&key).copied().unwrap_or_default()))
    }

    /// The counts of one lane, this transaction's own moves included.
    pub(super) fn lane_counts(&mut self, lane: u64) -> Result<BTreeMap<StateKind, u64>, StoreError> {
        let mut counts = super::runs::lane_counts(self.tables.counts.open()?, lane)?;
        for ((_, state), change) in self.count_changes.range((lane, 0)..=(lane, u8::MAX)) {
            let count = counts.entry(state_of_code(*state)?).or_default();
            *count = count.saturating_add_signed(*change);
        }
        counts.retain(|_, count| *count > 0);
        Ok(counts)
    }

    /// Writes what was gathered in memory.
    pub(super) fn flush(mut self) -> Result<(), StoreError> {
        for ((lane, state), change) in std::mem::take(&mut self.count_changes) {
            if change == 0 {
                continue;
            }
            let before: u64 = self.tables.counts.get((lane, state))?.unwrap_or_default();
            let after = before
                .checked_add_signed(change)
                .ok_or_else(|| StoreError::Damaged("a count would fall below zero".to_owned()))?;
            if after == 0 {
                self.tables.counts.delete((lane, state))?;
            } else {
                self.tables.counts.put((lane, state), &after)?;
            }
        }
        if self.bulks_changed && self.bulks.0.is_empty() {
            self.tables.meta.delete(BULKS)?;
        } else if self.bulks_changed {
            self.tables.meta.put(BULKS, &self.bulks)?;
        }
        if self.schema < SCHEMA_VERSION {
            self.tables.meta.put("schema", &SCHEMA_VERSION)?;
        }
        self.tables.meta.put("head", &self.head)?;
        self.tables.meta.put("generations", &self.generations)
    }
}

/// The queue as it was at one moment. It pins pages of the file: take a new one for each look, and hold none
/// while waiting.
pub struct Snapshot {
    txn: ReadTransaction,
}

impl Snapshot {
    pub(super) fn new(txn: ReadTransaction) -> Self {
        Self { txn }
    }

    pub(super) fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<ReadOnlyTable<K, V>, StoreError> {
        Ok(self.txn.open_table(definition)?)
    }

    pub(super) fn get<'k, K: Key + 'static, T: DeserializeOwned>(
        &self,
        definition: TableDefinition<'static, K, Record>,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<T>, StoreError> {
        get(&self.open(definition)?, key)
    }

    /// The schema's version; `None` if this is no queue at all.
    pub(super) fn schema(&self) -> Result<Option<u32>, StoreError> {
        match self.txn.open_table(META) {
            Ok(meta) => get(&meta, "schema"),
            Err(
                TableError::TableDoesNotExist(_)
                | TableError::TableTypeMismatch { .. }
                | TableError::TableIsMultimap(_)
                | TableError::TableIsNotMultimap(_),
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn head(&self) -> Result<Head, StoreError> {
        self.get(META, "head")?.ok_or_else(|| StoreError::Damaged("META has no head".to_owned()))
    }

    /// The last numbers that were given: of a job, a lease, a lane, a run. Nothing else shows them if what had them is
    /// gone.
    #[cfg(any(test, feature = "sim"))]
    pub fn given(&self) -> Result<[u64; 4], StoreError> {
        let Head { next_seq, next_lease, next_lane, next_run, .. } = self.head()?;
        Ok([next_seq, next_lease, next_lane, next_run].map(|next| next - 1))
    }

    /// Where the generations stand.
    pub fn generations(&self) -> Result<Generations, StoreError> {
        self.get(META, "generations").map(Option::unwrap_or_default)
    }

    /// The newest time in the file.
    pub fn newest(&self) -> Result<Millis, StoreError> {
        Ok(Millis(self.head()?.newest))
    }
}
