//! Folders with all that is in them.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Removes a file or a folder, read-only folders in it too; nothing is no error. Follows no link.
///
/// # Errors
///
/// When something of it cannot be removed: the rest may be gone.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.is_dir() {
        return fs::remove_file(path);
    }
    // What is in a folder goes only while the folder may be written.
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        remove_tree(&entry?.path())?;
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_folders_go_and_what_a_link_leads_to_stays() {
        let outside = tempfile::tempdir().expect("a folder");
        let (tree, kept) = (outside.path().join("tree"), outside.path().join("kept"));
        fs::create_dir_all(tree.join("a/b")).expect("folders");
        fs::create_dir(&kept).expect("a folder");
        fs::write(tree.join("a/b/file"), "").expect("written");
        fs::write(kept.join("file"), "").expect("written");
        std::os::unix::fs::symlink(&kept, tree.join("a/link")).expect("a link");
        for folder in [kept.clone(), tree.join("a/b"), tree.join("a")] {
            fs::set_permissions(folder, Permissions::from_mode(0o555)).expect("a mode");
        }
        remove_tree(&tree).expect("removed");
        assert!(!tree.exists() && kept.join("file").exists());
        let mode = fs::metadata(&kept).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o777, 0o555, "what a link leads to is as it was");
        remove_tree(&tree).expect("nothing is no error");
        remove_tree(&kept.join("file")).expect("a file goes too");
        assert!(!kept.join("file").exists());
    }
}
