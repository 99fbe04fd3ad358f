//! Locks on folders, and what a folder lies on.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock, statfs};
use rustix::io::Errno;

use crate::sys::{FileSystem, LockError};

/// Kinds of file systems that other machines may write: by the number that `statfs` tells.
const NETWORK: [(u32, &str); 17] = [
    (0x6969, "nfs"),
    (0x517B, "smb"),
    (0xFF53_4D42, "cifs"),
    (0xFE53_4D42, "smb3"),
    (0x7375_7245, "coda"),
    (0x5346_414F, "afs"),
    (0x6B41_4653, "afs"),
    (0x0102_1997, "9p"),
    (0x00C3_6400, "ceph"),
    (0x7461_636F, "ocfs2"),
    (0x0116_1970, "gfs2"),
    (0x0BD0_0BD0, "lustre"),
    (0x1983_0326, "beegfs"),
    (0x4750_4653, "gpfs"),
    (0x2003_0528, "orangefs"),
    (0x786F_4256, "vboxsf"),
    (0x564C, "ncp"),
];
/// The number of everything that a program serves (FUSE), be it local or far.
const FUSE: u32 = 0x6573_5546;
/// Of those, the kinds that are local.
const LOCAL_FUSE: [&str; 4] = ["fuseblk", "fuse.fuse-overlayfs", "fuse.bindfs", "fuse.lxcfs"];

#[expect(clippy::cast_possible_wrap, reason = "flags, not numbers")]
const NOFOLLOW: i32 = OFlags::NOFOLLOW.bits() as i32;

/// A lock on a folder; ends when it is dropped or the process ends.
///
/// # Guarantees
///
/// The descriptor is not inherited by programs that this process starts.
#[derive(Debug)]
pub struct FolderLock(File);

/// What a folder lies on.
pub fn file_system(folder: &Path) -> io::Result<FileSystem> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers have 32 bits")]
    let number = statfs(folder)?.f_type as u32;
    if number == FUSE {
        // Unknown is not local: of what programs serve, only kinds that are known to be so count as that.
        let name = mount_kind(folder).unwrap_or_else(|| "fuse".to_owned());
        let network = !LOCAL_FUSE.contains(&name.as_str());
        return Ok(FileSystem { name, network });
    }
    Ok(match NETWORK.iter().find(|(known, _)| *known == number) {
        Some((_, name)) => FileSystem { name: (*name).to_owned(), network: true },
        None => FileSystem { name: mount_kind(folder).unwrap_or_else(|| format!("{number:#x}")), network: false },
    })
}

/// Locks the file `name` in a folder, and makes it where it is missing (mode 0600). Does not wait.
pub fn lock_folder(folder: &Path, name: &str) -> Result<FolderLock, LockError> {
    let refused = |source: io::Error| LockError::Refused { folder: folder.to_owned(), source };
    let kind = file_system(folder).map_err(refused)?;
    if kind.network {
        return Err(LockError::Network { folder: folder.to_owned(), name: kind.name });
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(NOFOLLOW);
    let file = options.open(folder.join(name)).map_err(refused)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(FolderLock(file)),
        Err(Errno::WOULDBLOCK) => Err(LockError::Held(folder.to_owned())),
        Err(error) => Err(refused(error.into())),
    }
}

// === impl FolderLock ===

impl FolderLock {
    /// Takes up a lock that this process held before it became this program; fails if it is not the lock `name` of that folder.
    pub fn inherited(held: OwnedFd, folder: &Path, name: &str) -> Result<Self, LockError> {
        let refused = |source: io::Error| LockError::Refused { folder: folder.to_owned(), source };
        let file = File::from(held);
        let (found, meant) = (file.metadata().map_err(refused)?, fs::metadata(folder.join(name)).map_err(refused)?);
        if (found.dev(), found.ino()) != (meant.dev(), meant.ino()) {
            return Err(refused(io::Error::other("what was handed over is another file")));
        }
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| refused(error.into()))?;
        Ok(Self(file))
    }

    /// The locked file.
    pub fn file(&self) -> &File {
        &self.0
    }
}

/// The kind of the mount that a folder lies on, from the mount table.
fn mount_kind(folder: &Path) -> Option<String> {
    let device = fs::metadata(folder).ok()?.dev();
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = table.lines().find(|line| line.split(' ').nth(2) == Some(&device))?;
    Some(line.split(" - ").nth(1)?.split(' ').next()?.to_owned())
}
