//! Settings: what a person set, over the defaults. A queue's own settings go over those of all queues.

use redb::ReadableTable;

use super::StoreError;
use super::codec::decode;
use super::tables::{CONFIG, Record, Snapshot, Tx};
use crate::model::{SettingKey, Settings};

/// The settings of all queues have this in the place of a queue's name.
const ALL_QUEUES: &str = "";

/// The rows of `queue`, laid over the defaults.
fn resolve(
    rows: &impl ReadableTable<(&'static str, &'static str), Record>,
    queue: &str,
) -> Result<Settings, StoreError> {
    let mut settings = Settings::default();
    for scope in [ALL_QUEUES, queue] {
        for row in rows.range((scope, "")..)? {
            let (key, value) = row?;
            let (row_scope, name) = key.value();
            if row_scope != scope {
                break;
            }
            // A setting of a later version is not ours to judge.
            let Some(setting) = SettingKey::from_name(name) else { continue };
            settings.set(setting, &decode::<String>("CONFIG", value.value())?)?;
        }
    }
    Ok(settings)
}

impl Tx<'_> {
    /// The settings that the jobs of `queue` follow.
    pub(super) fn settings(&mut self, queue: &str) -> Result<Settings, StoreError> {
        if let Some(settings) = self.settings.get(queue) {
            return Ok(settings.clone());
        }
        let settings = resolve(self.tables.config.open()?, queue)?;
        self.settings.insert(queue.to_owned(), settings.clone());
        Ok(settings)
    }

    /// The settings of a queue that has none of its own.
    pub fn common_settings(&mut self) -> Result<Settings, StoreError> {
        self.settings(ALL_QUEUES)
    }

    /// Sets `key` for all queues, or refuses the value.
    pub fn set(&mut self, key: SettingKey, text: &str) -> Result<(), StoreError> {
        let mut settings = Settings::default();
        settings.set(key, text)?;
        // As it is shown, so that it reads the same however it was written.
        self.tables.config.put((ALL_QUEUES, key.name()), &settings.get(key))?;
        self.settings.clear();
        self.touch();
        Ok(())
    }

    /// Lets `key` follow its default again. Says whether it was set.
    pub fn unset(&mut self, key: SettingKey) -> Result<bool, StoreError> {
        let was: Option<String> = self.tables.config.get((ALL_QUEUES, key.name()))?;
        if was.is_some() {
            self.tables.config.delete((ALL_QUEUES, key.name()))?;
            self.settings.clear();
            self.touch();
        }
        Ok(was.is_some())
    }
}

impl Snapshot {
    /// The settings of all queues.
    pub fn settings(&self) -> Result<Settings, StoreError> {
        resolve(&self.open(CONFIG)?, ALL_QUEUES)
    }

    /// The settings that the jobs of `queue` follow.
    pub(super) fn settings_of(&self, queue: &str) -> Result<Settings, StoreError> {
        resolve(&self.open(CONFIG)?, queue)
    }

    /// Which settings a person set.
    pub fn settings_set(&self) -> Result<Vec<SettingKey>, StoreError> {
        let mut set = Vec::new();
        for row in self.open(CONFIG)?.range((ALL_QUEUES, "")..(ALL_QUEUES, "~"))? {
            set.extend(SettingKey::from_name(row?.0.value().1));
        }
        Ok(set)
    }
}
