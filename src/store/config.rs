//! Settings: what a person set, over the defaults. A queue's own settings go over those of all queues.

use std::collections::BTreeSet;

use redb::ReadableTable;

use super::StoreError;
use super::codec::decode;
use super::records::queue_name;
use super::tables::{CONFIG, Record, Snapshot, Tx};
use crate::model::{QueueName, SettingKey, Settings};

/// The settings of all queues have this in the place of a queue's name.
const ALL_QUEUES: &str = "";

fn scope_of(queue: Option<&QueueName>) -> &str {
    queue.map_or(ALL_QUEUES, QueueName::as_str)
}

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

    /// Sets `key` of `queue`, or of all queues that have no value of their own, or refuses the value.
    pub fn set(&mut self, queue: Option<&QueueName>, key: SettingKey, text: &str) -> Result<(), StoreError> {
        if queue.is_some() && key.is_of_all_queues() {
            return Err(StoreError::OfAllQueues(key));
        }
        let mut settings = Settings::default();
        settings.set(key, text)?;
        // As it is shown, so that it reads the same however it was written.
        self.tables.config.put((scope_of(queue), key.name()), &settings.get(key))?;
        self.setting_changed(key);
        Ok(())
    }

    /// Lets `key` follow what all queues have again, or for all of them its default. Says whether it was set.
    pub fn unset(&mut self, queue: Option<&QueueName>, key: SettingKey) -> Result<bool, StoreError> {
        let row = (scope_of(queue), key.name());
        let was: Option<String> = self.tables.config.get(row)?;
        if was.is_some() {
            self.tables.config.delete(row)?;
            self.setting_changed(key);
        }
        Ok(was.is_some())
    }

    /// Lets `key` follow its default in every queue. Says where it was set.
    pub fn unset_everywhere(&mut self, key: SettingKey) -> Result<Vec<Option<QueueName>>, StoreError> {
        let mut scopes = Vec::new();
        for row in self.tables.config.open()?.range::<(&str, &str)>(..)? {
            let key_found = row?.0;
            let (scope, name) = key_found.value();
            if name == key.name() {
                scopes.push(if scope == ALL_QUEUES { None } else { Some(queue_name(scope)?) });
            }
        }
        for scope in &scopes {
            self.unset(scope.as_ref(), key)?;
        }
        Ok(scopes)
    }

    fn setting_changed(&mut self, key: SettingKey) {
        self.settings.clear();
        match key {
            // Jobs may be claimed now that could not before.
            SettingKey::Parallel | SettingKey::Paused => self.ring_for_work(),
            _ => self.touch(),
        }
    }
}

impl Snapshot {
    /// The settings that the jobs of `queue` follow, or those of a queue that has none of its own.
    pub fn settings(&self, queue: Option<&QueueName>) -> Result<Settings, StoreError> {
        self.settings_of(scope_of(queue))
    }

    pub(super) fn settings_of(&self, queue: &str) -> Result<Settings, StoreError> {
        resolve(&self.open(CONFIG)?, queue)
    }

    /// The queues that have settings of their own.
    pub(super) fn queues_with_settings(&self) -> Result<BTreeSet<String>, StoreError> {
        let mut queues = BTreeSet::new();
        for row in self.open(CONFIG)?.range::<(&str, &str)>(..)? {
            queues.insert(row?.0.value().0.to_owned());
        }
        queues.remove(ALL_QUEUES);
        Ok(queues)
    }

    /// Which settings of `queue`, or of all queues, a person set.
    pub fn settings_set(&self, queue: Option<&QueueName>) -> Result<Vec<SettingKey>, StoreError> {
        let (scope, mut set) = (scope_of(queue), Vec::new());
        for row in self.open(CONFIG)?.range((scope, "")..(scope, "~"))? {
            set.extend(SettingKey::from_name(row?.0.value().1));
        }
        Ok(set)
    }
}
