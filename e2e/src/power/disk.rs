//! A disk in memory under redb: what was not synced when the power is cut is lost, wholly or here and there. It can
//! also be full. The durable image outlives the program, so that the next life opens it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use tempfile::TempDir;

use super::{PowerSwitch, Step};

/// Unit in which a real disk tears a write.
const SECTOR: usize = 512;

/// What the power leaves of writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// All of them are gone.
    Lost,
    /// Any subset of their sectors has reached the platter, chosen by this seed.
    Scattered(u64),
}

/// A disk that outlives the programs on it.
#[derive(Clone, Debug)]
pub struct Disk(Arc<Mutex<Image>>);

#[derive(Debug)]
struct Image {
    unsynced: Unsynced,
    full: bool,
    durable: Vec<u8>,
    cached: Vec<u8>,
    dirty: Vec<(u64, Vec<u8>)>,
    owner: u64,
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new(unsynced: Unsynced) -> Self {
        Self(Arc::new(Mutex::new(Image {
            unsynced,
            full: false,
            durable: Vec::new(),
            cached: Vec::new(),
            dirty: Vec::new(),
            owner: 0,
        })))
    }

    fn image(&self) -> MutexGuard<'_, Image> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every further write fail with "no space left on device", or lets them pass again.
    pub fn set_full(&self, full: bool) {
        self.image().full = full;
    }

    /// Returns another disk with what was synced on this one so far.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self::new(self.image().unsynced);
        let durable = self.bytes();
        copy.image().durable = durable;
        copy
    }

    /// Whether anything was ever synced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.image().durable.is_empty()
    }

    /// Returns what a thief of the disk would read.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.image().durable.clone()
    }

    /// Mounts the disk for a new life of the program. Whatever the last life had not synced is settled now, and its
    /// backend can do nothing more.
    #[must_use]
    pub fn mount(&self, switch: PowerSwitch) -> Mounted {
        let mut image = self.image();
        image.settle();
        image.owner += 1;
        Mounted { disk: self.clone(), switch, owner: image.owner }
    }
}

impl Image {
    fn settle(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        if let Unsynced::Scattered(seed) = self.unsynced {
            let mut random = seed;
            for (offset, bytes) in &dirty {
                for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                    random = split_mix(random);
                    if random & 1 == 0 {
                        place(&mut self.durable, *offset as usize + index * SECTOR, sector);
                    }
                }
            }
            self.unsynced = Unsynced::Scattered(random);
        }
        self.cached.clone_from(&self.durable);
    }

    fn sync(&mut self) {
        for (offset, bytes) in std::mem::take(&mut self.dirty) {
            place(&mut self.durable, offset as usize, &bytes);
        }
        self.durable.resize(self.cached.len(), 0);
    }
}

fn place(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if image.len() < offset + bytes.len() {
        image.resize(offset + bytes.len(), 0);
    }
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// Returns a new folder that is removed with the value: in memory where the system has such a file system, because the
/// programs sync their files and a scenario proves nothing about a real disk's speed.
#[must_use]
pub fn folder(prefix: &str) -> TempDir {
    const IN_MEMORY: &str = "/dev/shm";
    let within = |folder: &Path| TempDir::with_prefix_in(prefix, folder);
    within(Path::new(IN_MEMORY)).or_else(|_| within(&std::env::temp_dir())).expect("a folder for temporary files")
}

/// One step of the SplitMix64 generator.
#[must_use]
pub fn split_mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The disk as one life of the program sees it.
#[derive(Debug)]
pub struct Mounted {
    disk: Disk,
    switch: PowerSwitch,
    owner: u64,
}

impl Mounted {
    fn image(&self) -> io::Result<MutexGuard<'_, Image>> {
        let image = self.disk.image();
        if self.switch.is_off() || image.owner != self.owner {
            return Err(io::Error::other("the power is cut"));
        }
        Ok(image)
    }
}

impl StorageBackend for Mounted {
    fn len(&self) -> io::Result<u64> {
        Ok(self.image()?.cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.image()?;
        let start = offset as usize;
        let found = image.cached.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut image = self.image()?;
        if image.full && len as usize > image.cached.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        image.cached.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        drop(self.image()?);
        if self.switch.step(Step::BeforeSync) {
            self.image()?.sync();
        }
        if self.switch.step(Step::AfterSync) { Ok(()) } else { Err(io::Error::other("the power is cut")) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut image = self.image()?;
        if image.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        place(&mut image.cached, offset as usize, data);
        image.dirty.push((offset, data.to_vec()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase as _, TableDefinition};

    use super::*;
    use crate::power::KillPoint;

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("t");

    fn open(disk: &Disk, switch: &PowerSwitch) -> Database {
        redb::Builder::new().create_with_backend(disk.mount(switch.clone())).unwrap()
    }

    fn put(database: &Database, key: u64) -> Result<(), Box<dyn std::error::Error>> {
        let mut transaction = database.begin_write()?;
        transaction.set_quick_repair(true);
        transaction.open_table(TABLE)?.insert(key, key)?;
        Ok(transaction.commit()?)
    }

    fn highest(database: &Database) -> u64 {
        let Ok(table) = database.begin_read().unwrap().open_table(TABLE) else { return 0 };
        (1..100).take_while(|key| table.get(key).unwrap().is_some()).last().unwrap_or(0)
    }

    #[test]
    fn what_was_acknowledged_survives_a_kill_at_every_sync_and_the_database_opens_again() {
        for seed in 0..4 {
            for nth in 1.. {
                let disk = Disk::new(if seed == 0 { Unsynced::Lost } else { Unsynced::Scattered(seed) });
                drop(open(&disk, &PowerSwitch::new()));
                let switch = PowerSwitch::new();
                let step = if nth % 2 == 0 { Step::BeforeSync } else { Step::AfterSync };
                switch.plan(Some(KillPoint { step, nth: nth / 2 + 1 }));
                let mut acknowledged = 0;
                if let Ok(database) = redb::Builder::new().create_with_backend(disk.mount(switch.clone())) {
                    while acknowledged < 5 && put(&database, acknowledged + 1).is_ok() {
                        acknowledged += 1;
                    }
                }
                let alive = !switch.is_off();
                let found = highest(&open(&disk, &PowerSwitch::new()));
                assert!(found == acknowledged || found == acknowledged + 1, "{seed} {nth}: {found} of {acknowledged}");
                if alive {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_full_disk_refuses_writes_and_keeps_what_it_has() {
        let disk = Disk::new(Unsynced::Lost);
        let database = open(&disk, &PowerSwitch::new());
        put(&database, 1).unwrap();
        disk.set_full(true);
        assert!(put(&database, 2).is_err());
        drop(database);
        disk.set_full(false);
        assert_eq!(highest(&open(&disk, &PowerSwitch::new())), 1);
    }
}
