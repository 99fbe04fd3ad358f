//! Accounts, by the system's database.

/// The name of an account; `uid-<n>` where the database has none, or cannot be asked.
///
/// May wait for a directory service: an async caller uses a thread for blocking work.
pub fn account(uid: u32) -> String {
    let found = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    found.map_or_else(|| format!("uid-{uid}"), |user| user.name)
}

/// The number of an account; none where the database has no such name, or cannot be asked.
///
/// May wait as [`account`] does.
pub fn uid(account: &str) -> Option<u32> {
    nix::unistd::User::from_name(account).ok().flatten().map(|user| user.uid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_the_name_of_the_database_and_an_unknown_one_its_number() {
        assert_eq!(account(0), "root");
        assert_eq!(account(4_000_000_000), "uid-4000000000");
        assert_eq!((uid("root"), uid("uid-4000000000")), (Some(0), None));
    }
}
