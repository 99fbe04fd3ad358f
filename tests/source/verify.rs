//! Signatures of commits: S1, S3, and the contributor by provenance. What `git verify-commit` says stands beside it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backstay::model::{CommitId, Timestamp};
use backstay::source::{
    Bell, Clock, Edit, Move, MovePolicy, NoVerification, NotVerified, Person, Ring, Signers, SigningKey, Store, Track,
    Trusted, Verify,
};
use tempfile::TempDir;

use crate::git::TestRepo;
use crate::{at, config, main_and_tags, mirror};

/// When the first commit of a [`TestRepo`] is made.
pub(crate) const BEGUN: i64 = 1_790_000_000;

/// A clock that stands.
pub(crate) struct Standing(pub(crate) AtomicI64);

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::Acquire)).expect("a time")
    }

    fn wait(&self, _: &Bell, _: Timestamp, _: Duration, _: bool) -> Ring {
        Ring::Stop
    }
}

/// A repository, keys made by `ssh-keygen`, and a file of allowed signers in which `alice` and `bob` stand.
struct Desk {
    repo: TestRepo,
    folder: TempDir,
    clock: Arc<Standing>,
}

impl Desk {
    fn new() -> Self {
        let clock = Arc::new(Standing(AtomicI64::new(BEGUN + 86_400)));
        let desk = Self { repo: TestRepo::new(), folder: tempfile::tempdir().expect("a folder"), clock };
        for name in ["alice", "bob", "mallory"] {
            desk.key(name, "ed25519", &[]);
        }
        desk.allow(&[&desk.line("alice", ""), &desk.line("bob", "")]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn key(&self, name: &str, kind: &str, more: &[&str]) {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind, "-C", name, "-f"]).arg(self.path(name)).args(more);
        if !more.contains(&"-N") {
            command.args(["-N", ""]);
        }
        assert!(command.status().expect("ssh-keygen runs").success());
    }

    /// A line of the file of allowed signers.
    fn line(&self, name: &str, options: &str) -> String {
        let key = std::fs::read_to_string(self.path(&format!("{name}.pub"))).expect("a key");
        format!("{name}@example.com {options} {}", key.trim())
    }

    fn signers(&self) -> PathBuf {
        self.path("allowed_signers")
    }

    fn trusted(&self) -> Trusted {
        Trusted { ssh: Some(self.signers()), openpgp: None }
    }

    fn allow(&self, lines: &[&str]) {
        std::fs::write(self.signers(), lines.join("\n") + "\n").expect("written");
    }

    fn store(&self) -> Store {
        Store::open(&self.repo.path()).expect("a store")
    }

    /// Commits a file on `main`, unsigned.
    fn unsigned(&self, text: &str) -> CommitId {
        self.repo.commit(&[("a.txt", &format!("{text}\n"))], text)
    }

    /// Commits a file on `main`, signed by somebody.
    fn signed(&self, by: &str, text: &str) -> CommitId {
        self.unsigned(text);
        self.sign(by, &[])
    }

    /// Signs the newest commit of `main` in its place.
    fn sign(&self, by: &str, more: &[&str]) -> CommitId {
        let key = format!("user.signingkey={}", self.path(by).display());
        let amend = ["-c", "gpg.format=ssh", "-c", &key, "commit", "-q", "--amend", "--no-edit", "-S"];
        self.repo.git(&[&amend[..], more].concat());
        self.repo.id("main")
    }

    /// A commit with these very bytes.
    fn raw(&self, bytes: &[u8]) -> CommitId {
        let id = self.repo.raw().odb().expect("objects").write(git2::ObjectType::Commit, bytes).expect("a commit");
        id.to_string().parse().expect("an id")
    }

    /// The bytes of a commit before its signature, the signature, and the bytes after it.
    fn parts(&self, commit: &CommitId) -> (String, String, String) {
        let raw = self.repo.git(&["cat-file", "commit", commit.as_str()]) + "\n";
        let begin = raw.find("gpgsig ").expect("a signature");
        let end = begin + raw[begin..].find("-----END SSH SIGNATURE-----\n").expect("its end") + 28;
        (raw[..begin].to_owned(), raw[begin..end].to_owned(), raw[end..].to_owned())
    }

    /// What we say of the newest commit that is meant, and of the way to it.
    fn ours(&self, commit: &CommitId, last_good: Option<&CommitId>) -> Result<(), String> {
        let clock: Arc<dyn Clock> = Arc::<Standing>::clone(&self.clock);
        let verifier = Signers::open(self.trusted(), clock).map_err(|error| error.to_string())?;
        self.by(&verifier, commit, last_good)
    }

    fn by(&self, verifier: &dyn Verify, commit: &CommitId, last_good: Option<&CommitId>) -> Result<(), String> {
        match self.store().verified(&at("main", commit), last_good, verifier) {
            Ok(verified) => {
                assert_eq!(verified.revision.commit, *commit);
                Ok(())
            }
            Err(error @ NotVerified::Unverified(_)) => Err(error.to_string()),
            Err(NotVerified::Source(error)) => panic!("{error}"),
        }
    }

    /// What `git verify-commit` says, with this configuration on its command line.
    fn git_says(&self, commit: &CommitId) -> bool {
        let file = format!("gpg.ssh.allowedSignersFile={}", self.signers().display());
        let mut command = Command::new("git");
        command.args(["-c", &file, "--git-dir"]).arg(self.repo.path()).args(["verify-commit", commit.as_str()]);
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", self.folder.path());
        command.env("TZ", "UTC").stdin(Stdio::null()).output().expect("git runs").status.success()
    }

    /// Both agree that it is good.
    fn good(&self, commit: &CommitId) {
        assert_eq!((self.ours(commit, None), self.git_says(commit)), (Ok(()), true));
    }

    /// We refuse it with these words; whether Git does.
    fn bad(&self, commit: &CommitId, words: &str) -> bool {
        let error = self.ours(commit, None).expect_err(words);
        assert!(error.contains(words) && error.contains(commit.as_str()), "`{words}` in: {error}");
        !self.git_says(commit)
    }
}

fn second(time: i64) -> String {
    Timestamp::from_second(time).expect("a time").strftime("%Y%m%d%H%M%SZ").to_string()
}

#[test]
fn what_git_verifies_is_verified_for_every_kind_of_key() {
    let desk = Desk::new();
    for (kind, more) in [
        ("ed25519", &[][..]),
        ("ecdsa", &["-b", "256"]),
        ("ecdsa", &["-b", "384"]),
        ("ecdsa", &["-b", "521"]),
        ("rsa", &["-b", "2048"]),
    ] {
        let name = format!("{kind}{}", more.last().unwrap_or(&""));
        desk.key(&name, kind, more);
        desk.allow(&[&desk.line(&name, "namespaces=\"git\"")]);
        for round in 0..3 {
            desk.good(&desk.signed(&name, &format!("{name} {round}")));
        }
    }
}

// S1
#[test]
fn what_git_refuses_is_refused_and_says_why() {
    let desk = Desk::new();
    let good = desk.signed("alice", "good");
    desk.good(&good);
    assert!(desk.bad(&desk.unsigned("unsigned"), "it has no signature"));
    assert!(desk.bad(&desk.signed("mallory", "stranger"), "is not among those that may sign"));

    let (before, signature, after) = desk.parts(&good);
    let moved = desk.raw(format!("{before}{signature}{}", after.replace("good", "evil")).as_bytes());
    assert!(desk.bad(&moved, "is not of this content"));

    // Another namespace: a signature that was made for files.
    let payload = desk.path("payload");
    std::fs::write(&payload, format!("{before}{after}")).expect("written");
    let mut sign = Command::new("ssh-keygen");
    sign.args(["-q", "-Y", "sign", "-n", "file", "-f"]).arg(desk.path("alice")).arg(&payload);
    assert!(sign.stderr(Stdio::null()).status().expect("ssh-keygen runs").success());
    let armour = std::fs::read_to_string(desk.path("payload.sig")).expect("a signature");
    let header = format!("gpgsig {}\n", armour.trim_end().replace('\n', "\n "));
    let for_files = desk.raw(format!("{before}{header}{after}").as_bytes());
    assert!(desk.bad(&for_files, "was made for `file` and not for `git`"));

    for (options, words) in [
        ("namespaces=\"file,!git\"".to_owned(), "leave `git` out"),
        (format!("valid-before=\"{}\"", second(BEGUN - 86_400)), "had expired"),
        (format!("valid-after=\"{}\"", second(BEGUN + 80_000)), "was not valid yet"),
    ] {
        desk.allow(&[&desk.line("alice", &options), &desk.line("bob", "")]);
        assert!(desk.bad(&good, words), "{options}");
    }
    // Of several lines of one key, one is enough.
    let expired = desk.line("alice", &format!("valid-before=\"{}\"", second(BEGUN - 86_400)));
    desk.allow(&[&expired, &desk.line("alice", "namespaces=\"git\"")]);
    desk.good(&good);
}

#[test]
fn the_key_counts_and_not_the_name() {
    let desk = Desk::new();
    desk.unsigned("for somebody");
    let author = ["--author", "Carol Else <carol@example.org>", "--date", "2020-01-01T00:00:00Z"];
    let commit = desk.sign("bob", &author);
    desk.good(&commit);
    desk.unsigned("as if it were Alice");
    let commit = desk.sign("mallory", &["--author", "alice <alice@example.com>"]);
    assert!(desk.bad(&commit, "is not among those that may sign"));
}

// S1
/// Where `git verify-commit` says yes and must not be followed.
#[test]
fn what_git_gets_wrong_is_right_here() {
    let desk = Desk::new();

    // A key that has expired by now, with a commit that says it was made before.
    let commit = desk.signed("alice", "back-dated");
    desk.allow(&[&desk.line("alice", &format!("valid-before=\"{}\"", second(BEGUN + 7200)))]);
    assert!(!desk.bad(&commit, "has expired meanwhile"), "Git takes the commit's own word");
    desk.clock.0.store(BEGUN + 3600, Ordering::Release);
    desk.good(&commit);

    // A commit of tomorrow.
    desk.allow(&[&desk.line("alice", "")]);
    desk.clock.0.store(BEGUN - 3600, Ordering::Release);
    assert!(!desk.bad(&commit, "a clock is wrong"), "Git does not look");
    desk.clock.0.store(BEGUN + 86_400, Ordering::Release);

    // The repository's own configuration says what verifies.
    let stranger = desk.signed("mallory", "with a helper");
    let helper = desk.path("helper");
    std::fs::write(
        &helper,
        "#!/bin/sh\ntouch \"$0.ran\"\necho 'Good \"git\" signature for alice with ED25519 key x'\n",
    )
    .expect("written");
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    for key in ["gpg.ssh.program", "gpg.program", "gpg.x509.program"] {
        desk.repo.git(&["config", key, helper.to_str().expect("a path")]);
    }
    assert!(desk.ours(&stranger, None).is_err() && !desk.path("helper.ran").exists(), "nothing is run");
    assert!(desk.git_says(&stranger) && desk.path("helper.ran").exists(), "Git runs it, and believes it");
    for key in ["gpg.ssh.program", "gpg.program", "gpg.x509.program"] {
        desk.repo.git(&["config", "--unset", key]);
    }

    // A line that cannot be read is passed over by Git: a rule that nobody keeps.
    let good = desk.signed("alice", "with a broken line");
    desk.allow(&[&desk.line("alice", ""), &desk.line("bob", "valid-untill=\"20260101\"")]);
    let error = desk.ours(&good, None).expect_err("a wrong line");
    let place = format!("{}:2: ", desk.signers().display());
    assert!(error.contains(&place) && error.contains("valid-untill") && error.contains("options are"), "{error}");
    assert!(desk.git_says(&good));
}

// S4
#[test]
fn an_old_commit_that_is_replayed_does_not_pass() {
    let desk = Desk::new();
    let old = desk.signed("alice", "old and vulnerable");
    let good = desk.signed("alice", "mended");
    let mirror = mirror(config(desk.repo.url()));
    mirror.poll(&main_and_tags()).expect("a poll");
    desk.repo.force("main", &old);
    mirror.poll(&main_and_tags()).expect("a poll");
    assert!(desk.git_says(&old), "Git finds nothing wrong with it");
    let main = Track::Branch("main".to_owned());
    let settled = mirror.store().settle(&main, Some(&at("main", &good)), &MovePolicy::default()).expect("settled");
    assert_eq!((settled.moved, settled.serve), (Move::Rewound { base: Some(old.clone()) }, Some(at("main", &good))));
    assert!(settled.refused.expect("refused").hint().contains("--accept-rewind"));
    // Where a person lets it, it is still judged by its own signature.
    desk.ours(&old, Some(&good)).expect("signed");
    desk.allow(&[&desk.line("bob", "")]);
    assert!(desk.ours(&old, Some(&good)).is_err());
}

// S3
#[test]
fn every_commit_of_the_first_parent_path_is_looked_at() {
    let desk = Desk::new();
    let beneath = desk.unsigned("before anybody signed");
    let first = desk.signed("alice", "first");
    desk.ours(&first, None).expect("the newest vouches for what is beneath it");
    assert!(desk.ours(&first, Some(&beneath)).is_ok());

    let middle = desk.unsigned("unsigned, in the middle");
    let tip = desk.signed("bob", "on top");
    let error = desk.ours(&tip, Some(&first)).expect_err("the one in the middle");
    assert!(error.contains(middle.as_str()) && error.contains("no signature"), "{error}");
    assert!(error.contains("git rebase --exec") && error.contains(first.short()), "{error}");
    desk.ours(&tip, Some(&middle)).expect("what was accepted is not looked at again");
    let nobody: CommitId = "1".repeat(40).parse().expect("an id");
    assert!(desk.ours(&tip, Some(&nobody)).is_err(), "without a commit to begin at, all of it is looked at");

    // The first after the last good one, too.
    desk.repo.force("main", &first);
    let next = desk.unsigned("the first after it");
    assert!(desk.ours(&next, Some(&first)).is_err_and(|error| error.contains(next.as_str())));

    // The way out that needs no force: a signed merge vouches for it.
    desk.repo.force("stray", &tip);
    desk.repo.force("main", &first);
    desk.repo.merge("stray");
    let merge = desk.sign("alice", &[]);
    desk.ours(&merge, Some(&first)).expect("the second parent's side needs no signature");
    desk.ours(&merge, None).expect("signed");
    assert!(desk.store().is_ancestor(&tip, &merge).expect("walked"), "it can be pushed without force");

    // The other way round the unsigned one is on the path.
    desk.repo.force("good", &first);
    desk.repo.force("main", &tip);
    desk.repo.commit_on("good", &[("b.txt", "b\n")], "beside");
    desk.repo.merge("good");
    let swapped = desk.sign("alice", &[]);
    assert!(desk.ours(&swapped, Some(&first)).is_err_and(|error| error.contains(middle.as_str())));

    // [good, bad*, good'] ends as [good, good'].
    desk.repo.force("main", &first);
    let (_, mended) = (desk.unsigned("bad"), desk.sign("alice", &[]));
    desk.ours(&mended, Some(&first)).expect("the next good one proceeds");
}

#[test]
fn armours_that_are_broken_are_refused() {
    let desk = Desk::new();
    let good = desk.signed("alice", "good");
    let (before, signature, after) = desk.parts(&good);
    let lines: Vec<&str> = signature.lines().collect();
    let without_end = lines[..lines.len() - 1].join("\n") + "\n";
    let cases = [
        (without_end, "cannot be read"),
        (signature.replace("SSH SIGNATURE", "SSH SIGNATURES"), "of no kind"),
        (signature.replace("U1NIU0lH", "U1NIU0lI"), "cannot be read"),
        (signature.replace("SSH SIGNATURE", "PGP SIGNATURE"), "is of OpenPGP, and only keys of SSH may sign here"),
        ("gpgsig -----BEGIN SIGNED MESSAGE-----\n".to_owned(), "X.509"),
        ("gpgsig \n".to_owned(), "of no kind"),
        (format!("{signature}{signature}"), "two signatures"),
        (signature.replacen("\n ", "\n", 1), ""),
    ];
    for (header, words) in cases {
        let broken = desk.raw(format!("{before}{header}{after}").as_bytes());
        desk.bad(&broken, words);
    }
    desk.good(&desk.raw(format!("{before}{signature}{after}").as_bytes()));
    let huge = format!("gpgsig -----BEGIN SSH SIGNATURE-----\n {}\n", "A".repeat(2 << 20));
    desk.bad(&desk.raw(format!("{before}{huge}{after}").as_bytes()), "bytes");
}

#[test]
fn the_file_is_read_whenever_something_is_verified() {
    let desk = Desk::new();
    let first = desk.signed("alice", "first");
    let clock: Arc<dyn Clock> = Arc::<Standing>::clone(&desk.clock);
    let verifier = Signers::open(desk.trusted(), Arc::clone(&clock)).expect("a verifier");
    let bob = desk.signed("bob", "by Bob");
    let says = || desk.by(&verifier, &bob, Some(&first));
    assert_eq!(says(), Ok(()));
    desk.allow(&[&desk.line("alice", "")]);
    assert!(says().is_err_and(|error| error.contains("is not among those that may sign")));
    desk.allow(&[]);
    assert!(says().is_err_and(|error| error.contains("lists no key")));
    desk.allow(&["* cert-authority ssh-ed25519 AAAA"]);
    assert!(says().is_err_and(|error| error.contains(":1: ") && error.contains("list the keys themselves")));
    std::fs::remove_file(desk.signers()).expect("removed");
    assert!(says().is_err_and(|error| error.contains("cannot read the keys that may sign")));
    assert_eq!(desk.by(&verifier, &bob, Some(&bob)), Ok(()), "what was accepted stays, whatever becomes of the file");
    assert!(Signers::open(desk.trusted(), clock).is_err(), "nobody starts with a file that cannot be used");
    desk.allow(&[&desk.line("bob", "")]);
    assert_eq!(says(), Ok(()));
    assert!(verifier.is_strict() && !NoVerification.is_strict());
}

#[test]
fn commits_made_here_are_signed_as_git_does() {
    let desk = Desk::new();
    let base = desk.signed("alice", "base");
    let person: Person = "Backstay <backstay@localhost>".parse().expect("a person");
    let edit = Edit::Write { path: "b.txt".to_owned(), bytes: "größer\n".into() };
    let made = |name: &str| {
        let key = SigningKey::read(&desk.path(name)).map_err(|error| error.to_string())?;
        let mut draft = desk.store().draft(&base).expect("a draft");
        draft.edit(std::slice::from_ref(&edit)).expect("edited");
        let now = desk.clock.now();
        draft
            .signed_commit(&person, &person, now, "Revert \"größer\"\n\nBody.\n", Some(&key))
            .map_err(|e| e.to_string())
    };
    let commit = made("alice").expect("a commit");
    desk.good(&commit);
    assert_eq!(desk.repo.git(&["log", "-1", "--format=%B", commit.as_str()]), "Revert \"größer\"\n\nBody.");
    desk.key("rsa", "rsa", &["-b", "2048"]);
    desk.key("ecdsa", "ecdsa", &[]);
    desk.key("locked", "ed25519", &["-N", "pass phrase"]);
    for (name, words) in [
        ("rsa", "`ssh-keygen -t ed25519` makes one"),
        ("ecdsa", "`ssh-keygen -t ed25519` makes one"),
        ("locked", "has a passphrase"),
        ("alice.pub", "no private key"),
        ("none", "No such file"),
    ] {
        let error = made(name).expect_err(name);
        assert!(error.contains(words) && error.contains(&*desk.path(name).display().to_string()), "{error}");
    }
    let clock: Arc<dyn Clock> = Arc::<Standing>::clone(&desk.clock);
    desk.allow(&[&desk.line("bob", "")]);
    let verifier = Signers::open(desk.trusted(), clock).expect("a verifier");
    let key = |name: &str| SigningKey::read(Path::new(&desk.path(name))).expect("a key");
    assert_eq!(verifier.trusts(&key("bob")), Ok(()));
    assert!(verifier.trusts(&key("alice")).is_err_and(|why| why.contains("SHA256:")));
}
